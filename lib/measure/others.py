"""Expert computation under skew, measured by others in serving engines, beside our model of it.

Published are times of the busiest device of a layer: by engine and kernel for balanced loads and
for loads drawn from a power law, and with and without a placement by load.  Their draws are
unknown, so that ours are many, and give a band.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lib.measure.fitting import Fit
from lib.network import cost, placement

SHAPES = {  # by their names, from the published configurations
    "Mixtral-8x7B": cost.Shape(4096, 14336, 8, 2),
    "Qwen3-30B-A3B": cost.Shape(2048, 768, 128, 8),
    "Qwen3-235B-A22B": cost.Shape(4096, 1536, 128, 8),
    "DeepSeek-V3": cost.Shape(7168, 2048, 256, 8),
}
NAMES = {"TensorRT-LLM": "tensorrt", "vLLM": "vllm"}  # of engines, in names of values
STRONG = 1.1  # α from which a skew is called strong
TOLD = {(32, 16384), (2, 256)}  # pairs of devices and tokens that are told by name
OURS = {"Mixtral-8x7B": "mixtral", "Qwen3-30B-A3B": "qwen3"}  # measured here; else any shape's fit
BAND = (0.05, 0.95)  # of draws
SEEN = 0.05  # a slowdown from which its own error is told
PREFILL = 1024  # tokens of all devices from which on a batch counts as prefill
DECODE = 64  # and up to which it counts as decoding


def drawn(
    tokens: int, experts: int, k: int, alpha: float, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Loads [draws, experts] as the engines' benchmark draws them: a power law of exponent α on
    [1, .8 tokens], or [.01, 2] where there are fewer assignments than experts, scaled to tokens ·
    k, rounded, at most `tokens` each; what then lacks goes to the busiest with room, one each, and
    what is too much comes off the busiest.  Source: aiconfigurator, its collector's power_law.
    """
    least, most = (1.0, 0.8 * tokens) if tokens * k > experts else (0.01, 2.0)
    end = 1 - alpha
    u = rng.random((draws, experts))
    x = ((most**end - least**end) * u + least**end) ** (1 / end)
    scaled = np.rint(x * tokens * k / x.sum(1, keepdims=True))
    for load in scaled:
        _settle(load, tokens * k, tokens, rng)
    return scaled.astype(np.int64)


