"""Parameters that a user gives, on the command line or in a file, for the chapters that declare them."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import yaml

from lib import provenance
from lib.paper import chapters

PARAMS = chapters.ROOT / "notebooks" / "params"


def read(text: str, default: object) -> object:
    """A value typed on the command line, as the type of the parameter's default; a list in
    brackets.
    """
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text  # the notebook's own check says what is wrong with it


def known() -> dict[str, object]:
    """Every parameter that a chapter declares, with its default, save `run_dir`, which a run sets
    itself.
    """
    found = {
        name: value
        for chapter in chapters.names()
        for name, value in chapters.defaults(chapter).items()
    }
    return {name: value for name, value in found.items() if name != "run_dir"}


def parse(given: list[str]) -> dict[str, object]:
    """Parameters from "key=value" texts; a name that no chapter declares is refused with the
    nearest one.
    """
    parsed = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals:
            raise ValueError(f"run: -p {item!r}: must be name=value")
        parsed[name] = read(text, _declared(name, "-p")[name])
    return parsed


def load(file: str) -> dict[str, object]:
    """Parameters from a YAML file of names and values, given by its path or by its name below
    notebooks/params.
    """
    path = next(
        (p for p in (Path(file), PARAMS / file, PARAMS / f"{file}.yml") if p.is_file()), None
    )
    if path is None:
        names = [p.stem for p in PARAMS.glob("*.yml")]
        raise ValueError(
            f"run: --params {file}: no such file, nor one in notebooks/params{provenance.nearest(file, names)}"
        )
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"run: --params {file}: must be YAML: {reason}") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"run: --params {file}: holds a {type(content).__name__}: must be names with values"
        )
    for name in content:
        _declared(str(name), f"--params {file}:")
    return content


def _declared(name: str, where: str) -> dict[str, object]:
    names = known()
    if name not in names:
        hint = provenance.nearest(name, sorted(names))
        raise ValueError(f"run: {where} {name}: no chapter has this parameter{hint}")
    return names


def of(chapter: str, given: dict) -> str:
    """The given parameters that a chapter declares, as JSON (which papermill reads as YAML)."""
    own = chapters.defaults(chapter)
    return json.dumps({name: value for name, value in given.items() if name in own}, sort_keys=True)
