"""``python -m lib advise MODEL|COUNTS|RUN --devices 32 --tokens 2048``: what should I do?

Says in under a minute how uneven the experts' load is, what that costs a layer's time on a
cluster, and what would repair it, on one screen and as one HTML page.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from lib import provenance
from lib.commands import advice, imported
from lib.commands.line import Line
from lib.measure import calibrate, records
from lib.model import corpus, load, texts
from lib.network import cost, fabric, step
from lib.paper import runs
from lib.routing import adapter, observe, trace

CARDS = {"h200": "nvidia-h200-x2", "h100": "nvidia-h100-80gb-hbm3-x2"}
PER_NODE = 8
Counted = tuple[np.ndarray, int, int, str]
HEADS = {
    "placement": "experts placed",
    "rho_p50": "busiest device / mean (median)",
    "rho_p95": "(P95)",
    "slowdown": "layer slower by",
    "slowdown_low": "(P5)",
    "slowdown_high": "(P95)",
    "memory_gb": "GB of copies a device",
}


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    line = Line(prog="python -m lib advise", description=__doc__)
    line.add_argument("subject", help="a file of counts, a run, or a model (folder or hub name)")
    line.add_argument("--devices", type=int, default=8, help="devices that share a layer's experts")
    line.add_argument("--tokens", type=int, default=2048, help="tokens of one device in a batch")
    line.add_argument("--card", choices=CARDS, default="h200", help="measured machine")
    line.add_argument("--slots", type=int, help="experts that a device can hold; default: one more")
    line.add_argument("--shape", help="published model whose layer it is (of counts)")
    line.add_argument("--text", default="held-out", help="text that a model is profiled on")
    line.add_argument("--top-k", type=int, default=0, help="experts a token, where counts lack it")
    line.add_argument("--html", type=Path, default=Path("advice.html"), help="page to write")
    return line.parse_args(arguments)


def counted(path: Path) -> Counted:
    """(load [layers, experts] over all domains, tokens a layer, k or 0, model) of a counts file."""
    frame = imported.counts(path)
    name = str(frame.model.iloc[0])
    frame = frame[frame.model == name]
    table = frame.pivot_table(index="layer", columns="expert", values="count", aggfunc="sum")
    k = int(frame.top_k.iloc[0])
    total = int(table.sum(1).min())
    return table.fillna(0).to_numpy(), total // k if k else 0, k, name


def traced(t: trace.Trace) -> Counted:
    """The same of a trace."""
    return t.load, len(t.document), t.expert_index.shape[2], t.model


def profiled(a: argparse.Namespace) -> tuple[Counted, step.Model]:
    """The same of a model on a little text, and its layer from its config."""
    net, tokenizer = load.open(a.subject, device=load.device("auto"))
    chosen = texts.chosen(a.text, 8, field="text", split="test", allow_partial=True)
    documents = corpus.encode(chosen, tokenizer, 512)
    return traced(observe.trace(net, documents, name=a.subject)), shaped(net)


def shaped(net) -> step.Model:
    """The layer of a model, from its own weights' shapes."""
    layers = adapter.layers(net)
    first, settings = layers[0], net.config.get_text_config()
    width = getattr(settings, "moe_intermediate_size", None) or settings.intermediate_size
    shape = cost.Shape(settings.hidden_size, width, first.num_experts, first.k)
    routed = 3 * shape.hidden * shape.width * shape.experts * len(layers)
    return step.Model("", shape, len(layers), float(max(net.num_parameters() - routed, 0)))


