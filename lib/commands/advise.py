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
from lib.commands.deciding import OFFERED, Rules
from lib.commands.line import Line, checked, written
from lib.commands.subject import IN_SAMPLE, Subject, of_counts, of_trace
from lib.measure import calibrate, records
from lib.model import corpus, load, texts
from lib.network import cost, fabric, step
from lib.network.links import Fabric
from lib.paper import runs
from lib.routing import adapter, observe, trace

CARDS = {"h200": "nvidia-h200-x2", "h100": "nvidia-h100-80gb-hbm3-x2"}
CARD = "h200"  # where none is named
MEASURED = provenance.repository() / "data/measured"
PER_NODE = 8
HEADS = {
    "placement": "experts placed",
    "rho_p50": "busiest device / mean (median)",
    "rho_p95": "(P95)",
    "slowdown": "layer slower by",
    "slowdown_low": "(P5)",
    "slowdown_high": "(P95)",
    "received_mb": "MB received (P95)",
    "memory_gb": "GB of copies a device",
}


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    line = Line(prog="python -m lib advise", description=__doc__)
    line.add_argument("subject", help="a file of counts, a run, or a model (folder or hub name)")
    line.add_argument("--devices", type=int, default=8, help="devices that share a layer's experts")
    line.add_argument("--tokens", type=int, default=2048, help="tokens of one device in a batch")
    line.add_argument("--card", choices=CARDS, default=CARD, help="measured machine")
    line.add_argument("--slots", type=int, help="experts that a device can hold; default: one more")
    line.add_argument("--model-name", default="", help="which model of several in counts or a run")
    line.add_argument(
        "--enough",
        type=float,
        default=Rules.enough,
        help="share of a layer's time that is left alone",
    )
    line.add_argument("--shape", help="published model whose layer it is (of counts)")
    line.add_argument("--text", default="held-out", help="text that a model is profiled on")
    line.add_argument("--top-k", type=int, default=0, help="experts a token, where counts lack it")
    line.add_argument("--html", type=Path, default=Path("advice.html"), help="page to write")
    return line.parse_args(arguments)


def profiled(a: argparse.Namespace) -> tuple[Subject, step.Model]:
    """A model on a little text, and its layer from its config."""
    net, tokenizer = load.open(a.subject, device=load.device("auto"))
    chosen = texts.chosen(a.text, 8, field="text", split="test", allow_partial=True)
    documents = corpus.encode(chosen, tokenizer, 512)
    return of_trace(observe.trace(net, documents, name=a.subject)), shaped(net)


def shaped(net) -> step.Model:
    """The layer of a model, from its own weights' shapes."""
    layers = adapter.layers(net)
    first, settings = layers[0], net.config.get_text_config()
    width = getattr(settings, "moe_intermediate_size", None) or settings.intermediate_size
    shape = cost.Shape(settings.hidden_size, width, first.num_experts, first.k)
    routed = 3 * shape.hidden * shape.width * shape.experts * len(layers)
    return step.Model("", shape, len(layers), float(max(net.num_parameters() - routed, 0)))


