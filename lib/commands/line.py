"""What the command line offers beyond running chapters, each a module with main(arguments)."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import NoReturn

import typer

from lib.paper import intact, ranges, rules

# by name, in the words that --help shows
COMMANDS = {
    "advise": "Say what to do about the imbalance of a model, a run or a file of counts.",
    "affected": "Say whether a model is fine-tuned with the pooled loss, and what that misses.",
    "place": "Place experts and copies by a recording, as the file that an engine loads.",
    "sweep": "Run every combination of parameters in a file, into one table.",
    "simulate": "Simulate one exchange under imbalance: chapter 04's first table alone.",
}
READ = ("data/measured", "data/published")  # what they may read beside what is verified at loading
CHANGED = "--changed-data"  # as of `run`
WHOLE = {"allow_extra_args": True, "ignore_unknown_options": True}  # each parses its own


class Line(argparse.ArgumentParser):
    """The command line of one of them; what it cannot read is one line, as everywhere."""

    def error(self, message: str) -> NoReturn:
        """Refuse."""
        raise ValueError(f"{self.prog.split()[-1]}: {message}")


def by_flags(error: ValueError) -> ValueError:
    """The same with the names that the command line has for what a file of counts leaves untold."""
    told = str(error).replace("counts_experts", "--experts").replace("counts_top_k", "--top-k")
    return ValueError(told)


def written(where: str, file: Path, *read: object) -> None:
    """Refuse, before the work, a file that cannot be written, or that is among what is read."""
    if not file.parent.is_dir():
        raise ValueError(f"{where} {file}: its folder must exist")
    if file.is_dir():
        raise ValueError(f"{where} {file}: must be a file, is a folder")
    if file.exists() and not file.is_file():
        raise ValueError(f"{where} {file}: must be a plain file, is a device or a pipe")
    if any(file.resolve() == Path(str(one)).resolve() for one in read):
        raise ValueError(f"{where} {file}: must be another file than what is read")


def checked(command: str, **given: object) -> None:
    """Refuse, before the work, what the rules of the parameters of these names refuse."""
    for name, value in given.items():
        holds, words = ranges.RANGES[name]
        if not holds(value):
            raise ValueError(f"{command}: {name} = {value!r}: {words}")


def add(app: typer.Typer) -> None:
    """Put the commands beside those of `app`, and have what parameters name looked at."""
    rules.looks = _looks
    for name, words in COMMANDS.items():
        app.command(name, help=words, context_settings=WHOLE, add_help_option=False)(_calls(name))


def _looks() -> dict[str, rules.Look]:
    return importlib.import_module("lib.commands.looked").LOOKS


def _calls(name: str):
    def call(context: typer.Context) -> None:
        arguments = [word for word in context.args if word != CHANGED]
        if len(arguments) < len(context.args):
            os.environ[intact.ON_PURPOSE] = "1"
        if found := intact.check(READ):
            print(f"data changed on purpose: {', '.join(found)}", file=sys.stderr)
        importlib.import_module(f"lib.commands.{name}").main(arguments)

    return call
