"""Parameters that a user gives, on the command line or in a file, for chapters that have them."""

from __future__ import annotations

import ast
import json
from pathlib import Path

from lib import provenance
from lib.paper import chapters, plain

PARAMS = chapters.ROOT / "notebooks" / "params"
SHOWN = 200  # letters of what was typed that a message repeats
KINDS = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a dict"}


def read(name: str, text: str, default: object) -> object:
    """A value typed on the command line, as the type of the parameter's default; a list in
    brackets.

    Refused: what cannot be read so.  Whether the value makes sense says the chapter's own rule.
    """
    if isinstance(default, str):
        return text
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        return _literal(text)
    except (KeyError, ValueError, SyntaxError, MemoryError, RecursionError):
        kind = KINDS[type(default)]
        raise ValueError(f"run: -p {name}={short(text)}: must be {kind}, like {default}") from None


def _literal(text: str) -> object:
    """A Python literal; one dict may not have a key twice."""
    tree = ast.parse(text.strip(), mode="eval")
    for node in ast.walk(tree):
        keys = [ast.dump(key) for key in getattr(node, "keys", []) if key]
        if len(keys) > len(set(keys)):
            raise ValueError("a key stands there twice")
    return ast.literal_eval(tree)


def known(number: str | None = None) -> dict[str, object]:
    """Every parameter that a chapter declares, of all or of one number, with its default, save
    `run_dir`, which a run sets itself.
    """
    found = {
        name: value
        for chapter in chapters.names()
        if number in (None, chapter[:2])
        for name, value in chapters.defaults(chapter).items()
    }
    return {name: value for name, value in found.items() if name != "run_dir"}


def parse(given: list[str]) -> dict[str, object]:
    """Parameters from "name=value" texts, or "01.name=value" for one chapter, paths among them seen
    from the current folder; a name that no chapter declares is refused with the nearest one.
    """
    parsed = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise ValueError(f"run: -p {item!r}: must be name=value")
        value = read(name, text, declared(name, "-p"))
        parsed[name] = provenance.located(_plain(name), value)
    return parsed


def load(file: str) -> dict[str, object]:
    """Parameters from a YAML file of names and values, given by its path or by its name below
    notebooks/params.
    """
    places = (Path(file), PARAMS / file, PARAMS / f"{file}.yml")
    path = next((place for place in places if _is_file(place)), None)
    shown = short(file)
    if path is None:
        hint = provenance.nearest(file, [place.stem for place in PARAMS.glob("*.yml")])
        raise ValueError(f"run: --params {shown}: no such file, nor one in notebooks/params{hint}")
    try:
        content = plain.read(path)
    except OSError as error:
        raise ValueError(f"run: --params {shown}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"run: --params {shown}: must be plain YAML: {error}") from None
    return checked({} if content is None else content, f"--params {shown}:")


def _is_file(place: Path) -> bool:
    try:
        return place.is_file()
    except OSError:  # a name that no file can have
        return False


def short(word: str) -> str:
    """A word as a message shows it: what is empty, long or not to be printed in quotes."""
    if len(word) > SHOWN:
        return f"{word[:SHOWN]!r}…"
    return word if word and word.isprintable() else repr(word)


def asked(file: str | None, typed: list[str]) -> dict[str, object]:
    """The parameters of a file, if one is named, and of the command line, which goes before it."""
    of_file, of_line = load(file) if file is not None else {}, parse(typed)
    return {n: value for n, value in of_file.items() if _plain(n) not in of_line} | of_line


def checked(content: object, where: str) -> dict[str, object]:
    """Names with values, as read from a file or from JSON, paths among them seen from the current
    folder; refused is a name that no chapter has, and a value, a date for example, that JSON cannot
    write.
    """
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise ValueError(f"run: {where} holds a {kind}: must be names with values")
    for name, value in content.items():
        declared(str(name), where)
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            raise ValueError(
                f"run: {where} {name}: {value}: must be a number, a text, or a list of them"
            ) from None
    return {name: provenance.located(_plain(name), value) for name, value in content.items()}


def _plain(name: str) -> str:
    """The name of a parameter without the number of the one chapter that it is given to."""
    return name.rpartition(".")[2]


def declared(name: str, where: str) -> object:
    """The default of a parameter, of the one chapter whose number stands before it, if one does."""
    number, dot, plain = name.rpartition(".")
    names = known(number if dot else None)
    if plain not in names:
        who = f"chapter {number} does not have" if dot and names else "no chapter has"
        hint = provenance.nearest(plain, sorted(names))
        raise ValueError(f"run: {where} {short(name)}: {who} this parameter{hint}")
    return names[plain]


def own(chapter: str, given: dict) -> dict[str, object]:
    """The given parameters that a chapter declares; "01.name" goes before what is given to all."""
    found: dict[str, object] = {}
    for name in chapters.defaults(chapter):
        for key in (name, f"{chapter[:2]}.{name}"):
            found |= {name: given[key]} if key in given else {}
    return found


def of(chapter: str, given: dict) -> str:
    """`own` as JSON (which papermill reads as YAML)."""
    return json.dumps(own(chapter, given), sort_keys=True)