def subject(a: argparse.Namespace) -> tuple[Subject, step.Model]:
    """What the command line names, and its layer; refused with one line."""
    where, model = Path(a.subject), None
    if where.is_file():
        found = of_counts(imported.counts(where, top_k=a.top_k), a.model_name)
    elif where.is_dir() or "/" in a.subject or a.subject in load.ARMS:
        found, model = profiled(a)
    else:
        paths = sorted(runs.existing(a.subject).glob("01*/trace_*.npz"))
        named = {path.stem.removeprefix("trace_"): path for path in paths}
        if not named:
            raise ValueError(f"advise: {a.subject}: this run has no profile (chapter 01)")
        if len(named) > 1 and a.model_name not in named:
            options = ", ".join(named)
            raise ValueError(
                f"advise: --model-name {a.model_name}: must be one of {options}, the models of "
                f"run {a.subject}"
            )
        arm = a.model_name if a.model_name in named else next(iter(named))
        found = of_trace(trace.load(named[arm]), arm)
    experts, k = found.load.shape[1], found.k or a.top_k
    if not 1 <= k < experts:
        raise ValueError(
            f"advise: --top-k {k}: must be from 1 to below the {experts} experts; "
            "the counts do not tell it"
        )
    tokens = found.tokens or int(found.whole.sum(1).min() // k)
    found = replace(found, k=k, tokens=tokens)
    return found, model or layer_of(a.shape or found.name, found)


def layer_of(name: str, own: Subject) -> step.Model:
    """The published model of this name; a layer of OLMoE's sizes with these experts otherwise."""
    known = step.models()
    model = known[name] if name in known else replace(known["OLMoE-1B-7B"], name="")
    shape = replace(model.shape, experts=own.load.shape[1], k=own.k)
    return replace(model, shape=shape, layers=model.layers if model.name else len(own.load))


def machine(card: str) -> step.Machine:
    """The machine that was measured with this card."""
    tables, _, _ = records.load(MEASURED)
    own = {name: part[part.machine == CARDS[card]] for name, part in tables.items()}
    _, fits, _ = calibrate.everything(own, large_bytes=2**20, draws=0)
    return step.machine("measured", {n: fit.parameters for n, fit in fits.items()}, CARDS[card])


def cluster(devices: int, machine: step.Machine) -> Fabric:
    """One node, or nodes of eight on a tree that never blocks."""
    make = fabric.clusters(machine.exchange["wire_bytes_per_s"], machine.nic_bytes_per_s, PER_NODE)
    inside, tree, *_ = make.values()
    return (inside if devices <= PER_NODE else tree)(devices)


def case(a: argparse.Namespace) -> tuple[advice.Case, Subject]:
    """What is asked, checked, and whose load it is."""
    for name, most in (("devices", 4096), ("tokens", 1 << 20)):
        if not 1 <= getattr(a, name) <= most:
            raise ValueError(f"advise: --{name} {getattr(a, name)}: must be from 1 to {most}")
    if not 0 <= a.enough < 1:
        raise ValueError(f"advise: --enough {a.enough}: must be from 0 to below 1")
    own, model = subject(a)
    experts = own.load.shape[1]
    if experts % a.devices or a.devices < 2:
        raise ValueError(
            f"advise: --devices {a.devices}: must be 2 or more and divide {experts} experts"
        )
    if a.devices > PER_NODE and a.devices % PER_NODE:
        raise ValueError(
            f"advise: --devices {a.devices}: must be at most {PER_NODE} or fill nodes of {PER_NODE}"
        )
    held = experts // a.devices
    slots = held + 1 if a.slots is None else a.slots
    if not held <= slots <= experts:
        raise ValueError(
            f"advise: --slots {slots}: must be from {held} (experts / devices) to {experts}"
        )
    with_card = machine(a.card)
    net = cluster(a.devices, with_card)
    return of_case(own, model, net, with_card, a.tokens, slots - held), own


def of_case(
    own: Subject,
    model: step.Model,
    net: Fabric,
    machine: step.Machine,
    tokens: int,
    spare: int,
) -> advice.Case:
    """A subject on a cluster: placed by its load, judged on what is held out."""
    judged = None if own.judged_on == IN_SAMPLE else own.judged
    return advice.Case(own.load, own.tokens, model, net, machine, tokens, spare, judged=judged)


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


def sentences(case: advice.Case, row: pd.Series, own: Subject, rules: Rules) -> list[str]:
    """The advice, and below it what it rests on."""
    known = advice.imbalance(case)
    dead = "" if np.isnan(known.dead) else f"; {known.dead:.0f} experts got nothing"
    size = f"{case.model.shape.hidden} wide, {case.model.shape.width} an expert"
    drift = (
        "Whether a placement lasts on other text is not known: the counts are of one text."
        if np.isnan(row.drift)
        else f"On another of its {len(own.parts)} texts the busiest device has {row.drift:.2f} "
        "times what a placement made for that text gives."
    )
    return [
        row.advice,
        f"Your load, {own.kind}: Gini {known.gini:.2f} (a perfect router on as many tokens: "
        f"{known.gini_null:.2f}), MaxVio {known.max_violation:.2f}, mean of {known.layers:.0f} "
        f"layers of {known.experts:.0f} experts, {case.counted:,} tokens{dead}.",
        f"Time of a layer over that of even routes, simulated: batches of {case.tokens} tokens a "
        f"device drawn from counts, {case.devices} devices, {case.machine.origin}, a layer "
        f"{size}. More than two devices, and other nodes, are extrapolated.",
        f"Placements are judged on {own.judged_on}. {drift}",
        f"Perfect balance would take {row.ceiling:.1%} off the time at most (elasticity "
        f"{row.beta:.2f}). Engines that offer what is advised: "
        f"{OFFERED[row.action] or 'none that is known'}.",
        f"Settings: {rules}.",
        "Price in quality, measured on small models of this book, not on yours:",
    ]


def main(arguments: Sequence[str]) -> None:
    """Print the advice, write the page."""
    a = parsed(arguments)
    written("advise: --html", a.html, a.subject)
    checked("advise", text=a.text)
    if a.shape and a.shape not in step.models():
        options = ", ".join(step.models())
        raise ValueError(f"advise: --shape {a.shape}: must be one of {options}")
    (asked, own), known = case(a), advice.prices()
    rules = replace(Rules(), enough=a.enough)
    table, row = advice.answer(asked, rules, known, own.parts)
    *told, last = sentences(asked, row, own, rules)
    shown = table.rename(columns=HEADS).round(3)
    cost = known.drop(columns="start").round(3)
    print(*told, sep="\n\n")
    print("", shown.to_string(index=False), "", last, cost.to_string(index=False), sep="\n")
    with provenance.writing(a.html) as part:
        part.write_text(page([*told, last], shown, cost, f"Advice: {own.name}"))
    print(f"\npage: {a.html}")
