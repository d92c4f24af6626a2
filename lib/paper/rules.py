"""What every chapter demands of its parameters, read from its notebook without running it.

The cell that calls ``params.check`` is executed alone, and only as far as the statement that
creates the chapter: until there rules and relations are checked and nothing is written.
"""

from __future__ import annotations

import ast
import inspect
import io
import itertools
import tokenize
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import CodeType

from lib.paper import chapters, params, settings
from lib.paper.ranges import Rule

Look = Callable[..., None]  # takes parameters by their names, and refuses what they name
# by parameter; what knows files and models sets it
looks: Callable[[], Mapping[str, Look]] = dict


def _body(chapter: str) -> list[ast.stmt]:
    """The statements of the cell that checks, up to the one that creates the chapter."""
    for cell in chapters.cells(chapter):
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and "params.check(" in source:
            body = ast.parse(source).body
            ends = (i for i, part in enumerate(body) if "values.Chapter(" in ast.unparse(part))
            return body[: next(ends, len(body))]
    raise ValueError(f"rules: {chapter}: must have a cell that calls params.check")


def _compiled(body: list[ast.stmt], chapter: str) -> CodeType:
    return compile(ast.Module(body, []), f"{chapter}, the cell that checks", "exec")


def of(chapter: str) -> dict[str, Rule]:
    """The rule of each parameter of a chapter."""
    before: list[ast.stmt] = []
    for part in _body(chapter):
        if "params.check(" in ast.unparse(part):
            space: dict = dict(chapters.defaults(chapter))
            exec(_compiled(before, chapter), space)
            calls = [node for node in ast.walk(part) if isinstance(node, ast.Call)]
            call = next(node for node in calls if ast.unparse(node.func) == "params.check")
            parts = {word.arg: ast.Expression(word.value) for word in call.keywords if word.arg}
            own = {name: eval(compile(code, name, "eval"), space) for name, code in parts.items()}
            return params.rules_of(chapter, own)
        before.append(part)
    raise ValueError(f"rules: {chapter}: must call params.check in a statement of its own")


def refused(chapter: str, given: dict) -> list[str]:
    """What a chapter refuses of the given parameters, a line each; none where it has none of them.

    A fault of another kind than a bad value shows itself when the chapter runs, with its traceback.
    """
    own = settings.own(chapter, given)
    if not own:
        return []
    try:
        exec(_compiled(_body(chapter), chapter), chapters.defaults(chapter) | own)
    except params.ParameterError as error:
        return str(error).splitlines()
    except (ValueError, OSError) as error:
        return [f"{chapter}: {error}"]
    except Exception:
        return []
    return []


def check(names: list[str], *given: dict) -> None:
    """Refuse parameters of one run or of several, before anything runs, that one of the chapters
    would refuse, and then what they name, by `looks`.
    """
    lines = [line for one in given for chapter in names for line in refused(chapter, one)]
    if lines := lines or looked(names, given):
        raise ValueError("\n".join(f"run: {line}" for line in dict.fromkeys(lines)))


def looked(names: list[str], given: Sequence[dict]) -> list[str]:
    """What `looks` refuse of the parameters that are given to chapters, a line each; what several
    chapters or runs get alike is looked at once.
    """
    told: dict[str, str] = {}
    by_name = looks() if any(given) else {}
    for chapter, one in itertools.product(names, given):
        own = settings.own(chapter, one)
        known = chapters.defaults(chapter) | own
        for look in dict.fromkeys(by_name[name] for name in own if name in by_name):
            wanted = inspect.signature(look).parameters.keys()
            if not wanted <= known.keys():
                continue
            key = repr((look, [known[name] for name in wanted]))
            if key not in told:
                told[key] = _said(look, {name: known[name] for name in wanted})
    return [line for line in told.values() if line]


def _said(look: Look, known: Mapping[str, object]) -> str:
    try:
        look(**known)
    except (ValueError, OSError) as error:
        return str(error)
    return ""


def meanings(chapter: str) -> dict[str, str]:
    """What each parameter of a chapter means: its comment in the parameters cell."""
    return comments(chapters.parameters_cell(chapter))


def comments(source: str) -> dict[str, str]:
    """The comment of each assignment in a piece of Python, by the name that is assigned."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    found = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokens
        if token.type == tokenize.COMMENT
    }
    return {
        ast.unparse(part.targets[0]): " ".join(
            found[line]
            for line in range(part.lineno, (part.end_lineno or part.lineno) + 1)
            if line in found
        )
        for part in ast.parse(source).body
        if isinstance(part, ast.Assign)
    }


def literals(source: str) -> dict[str, object]:
    """The values that a piece of Python assigns, all of them literals, by their names."""
    parts = [part for part in ast.parse(source).body if isinstance(part, ast.Assign)]
    return {ast.unparse(part.targets[0]): ast.literal_eval(part.value) for part in parts}


def table(chapter: str) -> Iterator[tuple[str, object, str, str]]:
    """Of each parameter of a chapter: name, default, meaning, range; save `run_dir`."""
    words = meanings(chapter)
    for name, (_, rule) in of(chapter).items():
        if name != "run_dir":
            span = rule.removeprefix("must be ").removeprefix("must ")
            yield name, chapters.defaults(chapter)[name], words[name], span
