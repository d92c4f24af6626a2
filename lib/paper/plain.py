"""YAML as plain data: names, numbers, texts, lists; nothing that stands for something else.

The numbers and words are those of YAML 1.2, so that 1e-3 is a number and neither yes, 1:30 nor a
date is one.  Refused: a name that stands twice, tags, anchors and aliases, merge keys, a second
document, and a file that is no text or too long for parameters.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path

import yaml

LONGEST = 100_000  # bytes of a file of parameters
WORDS = {
    "tag:yaml.org,2002:bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "tag:yaml.org,2002:int": (r"[-+]?[0-9]+", "-+0123456789"),
    "tag:yaml.org,2002:float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    "tag:yaml.org,2002:null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
}


class _Loader(yaml.SafeLoader):
    """A loader of plain data alone."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 (as in its parent)

    def compose_node(self, parent, index):
        event = self.peek_event()
        if getattr(event, "anchor", None) is not None:
            raise yaml.constructor.ConstructorError(
                None, None, f"holds the anchor or alias {event.anchor}", event.start_mark
            )
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!":
            raise yaml.constructor.ConstructorError(
                None, None, f"holds the tag {tag}", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        seen: set[Hashable] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if not isinstance(name, str):
                problem = f"the name {name!r} is no text"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            if name in seen:
                problem = f"{name} stands there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep=True)


for _tag, (_pattern, _first) in WORDS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), list(_first))
_Loader.add_constructor(
    "tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node))
)


def parsed(text: str) -> object:
    """The content of a YAML text; what is refused is a ValueError of one line."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(
            f"{place}{' '.join(str(error.problem or error.context).split())}"
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def read(path: Path) -> object:
    """`parsed` of a file; its bytes are UTF-8, with a mark or without."""
    with path.open("rb") as file:
        raw = file.read(LONGEST + 1)
    if len(raw) > LONGEST:
        raise ValueError(f"is longer than {LONGEST} bytes")
    try:
        return parsed(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from None
