"""``python -m lib``."""

import sys

try:
    from lib.commands import line
    from lib.paper import cli
except KeyboardInterrupt:
    sys.exit("lib: stopped before it began")

line.add(cli.app)
cli.main()
