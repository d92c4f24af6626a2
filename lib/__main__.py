"""``python -m lib``."""

from lib.paper.cli import main

main()
