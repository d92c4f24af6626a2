"""``python -m lib``."""

import os
import sys

if sys.getfilesystemencoding() != "utf-8":  # a locale in which Python would read no file of this
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, "-m", "lib", *sys.argv[1:]])

try:
    from lib.commands import line
    from lib.paper import cli
except KeyboardInterrupt:
    sys.exit("lib: stopped before it began")

line.add(cli.app)
cli.main()
