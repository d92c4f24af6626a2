"""``python -m lib``."""

from lib.commands import line
from lib.paper import cli

line.add(cli.app)
cli.main()
