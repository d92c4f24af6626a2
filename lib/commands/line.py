"""What the command line offers beyond running chapters, each a module with main(arguments)."""

from __future__ import annotations

import argparse
import importlib
from typing import NoReturn

import typer

# by name, in the words that --help shows
COMMANDS = {
    "advise": "Say what to do about the imbalance of a model, a run or a file of counts.",
    "affected": "Say whether a model is fine-tuned with the pooled loss, and what that misses.",
    "place": "Place experts and copies by a recording, as the file that an engine loads.",
    "sweep": "Run every combination of parameters in a file, into one table.",
    "simulate": "Simulate one exchange under imbalance: chapter 04's first table alone.",
}
WHOLE = {"allow_extra_args": True, "ignore_unknown_options": True}  # each parses its own


class Line(argparse.ArgumentParser):
    """The command line of one of them; what it cannot read is one line, as everywhere."""

    def error(self, message: str) -> NoReturn:
        """Refuse."""
        raise ValueError(f"{self.prog.split()[-1]}: {message}")


def add(app: typer.Typer) -> None:
    """Put the commands beside those of `app`."""
    for name, words in COMMANDS.items():
        app.command(name, help=words, context_settings=WHOLE, add_help_option=False)(_calls(name))


def _calls(name: str):
    def call(context: typer.Context) -> None:
        importlib.import_module(f"lib.commands.{name}").main(context.args)

    return call
