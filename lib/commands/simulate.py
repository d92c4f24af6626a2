"""``python -m lib simulate``: what an exchange costs at levels of imbalance, in seconds.

It is the first table of the network chapter, by the chapter's own parameters, defaults and rules.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from lib import provenance
from lib.commands import asked
from lib.commands.line import Line
from lib.network import cluster, exchange, predecessor
from lib.paper import chapters, plots_network, ranges, rules

CHAPTER = "04_network"
NAMES = (
    *("num_tokens", "num_experts", "top_k", "imbalance_levels", "family", "num_devices"),
    *("fabric", "devices_per_node", "hidden_size", "bytes_per_element", "nvlink_bytes_per_s"),
    *("nic_bytes_per_s", "seeds", "seed"),
)
FOLDER = Path("results/simulation")
SHOWN = ["fabric", "level", "mean_us", "p50_us", "p95_us", "p99_us", "slowdown"]


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line: a flag per parameter, a list as words after it."""
    line = Line(
        prog="python -m lib simulate",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    defaults, meanings = chapters.defaults(CHAPTER), rules.meanings(CHAPTER)
    for name in NAMES:
        default = defaults[name]
        one = default[0] if isinstance(default, list) else default
        line.add_argument(
            f"--{name}",
            type=_kind(name, one),
            nargs=None if one is default else "+",
            default=default,
            help=f"{meanings[name].replace('%', '%%')} (default: {default})",
        )
    line.add_argument("--output", type=Path, default=FOLDER, help=f"folder (default: {FOLDER})")
    return line.parse_args(arguments)


def _kind(name: str, value: object) -> type:
    """How a word is read: as the default, but with a fraction where the rule allows one."""
    holds, _ = ranges.RANGES[name]
    return float if type(value) is int and holds(value + 0.5) else type(value)


def levels(p: SimpleNamespace) -> pd.DataFrame:
    """exchange.summary of the chapter's two fabrics."""
    where = asked.place(p)
    study = asked.routed(p, where)
    fabrics = cluster.fabrics(where, study.devices)
    return exchange.summary(exchange.at_levels(study, p.imbalance_levels, fabrics))


def main(arguments: Sequence[str]) -> None:
    """Print the table and where the results stand; refused is what the chapter refuses."""
    given = vars(parsed(arguments))
    folder = given.pop("output")
    if refused := rules.refused(CHAPTER, given):
        raise ValueError("\n".join(f"simulate: {line}" for line in refused))
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"simulate: --output {folder}: must be a folder, is a file")
    folder.mkdir(parents=True, exist_ok=True)
    table = levels(SimpleNamespace(**given))
    written = folder / "simulation_results.json", folder / "communication_comparison.png"
    with provenance.writing(written[0]) as part:
        part.write_text(predecessor.results(table, parameters=given))
    with provenance.writing(written[1]) as part:
        figure = plots_network.level_times(table)
        figure.savefig(part, dpi=160, format="png", metadata={"Software": None})
    print(table[SHOWN].round(3).to_string(index=False))
    print(*written, sep="\n")