def subject(a: argparse.Namespace) -> tuple[np.ndarray, int, str, step.Model]:
    """(load, tokens a layer, name, model) of what the command line names; refused with one line."""
    where, model = Path(a.subject), None
    if where.is_file():
        found = counted(where)
    elif where.is_dir() or "/" in a.subject or a.subject in load.ARMS:
        found, model = profiled(a)
    else:
        paths = sorted(runs.existing(a.subject).glob("01*/trace_*.npz"))
        if not paths:
            raise ValueError(f"advise: {a.subject}: this run has no profile (chapter 01)")
        found = traced(trace.load(paths[-1]))
    counts, tokens, k, name = found
    k = k or a.top_k
    if not 1 <= k < counts.shape[1]:
        raise ValueError(
            f"advise: --top-k {k}: must be from 1 to below the {counts.shape[1]} experts; "
            "the counts do not tell it"
        )
    tokens = tokens or int(counts.sum(1).min() // k)
    return counts, tokens, name, model or _published(a.shape or name, counts, k)


def _published(name: str, counts: np.ndarray, k: int) -> step.Model:
    """The published model of this name; a layer of OLMoE's sizes with these experts otherwise."""
    known = step.models()
    model = known[name] if name in known else replace(known["OLMoE-1B-7B"], name="")
    shape = replace(model.shape, experts=counts.shape[1], k=k)
    return replace(model, shape=shape, layers=len(counts) if not model.name else model.layers)


def machine(card: str) -> step.Machine:
    """The machine that was measured with this card."""
    tables, _, _ = records.load(provenance.repository() / "data/measured")
    own = {name: part[part.machine == CARDS[card]] for name, part in tables.items()}
    _, fits, _ = calibrate.everything(own, large_bytes=2**20, draws=0)
    return step.machine("measured", {n: fit.parameters for n, fit in fits.items()}, CARDS[card])


def cluster(devices: int, machine: step.Machine):
    """One node, or nodes of eight on a tree that never blocks."""
    make = fabric.clusters(machine.exchange["wire_bytes_per_s"], machine.nic_bytes_per_s, PER_NODE)
    inside, tree, *_ = make.values()
    return (inside if devices <= PER_NODE else tree)(devices)


def case(a: argparse.Namespace) -> tuple[advice.Case, str]:
    """What is asked, checked, and what it is called."""
    for name, most in (("devices", 4096), ("tokens", 1 << 20)):
        if not 1 <= getattr(a, name) <= most:
            raise ValueError(f"advise: --{name} {getattr(a, name)}: must be from 1 to {most}")
    counts, tokens, name, model = subject(a)
    if counts.shape[1] % a.devices or a.devices < 2:
        raise ValueError(
            f"advise: --devices {a.devices}: must be 2 or more and divide {counts.shape[1]} experts"
        )
    held = counts.shape[1] // a.devices
    slots = held + 1 if a.slots is None else a.slots
    if not held <= slots <= counts.shape[1]:
        raise ValueError(
            f"advise: --slots {slots}: must be from {held} (experts / devices) to {counts.shape[1]}"
        )
    with_card = machine(a.card)
    net = cluster(a.devices, with_card)
    return advice.Case(counts, tokens, model, net, with_card, a.tokens, slots - held), name


def page(told: Sequence[str], table: pd.DataFrame, prices: pd.DataFrame, title: str) -> str:
    """One HTML page that needs nothing else."""
    style = (
        "body{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;"
        "color-scheme:light dark}td,th{padding:.3em .8em;text-align:right}"
        "td:first-child,th:first-child{text-align:left}div{overflow-x:auto}"
    )
    first, *rest = (escape(line) for line in told)
    tables = "".join(f"<div>{t.to_html(index=False, border=0)}</div>" for t in (table, prices))
    body = "".join(f"<p>{line}</p>" for line in rest)
    head = f"<title>{escape(title)}</title><style>{style}</style>"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width">{head}</head><body>'
        f"<h1>{escape(title)}</h1><p><strong>{first}</strong></p>{body}{tables}</body></html>"
    )


def sentences(case: advice.Case, table: pd.DataFrame, prices: pd.DataFrame) -> list[str]:
    """The advice, and below it what it rests on."""
    known = advice.imbalance(case)
    dead = "" if np.isnan(known.dead) else f"; {known.dead:.0f} experts got nothing"
    size = f"{case.model.shape.hidden} wide, {case.model.shape.width} an expert"
    return [
        advice.advised(table, prices),
        f"Your load, measured: Gini {known.gini:.2f} (a perfect router on as many tokens: "
        f"{known.gini_null:.2f}), MaxVio {known.max_violation:.2f}, mean of {known.layers:.0f} "
        f"layers of {known.experts:.0f} experts, {case.counted:,} tokens{dead}.",
        f"Time of a layer over that of even routes, simulated: batches of {case.tokens} tokens a "
        f"device drawn from these counts, {case.devices} devices, {case.machine.origin}, a layer "
        f"{size}. More than two devices, and other nodes, are extrapolated.",
        f"Balance alone could take off {1 - 1 / (1 + table.slowdown.iloc[0]):.1%} of the time "
        "at most. A placement keeps less of its gain on other text.",
        "Price in quality, measured on small models of this book, not on yours:",
    ]


def main(arguments: Sequence[str]) -> None:
    """Print the advice, write the page."""
    a = parsed(arguments)
    own, name = case(a)
    table, prices = advice.summary(advice.timed(own), own), advice.prices()
    told = sentences(own, table, prices)
    shown = table.rename(columns=HEADS).round(3)
    print(*told[:4], sep="\n\n")
    print(
        "",
        shown.to_string(index=False),
        "",
        told[4],
        prices.round(3).to_string(index=False),
        sep="\n",
    )
    with provenance.writing(a.html) as part:
        part.write_text(page(told, shown, prices.round(3), f"Advice: {name}"))
    print(f"\npage: {a.html}")
