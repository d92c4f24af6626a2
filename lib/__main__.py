"""``python -m lib``."""

from lib.paper.cli import app

app(prog_name="python -m lib")
