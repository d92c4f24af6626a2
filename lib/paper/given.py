"""The parameters that a chapter gets, as JSON on one line: for scripts, which hand it to papermill.

``python -m lib.paper.given CHAPTER --params paper --json '{"steps": 40}' -p seed=1 --whole``

What is given twice counts as in -p, else as in --json, else as in the file.  It needs none of the
packages that run notebooks or read command lines, which a machine with GPUs may not have.
"""

from __future__ import annotations

import argparse
import json
import sys

from lib.paper import chapters, rules, settings


def main(arguments: list[str]) -> str:
    """What the command prints: the given parameters of the chapter, with `--whole` all of them."""
    parser = argparse.ArgumentParser(prog="python -m lib.paper.given", allow_abbrev=False)
    parser.add_argument("chapter", choices=chapters.names())
    parser.add_argument("--params", help="a YAML file, or its name in notebooks/params")
    parser.add_argument("--json", action="append", default=[], help="more of them; repeatable")
    parser.add_argument("-p", action="append", default=[], help="name=value; repeatable")
    parser.add_argument("--whole", action="store_true", help="with the defaults of the others")
    told = parser.parse_args(arguments)
    wished = settings.asked(told.params, [])
    for text in told.json:
        try:
            wished |= settings.checked(json.loads(text), "--json")
        except json.JSONDecodeError as error:
            raise ValueError(f"run: --json {text}: must be JSON: {error}") from None
    wished |= settings.parse(told.p)
    rules.check([told.chapter], wished)
    own = settings.own(told.chapter, wished)
    return json.dumps(chapters.defaults(told.chapter) | own if told.whole else own, sort_keys=True)


if __name__ == "__main__":
    try:
        print(main(sys.argv[1:]))
    except ValueError as refused:
        sys.exit(str(refused))
