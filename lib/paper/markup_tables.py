"""Tables as people read them: on a page the first rows of a long one, the rest at a touch; numbers
without the notation of programs; a value and its interval that break only between them.
"""

from __future__ import annotations

import re

SHOWN = 8  # rows of a table that a page shows; the rest is folded
LONG = 48  # characters above which a cell is a text, which stays as it was written
WIDE = 8  # columns above which a table is set smaller
TABLE = re.compile(
    r'<table class="paper-table[^"]*"><thead>(?P<head>.*?)</thead><tbody>(?P<body>.*?)</tbody>'
    r"</table></div>",
    re.DOTALL,
)
ABOUT = re.compile(r'<table class="paper-table paper-provenance">(.*?)</table></div>', re.DOTALL)
FOLDED = ("versions", "parameters", "data (SHA-256)")  # rows of the provenance
ROW = re.compile(r"<tr>.*?</tr>", re.DOTALL)
CELL = re.compile(r"(<td[^>]*>)(.*?)(</td>)", re.DOTALL)
POWER = re.compile(r"(?<![\w.])([-−]?\d(?:\.\d+)?)e([+-])(\d+)(?![\w.])")
LINE = re.compile(r"(?<=[A-Za-z])_(?=[A-Za-z0-9])")
PATH = re.compile(r"[/.][A-Za-z]")  # in the name of a file
LIMITS = re.compile(r"^(.*?) (\[[^\]]*\])$")
NUMBER = re.compile(r"[-−+]?[\d.,]+")
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
WORDS = {"True": "yes", "False": "no", "nan": "–", "NaN": "–", "None": "–"}
SMALL = 1e-4  # below it a p-value is only said to be below it
PLAIN = 10**6  # up to it a number is written out


def powers(text: str) -> str:
    """A text in which 9.9e-06 is 9.9·10⁻⁶ and 1.02e+03 is 1,020; a true minus before a number."""
    found = POWER.sub(_power, text)
    return re.sub(r"(?<![\w.,–−-])-(?=\d)", "−", found)


def _power(found: re.Match) -> str:
    size = int(found[2] + found[3])
    value = float(found[0].replace("−", "-"))
    if size >= 0 and abs(value) < PLAIN:
        return f"{value:,.0f}"
    return f"{found[1]}·10{str(size).translate(RAISED)}"


def cell(text: str, head: str = "") -> str:
    """The content of one cell below its head: names, but those of files, without underscores, words
    for what a program calls true or missing, a p-value below 0.0001 as no more than that, an
    interval kept together.
    """
    text = WORDS.get(text, text)
    if re.match(r"p($|\W)", head) and _below(text):
        return f"&lt;&nbsp;{SMALL:.4f}"
    text = powers(text if PATH.search(text) else LINE.sub(" ", text))
    return LIMITS.sub(r'<span>\1</span> <span class="paper-limits">\2</span>', text)


def _below(text: str) -> bool:
    try:
        return 0 <= float(text) < SMALL
    except ValueError:
        return False


def told(page: str) -> str:
    """A piece of a page: tables as people read them, long rows of a provenance folded."""
    return ABOUT.sub(_about, TABLE.sub(_table, page))


def _about(found: re.Match) -> str:
    rows = re.findall(r"<tr.*?</tr>", found[1], re.DOTALL)
    long = [row for row in rows if any(f"<th>{head}</th>" in row for head in FOLDED)]
    first = "".join(row for row in rows if row not in long)
    return (
        f'<table class="paper-table paper-provenance"><tbody>{first}</tbody>'
        f'<tbody class="paper-rest">{"".join(long)}</tbody></table></div>'
        '<details class="paper-more paper-about"><summary>versions, parameters, data</summary>'
        "</details>"
    )


def _table(found: re.Match) -> str:
    heads = re.findall(r"<th[^>]*>(.*?)</th>", found["head"], re.DOTALL)
    opened = found[0][: found[0].index("<thead>")]
    rows = [_row(row, heads, "paper-wrap" in opened) for row in ROW.findall(found["body"])]
    if len(heads) > WIDE:
        opened = opened.replace('class="paper-table', 'class="paper-table paper-wide', 1)
    body = f"<tbody>{''.join(rows[:SHOWN])}</tbody>"
    rest = rows[SHOWN:]
    if not rest:
        return f"{opened}<thead>{found['head']}</thead>{body}</table></div>"
    count = f"{len(rest)} more row{'s' * (len(rest) > 1)}"
    return (
        f"{opened}<thead>{found['head']}</thead>{body}"
        f'<tbody class="paper-rest">{"".join(rest)}</tbody></table></div>'
        f'<details class="paper-more"><summary>{count}</summary></details>'
    )


def _row(row: str, heads: list[str], named: bool) -> str:
    """A row, each cell under its head; `named`: with the head in it, for a phone, on which long
    cells stand below each other.
    """
    names = iter(heads)

    def told(part: re.Match) -> str:
        name = next(names, "")
        opened = part[1].replace("<td", f'<td data-head="{name}"', 1) if named else part[1]
        quoted = len(part[2]) > LONG
        if quoted and "class=" not in opened:
            opened = opened.replace("<td", '<td class="paper-long"', 1)
        return f"{opened}{part[2] if quoted else cell(part[2], name)}{part[3]}"

    return CELL.sub(told, row)
