"""``python -m lib place COUNTS|RUN --devices 32 --slots 9 --to sglang -o FILE``: from a recording
to the placement that an engine loads.

Reads what an engine recorded, places experts and copies of the busy ones, says what more slots
would give, and writes the file, which it reads back.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lib.commands import advice, advise, imported, placing
from lib.commands.line import Line, by_flags, written
from lib.engines import exporting, importing
from lib.model import load
from lib.network import step
from lib.paper import runs
from lib.paper.plots_style import machines
from lib.routing import others, trace

LOADED = {
    "sglang": "sglang.launch_server --init-expert-location {file} --ep-num-redundant-experts {n}",
    "vllm": "no released option: initial_expert_map_path of vLLM's open pull request 49572 "
    "(num_redundant_experts {n})",
    "tensorrt-llm": "moe_config: load_balancer: {file}",
    "csv": "for your own loader: layer, device, slot, expert",
}
HEADS = {
    "slots": "slots a device",
    "greedy": "busiest / mean, greedy",
    "better": "better",
    "ceiling": "no placement below",
    "other": "on other texts",
    "memory_gb": "GB of copies a device (bf16)",
    "slowdown": "layer slower by",
}


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    line = Line(prog="python -m lib place", description=__doc__)
    line.add_argument("subject", help="a recording, a file of counts or of routes, or a run")
    line.add_argument("--devices", type=int, required=True, help="devices that share the experts")
    line.add_argument("--slots", type=int, required=True, help="experts that a device holds")
    line.add_argument("--to", choices=exporting.WRITERS, default="csv", help="engine that loads it")
    line.add_argument("-o", "--output", type=Path, required=True, help="file to write")
    line.add_argument("--method", choices=placing.METHODS, default="better", help="placement")
    line.add_argument("--on", type=Path, action="append", default=[], help="counts to judge it on")
    line.add_argument("--rivals", action="store_true", help="other rules for sharing among copies")
    line.add_argument("--experts", type=int, default=0, help="experts a layer, if untold")
    line.add_argument("--top-k", type=int, default=0, help="experts a token, if untold")
    line.add_argument("--layers", type=int, default=0, help="layers of the model, dense ones too")
    line.add_argument("--tokens", type=int, default=2048, help="tokens of one device in a batch")
    line.add_argument("--card", choices=advise.CARDS, default="h200", help="measured machine")
    line.add_argument("--model", help="which, where the counts are of several models")
    line.add_argument("--shape", help="published model whose layer it is")
    return line.parse_args(arguments)


def counted(a: argparse.Namespace) -> tuple[pd.DataFrame, np.ndarray | None, str]:
    """(counts, steps [steps, layers, experts] where they were recorded, whence) of the subject."""
    if not a.subject.strip():
        raise ValueError("place: '': must be a recording, counts or a run")
    where, given = Path(a.subject), dict(experts=a.experts, top_k=a.top_k, layers=a.layers)
    if (where.is_file() or where.is_dir()) and where.suffix not in (".csv", ".npz"):
        found = importing.read(where, **given)
        if found is not None:
            a.layers = a.layers or found.of
            if not found.told:
                print(f"{a.subject}: {found.experts} experts, the highest seen: --experts if more")
            return imported.table(found, where.stem), found.steps, found.source
    if where.is_file():
        try:
            return imported.counts(where, **given), None, "counts"
        except ValueError as error:
            raise by_flags(error) from None
    if a.subject in load.OURS or (where / "config.json").is_file():
        rule = "must be a recording, counts or a run (`python -m lib run` profiles a model)"
        raise ValueError(f"place: {a.subject}: is a model: {rule}")
    paths = sorted(runs.existing(a.subject).glob("01*/trace_*.npz"))
    if not paths:
        raise ValueError(f"place: {a.subject}: this run has no profile (chapter 01)")
    t = trace.load(paths[-1])
    return others.of_trace(t, t.model), None, f"run {a.subject}"


def loads(a: argparse.Namespace, frame: pd.DataFrame) -> tuple[np.ndarray, list[int], int, str]:
    """(load [layers, experts], layer numbers, k or 0, model) of the model in the counts."""
    names = frame.model.astype(str).unique().tolist()
    if len(names) > 1 or a.model:
        if a.model not in names:
            given = a.model or "is missing"
            raise ValueError(f"place: --model {given}: must be one of {', '.join(names)}")
        names = [a.model]
    name = names[0]
    own = frame[frame.model == name]
    table = own.pivot_table(index="layer", columns="expert", values="count", aggfunc="sum")
    experts = max(a.experts, int(table.columns.max()) + 1)
    table = table.reindex(columns=range(experts)).fillna(0)
    k = int(own.top_k.iloc[0]) or a.top_k
    return table.to_numpy(float), [int(at) for at in table.index], k, name


def checked(a: argparse.Namespace, load: np.ndarray, layer: Sequence[int]) -> None:
    """Refuse, in one line, what no placement can do."""
    experts = load.shape[1]
    if not 1 <= a.devices <= 4096:
        raise ValueError(f"place: --devices {a.devices}: must be from 1 to 4096")
    if not experts <= a.devices * a.slots <= a.devices * experts:
        raise ValueError(
            f"place: --slots {a.slots}: must be from {-(-experts // a.devices)} (all {experts} "
            f"experts once on {a.devices} devices) to {experts}"
        )
    if a.layers > others.LARGEST["layer"] + 1:
        raise ValueError(
            f"place: --layers {a.layers}: must be at most {others.LARGEST['layer'] + 1}"
        )
    if a.layers and a.layers <= max(layer):
        raise ValueError(f"place: --layers {a.layers}: must be above layer {max(layer)}")
    if not 1 <= a.tokens <= 1 << 20:
        raise ValueError(f"place: --tokens {a.tokens}: must be from 1 to {1 << 20}")
    written("place: -o", a.output, a.subject, *a.on)


def case(a: argparse.Namespace, load: np.ndarray, k: int, name: str) -> advice.Case | str:
    """What times are simulated of, or why none can be."""
    devices, experts = a.devices, load.shape[1]
    if not 1 <= k < experts:
        return "the counts do not tell how many experts a token takes: give --top-k"
    if devices < 2 or experts % devices:
        return f"even routes need {experts} experts that divide among the devices"
    most = float((load / np.maximum(load.sum(1, keepdims=True), 1)).max())
    if k * most > 1 + 1e-9:
        return f"an expert has {most:.0%} of a layer: no router of {k} experts a token gives that"
    known = step.models()
    title = a.shape or name
    if a.shape and a.shape not in known:
        raise ValueError(f"place: --shape {a.shape}: must be one of {', '.join(known)}")
    published = known.get(title) or step.Model("", known["OLMoE-1B-7B"].shape, 0, 0.0)
    model = placing.shaped(published, experts, k, len(load))
    machine = advise.machine(a.card)
    net, spare = advise.cluster(devices, machine), a.slots - experts // devices
    tokens = int(load.sum(1).min() // k)
    return advice.Case(load, tokens, model, net, machine, a.tokens, spare, draws=8)


def told(moved: pd.Series, own: advice.Case) -> list[str]:
    """When moving pays, in words."""
    paid = f"{moved.tokens_that_pay:,.0f} tokens a device"
    after = f"has paid after {paid}" if np.isfinite(moved.tokens_that_pay) else "does not pay"
    return [
        f"Moving one expert's weights is fewer bytes than sending its rows there and back from "
        f"{moved.rows_that_pay:,.0f} rows on.",
        f"From experts in order to this placement takes {moved.moving_s:.3g} s over the wire for "
        f"{own.model.layers} layers, and {after} (simulated).",
    ]


def tables(a: argparse.Namespace, asked: placing.Asked, own: advice.Case | str, steps) -> None:
    """Print what the placement gives."""
    timed = None if isinstance(own, str) else own
    shown = placing.spares(asked, timed).dropna(axis=1, how="all").round(4)
    print("", shown.rename(columns=HEADS).to_string(index=False), sep="\n")
    if timed is None:
        print(f"\nNo times: {own}.")
        return
    layer = f"{timed.model.shape.hidden} wide, {timed.model.shape.width} an expert"
    print(
        f"\nTimes, simulated: a layer {layer}, batches of {a.tokens} tokens a device drawn from "
        f"these counts, {machines(timed.machine.origin)}; more than two devices are extrapolated."
    )
    print(*told(placing.moves(asked, timed), timed), sep="\n")
    if steps is not None and len(steps) >= 4:
        windows = min(len(steps), placing.WINDOWS)
        print(f"\nA new placement every so many of {windows} stretches (0: never again):")
        print(placing.refreshed(asked, timed, steps).round(6).to_string(index=False))
    if a.rivals:
        halved = asked if steps is None or len(steps) < 2 else placing.halves(asked, steps)
        print("\nRules for the copies, their own time measured here:")
        print(placing.rivals(halved, timed).round(4).to_string(index=False))


def main(arguments: Sequence[str]) -> None:
    """Print what the placement gives, write it, read it back."""
    a = parsed(arguments)
    frame, steps, source = counted(a)
    load, layer, k, name = loads(a, frame)
    checked(a, load, layer)
    a.experts = load.shape[1]
    apart = {} if not a.on else _judged_on(a, layer, load.shape[1])
    own = placing.others_of(frame[frame.model == name], layer, load.shape[1])
    asked = placing.Asked(load, a.devices, a.slots, own, apart, a.method)
    print(f"{name}: {len(layer)} layers of {load.shape[1]} experts, {load.sum():,.0f} assignments")
    print(f"read as {source}; {a.devices} devices of {a.slots} slots, placement: {a.method}")
    tables(a, asked, case(a, load, k, name), steps)
    homes = asked.homes(a.slots, a.method)
    exporting.write(a.output, a.to, homes, np.array(layer), max(a.layers, max(layer) + 1))
    found = exporting.read(a.output, a.devices)
    again = [found[at if a.to != "vllm" else number] for number, at in enumerate(layer)]
    kept = placing.rho(load, np.stack(again))
    words = LOADED[a.to].format(file=a.output, n=a.devices * a.slots - load.shape[1])
    print(
        f"\n{a.output}: read back, the busiest device has {kept.mean():.4f} of the mean "
        f"(worst layer {kept.max():.4f}).\nLoad it with: {words}\n"
        "No engine was started with it here: the file follows the schema that its writer names."
    )


def _judged_on(a: argparse.Namespace, layer: Sequence[int], experts: int) -> dict[str, np.ndarray]:
    given = dict(experts=a.experts, top_k=a.top_k, layers=a.layers)
    for path in a.on:
        if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
            raise ValueError(f"place: --on {path}: must be a plain file, is a device or a pipe")
    found = pd.concat([imported.counts(path, **given) for path in a.on])
    return placing.others_of(found, layer, experts)