def _settle(load: np.ndarray, total: int, most: int, rng: np.random.Generator) -> None:
    """Change loads [experts], at most `most` each, evenly until they add up; of equal experts it is
    chance which come first.
    """
    np.minimum(load, most, out=load)
    order = np.lexsort((rng.random(len(load)), -load))
    while left := int(total - load.sum()):
        room = order[load[order] < most] if left > 0 else order[load[order] > 0]
        each = max(abs(left) // len(room), 1)
        load[room[: abs(left)]] += np.sign(left) * each
        np.clip(load, 0, most, out=load)


def balanced(tokens: int, experts: int, k: int, devices: int) -> np.ndarray:
    """Loads [1, experts of a device] of the busiest device where assignments go to experts in turn,
    and these to devices in turn.
    """
    every = np.arange(experts)
    load = tokens * k // experts + (every < tokens * k % experts)
    return load[::devices][None]


def busiest(load: np.ndarray, devices: int) -> np.ndarray:
    """Of loads [draws, experts] on consecutive groups, the loads [draws, experts of a device] of
    the group with the most.
    """
    groups = load.reshape(len(load), devices, -1)
    most = groups.sum(2).argmax(1)
    return groups[np.arange(len(load)), most]


def seconds(p: Mapping[str, float], shape: cost.Shape, load: np.ndarray, width: int) -> np.ndarray:
    """Times [draws] of experts with loads [draws, experts], weights of `width` bytes: of one byte,
    half is read and the arithmetic is twice as fast, as the datasheet has it.
    """
    tiles = -(-load // cost.TILE) * cost.TILE
    part = width / 2
    known = dict(tile_rows=tiles.sum(1), active=(load > 0).sum(1))
    scale = dict(expert_bytes=part * shape.expert_bytes, row_flop=part * shape.row_flop)
    return cost.expert_s(p, known | {name: np.asarray(v) for name, v in scale.items()})


def parameters(fits: Mapping[str, Fit], machine: str, shape: str) -> Mapping[str, float]:
    """Of a shape by their name the parameters that are fitted on `machine`: its own where it was
    measured, else those of any shape.
    """
    own = f"experts of {OURS.get(shape)} ({machine})"
    return fits[own if own in fits else "experts of any shape"].parameters


# ---- skew: how much longer the busiest device takes than under balanced loads ----


def skewed(
    theirs: pd.DataFrame, fits: Mapping[str, Fit], machine: str, draws: int, seed: int
) -> pd.DataFrame:
    """Published slowdowns beside ours: the table with ours, the median over draws, ours_low and
    ours_high (BAND), error = ours / theirs − 1 and whether theirs lies `within` the band.

    theirs: data/published/kernel_skew.csv.xz, columns engine, kernel, bytes (of a weight), shape,
    devices, tokens (of all devices), alpha and theirs, the time over that of balanced loads.
    """
    keys, found = ["shape", "bytes", "devices", "tokens", "alpha"], []
    for number, (names, own) in enumerate(theirs.groupby(keys, sort=False)):
        name, width, devices, tokens, alpha = names
        shape, p = SHAPES[name], parameters(fits, machine, name)
        rng = np.random.default_rng([seed, number])
        load = drawn(tokens, shape.experts, shape.k, alpha, draws, rng)
        even = balanced(tokens, shape.experts, shape.k, devices)
        slow = seconds(p, shape, busiest(load, devices), width) / seconds(p, shape, even, width)
        low, middle, high = np.quantile(slow, (BAND[0], 0.5, BAND[1]))
        found.append(own.assign(ours=middle, ours_low=low, ours_high=high))
    rows = pd.concat(found, ignore_index=True)
    return rows.assign(error=rows.ours / rows.theirs - 1, within=_within(rows))


def _within(rows: pd.DataFrame) -> pd.Series:
    return (rows.theirs >= rows.ours_low) & (rows.theirs <= rows.ours_high)


def when(tokens: pd.Series) -> pd.Series:
    """Batches in words: few (≤ DECODE tokens of all devices), many (≥ PREFILL), some."""
    words = np.select([tokens <= DECODE, tokens >= PREFILL], ["few", "many"], "some")
    return pd.Series(words, index=tokens.index)


def told(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Of `skewed` or `moved`, per group `by` (of its columns, or "batch"): cases, medians of theirs
    and ours, the median and 95th percentile of the absolute error (off, off_p95), the median of the
    error itself (lean), and the share within.
    """
    rows = rows.assign(batch=when(rows.tokens), gap=rows.error.abs())
    groups = rows.groupby(list(by), sort=False)
    return groups.agg(
        cases=("gap", "size"),
        theirs=("theirs", "median"),
        ours=("ours", "median"),
        off=("gap", "median"),
        off_p95=("gap", lambda x: x.quantile(0.95)),
        lean=("error", "median"),
        within=("within", "mean"),
    ).reset_index()


def apart(theirs: pd.DataFrame) -> pd.DataFrame:
    """How much the slowdown depends on the kernel: columns batch, cases, and the median and 95th
    percentile of the larger over the smaller of two engines' slowdowns of the same case.
    """
    keys = ["shape", "devices", "tokens", "alpha"]
    wide = theirs.pivot_table(index=keys, columns="engine", values="theirs").dropna().reset_index()
    both = wide.drop(columns=keys)
    ratio = both.max(axis=1) / both.min(axis=1)
    groups = ratio.groupby(when(wide.tokens), sort=False)
    found = dict(cases=groups.size(), kernels=groups.median(), kernels_p95=groups.quantile(0.95))
    return pd.DataFrame(found).rename_axis("batch").reset_index()


# ---- placement: what rearranging and copying experts leaves of that time ----


def moved(
    theirs: pd.DataFrame, fits: Mapping[str, Fit], machine: str, draws: int, seed: int
) -> pd.DataFrame:
    """What a placement by load leaves of the busiest device's time: the table with ours, ours_low,
    ours_high, error and `within`, as in `skewed`.

    theirs: data/published/placement_gains.csv.xz, columns hidden, width, experts, slots, devices,
    tokens, alpha and theirs, the time with DeepSeek's placement over that of consecutive groups.
    """
    keys, found = ["experts", "slots", "devices", "tokens", "alpha"], []
    for number, (names, own) in enumerate(theirs.groupby(keys, sort=False)):
        experts, slots, devices, tokens, alpha = names
        rng = np.random.default_rng([seed, number])
        load = drawn(tokens, experts, 8, alpha, draws, rng)
        before = busiest(load, devices)
        after = np.stack([_rearranged(one, devices, slots - experts) for one in load])
        for (hidden, width), part in own.groupby(["hidden", "width"]):
            shape, p = cost.Shape(hidden, width, experts, 8), parameters(fits, machine, "")
            left = seconds(p, shape, after, 1) / seconds(p, shape, before, 1)
            low, middle, high = np.quantile(left, (BAND[0], 0.5, BAND[1]))
            found.append(part.assign(ours=middle, ours_low=low, ours_high=high))
    rows = pd.concat(found, ignore_index=True)
    return rows.assign(error=rows.ours / rows.theirs - 1, within=_within(rows))


def _rearranged(load: np.ndarray, devices: int, more: int) -> np.ndarray:
    """Loads [slots of a device] of the busiest device, placed by these loads with copies."""
    held = placement.replicated(load, devices, more)
    copies = np.bincount(held.reshape(-1), minlength=len(load))
    each = -(-load[held] // copies[held])
    return each[each.sum(1).argmax()]


def sentences(rows: pd.DataFrame) -> pd.DataFrame:
    """Of `moved` the pairs that are told by name, at hidden 7168 and 256 experts: 16,384 tokens on
    32 devices, 256 on two.
    """
    pairs = np.array([x in TOLD for x in zip(rows.devices, rows.tokens, strict=True)])
    named = rows[(rows.hidden == 7168) & (rows.experts == 256) & pairs]
    columns = ["devices", "tokens", "alpha", "slots", "before_ms", "theirs"]
    return named[[*columns, "ours", "ours_low", "ours_high"]].reset_index(drop=True)


def summary(skews: pd.DataFrame, kernels: pd.DataFrame, moves: pd.DataFrame) -> pd.DataFrame:
    """In rows of, which and value: of `skewed` theirs, off and lean of a batch and an engine
    (many_vllm); of `apart` kernels and kernels_p95 of a batch; of `moved` theirs, ours and off of a
    batch (many_placed), and theirs and ours of `sentences` on 32 devices (mild_256: skew, slots).
    """
    by_engine = told(skews, ["batch", "engine"])
    short = by_engine.engine.str.split().str[0].map(NAMES)
    by_batch, pairs = told(moves, ["batch"]), sentences(moves)
    pairs = pairs[pairs.devices == 32]
    skew = pd.Series(np.where(pairs.alpha < STRONG, "mild_", "strong_"), index=pairs.index)
    parts = [
        by_engine[["theirs", "off", "lean"]].assign(which=by_engine.batch + "_" + short),
        kernels[["kernels", "kernels_p95"]].assign(which=kernels.batch),
        by_batch[["theirs", "ours", "off"]].assign(which=by_batch.batch + "_placed"),
        pairs[["theirs", "ours"]].assign(which=skew + pairs.slots.astype(str)),
    ]
    return pd.concat([part.melt("which", var_name="of") for part in parts], ignore_index=True)


def kinds(numbers: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of `summary` by what they are: published by others, or simulated by ours."""
    published = numbers.of.isin(["theirs", "kernels", "kernels_p95"])
    return [("published", numbers[published]), ("simulated", numbers[~published])]
