"""H6a from the ladder's results: a placement against a frozen bias that costs next to nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import scipy

from lib import stats
from lib.commands import advise, declared
from lib.commands.ladder_profile import devices
from lib.commands.ladder_results import Results, of, verdict
from lib.network import placement, step

NOTHING = pd.Series(dtype=float)
READ = ["seed", "scale", "bias_lost", "in_order_us", "bias_us", "same_us", "other_us"]
PARTS = {"same": "placement over bias, same text", "other": "placement over bias, other text"}


@cache
def machine() -> step.Machine:
    """The measured cards on which a step is simulated."""
    return advise.machine(advise.CARD)


def step_s(counts: np.ndarray, homes: np.ndarray, k: int) -> np.ndarray:
    """[groups] seconds of all layers of a step, of counts [groups, layers, experts] and a placement
    for each layer [layers, experts]: each layer of the declared size, its tokens spread evenly over
    the devices.
    """
    experts = counts.shape[-1]
    number = devices(experts)
    known, net = step.models()[declared.PLACED_LAYER], advise.cluster(number, machine())
    model = replace(known, shape=replace(known.shape, experts=experts, k=k))
    layers = []
    for load, home in zip(counts.swapaxes(0, 1), homes, strict=True):
        share = placement.share(home, experts, number)
        sent = (
            np.repeat((load @ share / number)[:, None], number, axis=1) * 2.0 * known.shape.hidden
        )
        rows = (load[:, :, None] * share).swapaxes(-1, -2)
        layers.append(step.total_s(step.of_model(sent, rows, model, net, machine())))
    return np.sum(layers, axis=0)


def _p95_us(counts: np.ndarray, homes: np.ndarray, k: int) -> float:
    """P95 over groups in microseconds."""
    return 1e6 * float(np.quantile(step_s(counts, homes, k), 0.95))


def _times(own: dict, native: np.ndarray, biased: np.ndarray, k: int) -> dict[str, float]:
    """P95 of step time (µs): experts in order, the same under the bias, and packed by the
    validation windows of all domains (same) and of one (other, mean over domains).
    """
    made, number = np.array(own["made"]), devices(native.shape[-1])
    order = np.stack([placement.contiguous(native.shape[-1], number)] * native.shape[1])

    def packed(loads: np.ndarray) -> np.ndarray:
        return np.stack([placement.packed(load, number) for load in loads])

    others = [_p95_us(native, packed(loads), k) for loads in made if loads.sum()]
    return {
        "in_order": _p95_us(native, order, k),
        "bias": _p95_us(biased, order, k),
        "same": _p95_us(native, packed(made.sum(0)), k),
        "other": float(np.mean(others)),
    }


def table(results: Results, name: str = "placed") -> pd.DataFrame:
    """A row per checkpoint: seed, scale of the bias, bias_lost, nats per token on the clusters that
    did not choose it; in_order_us, bias_us, same_us, other_us, P95 of the simulated step; same and
    other, the placement's over the bias's less one, same_served and other_served on the windows of
    those clusters alone.
    """
    rows = []
    for result in of(results, name, "placed"):
        own = result["placed"]
        native, biased = np.array(own["native"]), np.array(own["biased"])
        k = int(native[:, 0, 0].sum()) // own["group_tokens"]
        whole, served = (
            _times(own, native.sum(0), biased.sum(0), k),
            _times(own, native[1], biased[1], k),
        )
        known = {row["scale"]: np.array(row["nats"]) for row in own["scales"]}
        gap = (known[own["scale"]] - known[0.0])[1::2].sum()
        about = {
            "seed": result["job"]["seed"],
            "scale": own["scale"],
            "bias_lost": gap / np.array(own["tokens"])[1::2].sum(),
        }
        over = {part: whole[part] / whole["bias"] - 1 for part in PARTS}
        over |= {f"{part}_served": served[part] / served["bias"] - 1 for part in PARTS}
        rows.append(about | {f"{way}_us": time for way, time in whole.items()} | over)
    return pd.DataFrame(rows)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Of `table` what readers are shown."""
    return table.reindex(columns=READ)


def told(table: pd.DataFrame) -> pd.DataFrame:
    """Of `table` what sentences tell, means over checkpoints with their interval: name, value.

    bias_lost, nats per token; bias_saves, packed_saves and moved_saves, by which share the P95 of a
    step is below that of experts in order; placed_same, placed_other, the placement's P95 over the
    bias's less one, and the same on the windows that no placement has seen, …_served.
    """
    ways = {"bias": "bias", "packed": "same", "moved": "other"}
    found = {"bias_lost": table.get("bias_lost", NOTHING)}
    for name, way in ways.items():
        found[f"{name}_saves"] = 1 - table.get(f"{way}_us", NOTHING) / table.get("in_order_us", 1)
    ends = [f"{part}{half}" for half in ("", "_served") for part in PARTS]
    found |= {f"placed_{end}": table.get(end, NOTHING) for end in ends}
    rows = []
    for name, values in found.items():
        low, high = stats.mean_interval(values) if len(values) > 1 else (np.nan, np.nan)
        rows.append({"name": name, "value": values.mean(), "value_low": low, "value_high": high})
    return pd.DataFrame(rows)


def over_bias(results: Results, name: str = "placed") -> dict[str, dict]:
    """H6a by part, same and other text: the mean over checkpoints of the placement's P95 over the
    bias's less one, as `ladder_results.mean` gives it but over checkpoints alone; p and verdict.
    """
    rows, found = table(results, name), {}
    for part in PARTS if len(rows) > 1 else ():
        values = rows[part].to_numpy()
        low, high = stats.mean_interval(values)
        error = values.std(ddof=1) / np.sqrt(len(values))
        found[part] = {
            "n": len(values),
            "clusters": 0,
            "estimate": float(values.mean()),
            **dict(low=low, high=high, low_all=low, high_all=high),
            "p": float(scipy.stats.t.cdf(values.mean() / error, len(values) - 1)),
            "verdict": verdict(-high, -low),
        }
    return found
