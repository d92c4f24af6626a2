"""``python -m lib advise MODEL|COUNTS|RUN --devices 32 --tokens 2048``: what should I do?  Where no
counts are known: ``python -m lib advise --gini 0.3 --shape Qwen3-30B-A3B --devices 32``.

Says in under a minute how uneven the experts' load is, what that costs a layer's time on a
cluster, and what would repair it, on one screen and as one HTML page.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from lib import provenance
from lib.commands import advice, advised, imported, level, line
from lib.commands.deciding import Rules
from lib.commands.line import Line, by_flags
from lib.commands.subject import IN_SAMPLE, Subject, of_counts, of_trace
from lib.measure import calibrate, records
from lib.model import corpus, load, texts
from lib.network import cost, fabric, step, synthetic
from lib.network.links import Fabric
from lib.paper import runs
from lib.routing import adapter, observe, trace

CARDS = {"h200": "nvidia-h200-x2", "h100": "nvidia-h100-80gb-hbm3-x2"}
CARD = "h200"  # where none is named
MEASURED = provenance.repository() / "data/measured"
PER_NODE = 8
FILES = (".csv", ".json", ".jsonl", ".npz", ".pt")  # what a subject ends with that is no model


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    line = Line(prog="python -m lib advise", description=__doc__)
    line.add_argument(
        "subject", nargs="?", help="a file of counts, a run, or a model (folder or hub name)"
    )
    line.add_argument("--gini", type=float, help="instead: the Gini of the experts' load alone")
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
    line.add_argument("--shape", help="published model whose layer it is (of counts, of a Gini)")
    line.add_argument("--text", default="held-out", help="text that a model is profiled on")
    line.add_argument(
        "--experts",
        type=int,
        default=0,
        help="experts a layer, where counts lack it or with --gini",
    )
    line.add_argument(
        "--top-k", type=int, default=0, help="experts a token, where counts lack it or with --gini"
    )
    line.add_argument("--html", type=Path, default=Path("advice.html"), help="page to write")
    return line.parse_args(arguments)


def profiled(a: argparse.Namespace) -> tuple[Subject, step.Model]:
    """A model on a little text, and its layer from its config."""
    net, tokenizer = load.open(a.subject, device=load.device("auto"))
    spare(a, adapter.layers(net)[0].num_experts)
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


def recorded(where: Path) -> bool:
    """Whether counts are there: a file, or a folder that an engine wrote, which is no model."""
    return where.is_file() or (where.is_dir() and not (where / "config.json").exists())


def counted(where: Path, a: argparse.Namespace) -> pd.DataFrame:
    """The counts in a file; what it must be told has the names of the command line."""
    try:
        return imported.counts(where, experts=a.experts, top_k=a.top_k)
    except ValueError as error:
        raise by_flags(error) from None


def subject(a: argparse.Namespace) -> tuple[Subject, step.Model]:
    """What the command line names, and its layer; refused with one line."""
    if not a.subject.strip():
        raise ValueError("advise: '': must be a model, counts or a run")
    where, model = Path(a.subject), None
    if not where.exists() and where.suffix in FILES:
        raise ValueError(f"advise: {a.subject}: no such file")
    if recorded(where):
        found = of_counts(counted(where, a), a.model_name)
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
    model = known[name] if name in known else replace(known[level.MODEL], name="")
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


def checked(a: argparse.Namespace) -> None:
    """Refuse numbers that no subject makes right."""
    for name, most in (("devices", 4096), ("tokens", 1 << 20)):
        if not 1 <= getattr(a, name) <= most:
            raise ValueError(f"advise: --{name} {getattr(a, name)}: must be from 1 to {most}")
    if not 0 <= a.enough < 1:
        raise ValueError(f"advise: --enough {a.enough}: must be from 0 to below 1")
    if a.shape and a.shape not in (known := step.models()):
        hint, options = provenance.nearest(a.shape, known), ", ".join(known)
        raise ValueError(f"advise: --shape {a.shape}: must be one of {options}{hint}")
    if (a.subject is None) == (a.gini is None):
        raise ValueError("advise: must have a model, counts or a run, or --gini, and not both")


def spare(a: argparse.Namespace, experts: int) -> int:
    """Slots that a device has beyond its share of the experts; refused: what does not divide."""
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
    return slots - held


def case(a: argparse.Namespace) -> tuple[advice.Case, Subject]:
    """What is asked, checked, and whose load it is."""
    checked(a)
    own, model = subject(a)
    free, with_card = spare(a, own.load.shape[1]), machine(a.card)
    net = cluster(a.devices, with_card)
    return of_case(own, model, net, with_card, a.tokens, free), own


def of_gini(a: argparse.Namespace) -> level.Case:
    """What is asked where the Gini alone is known, checked."""
    checked(a)
    model = step.models()[a.shape or level.MODEL]
    shape = replace(
        model.shape, experts=a.experts or model.shape.experts, k=a.top_k or model.shape.k
    )
    if not 1 <= shape.k < shape.experts <= level.MOST_EXPERTS:
        raise ValueError(
            f"advise: --experts {shape.experts}, --top-k {shape.k}: must be from 1 to below the "
            f"experts, and those at most {level.MOST_EXPERTS}"
        )
    most = synthetic.highest_level(shape.experts, shape.k)
    if not 0 <= a.gini < most:
        raise ValueError(
            f"advise: --gini {a.gini}: must be from 0 to below {most:.4g}, which {shape.k} of "
            f"{shape.experts} experts allow"
        )
    free, with_card = spare(a, shape.experts), machine(a.card)
    net, own = cluster(a.devices, with_card), replace(model, shape=shape)
    return replace(level.known(own, net, with_card, a.tokens, a.gini), spare=free)


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


def from_counts(
    a: argparse.Namespace, rules: Rules, known: pd.DataFrame
) -> tuple[list[str], pd.DataFrame, str]:
    """(sentences, table, whose) of a model, counts or a run."""
    asked, own = case(a)
    table, row = advice.answer(asked, rules, known, own.parts)
    told = advised.sentences(asked, row, own, rules, placing(a, asked))
    return told, advised.readable(table, advised.HEADS), own.name


def placing(a: argparse.Namespace, asked: advice.Case) -> str:
    """The command that writes the placement; "" of a model, which has to be profiled first."""
    if not recorded(Path(a.subject)):
        return ""
    slots = asked.load.shape[1] // asked.devices + asked.spare
    told = dict(model=a.model_name, experts=a.experts, top_k=a.top_k)
    more = "".join(f" --{name.replace('_', '-')} {value}" for name, value in told.items() if value)
    numbers = f"--devices {asked.devices} --slots {slots}"
    return f"python -m lib place {a.subject} {numbers}{more} --to sglang -o placement.json"


def from_gini(
    a: argparse.Namespace, rules: Rules, known: pd.DataFrame
) -> tuple[list[str], pd.DataFrame, str]:
    """(sentences, table, whose) where the Gini alone is known."""
    asked = of_gini(a)
    rows = level.families(asked, rules, known)
    told = [*level.advised(rows), level.rests(asked), f"Settings: {rules}.", advised.PRICE]
    shown = advised.readable(level.readable(rows), level.HEADS)
    return told, shown, f"a Gini of {a.gini:g}"


def main(arguments: Sequence[str]) -> None:
    """Print the advice, write the page."""
    a, known = parsed(arguments), advice.prices()
    line.written("advise: --html", a.html, a.subject)
    line.checked("advise", text=a.text)
    rules = replace(Rules(), enough=a.enough)
    found = from_counts(a, rules, known) if a.gini is None else from_gini(a, rules, known)
    (*told, last), shown, name = found
    cost = advised.readable(known, advised.PRICES)
    print(*told, sep="\n\n")
    print("", shown.to_string(index=False), "", last, cost.to_string(index=False), sep="\n")
    with provenance.writing(a.html) as part:
        part.write_text(advised.page([*told, last], shown, cost, f"Advice: {name}"))
    print(f"\npage: {a.html}")
