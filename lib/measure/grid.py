"""What is measured on hardware: the declared grids of the three experiments, and which part of each
fits, which tests.

The parts are declared here, by size, skew, batch and shape, before anything is measured, and are
the same on any number of devices.  `part` is "fit" or "held_out"; nothing is tested on what it was
fitted on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lib import stats
from lib.network import cost, placement, synthetic, traffic

# from the published configurations; "trace": the recorded routes' own experts, OLMoE's sizes
SHAPES = {
    "olmoe": cost.Shape(2048, 1024, 64, 8),
    "mixtral": cost.Shape(4096, 14336, 8, 2),
    "qwen3": cost.Shape(2048, 768, 128, 8),
    "trace": cost.Shape(2048, 1024, 16, 2),
    "tiny": cost.Shape(64, 32, 16, 2),
}
# 4 KiB to 512 MiB a device; every second one fits, the others test
SIZES = [4096 << i for i in range(18)]
SKEWS = ("even", "0.25", "0.5", "0.75", "one", "shift", "home", "pair", "random")
FIT_SKEWS = ("even", "0.5", "shift", "home")
BATCHES = (4, 16, 64, 256, 1024, 4096)  # tokens of one device: decode to prefill
FIT_BATCHES = (16, 256, 4096)
LEVELS = (0.0, 0.3, 0.5, 0.65, 0.8)  # as far as below the shape's highest, 1 − k/E
RHOS = (1.0, 1.3, 1.6, 1.9, 2.5, 3.5)  # as far as the devices and routes allow
LAUNCHES = ("queued", "graph", "call")  # how an exchange is started; see collectives.exchange
RECORDED = (64, 256, 2048)  # tokens of one device of recorded routes
DRAWS = 2  # of the routes of a level


@dataclass(frozen=True)
class Grid:
    """What is crossed: sizes (bytes of a device) and skews of exchanges; shapes, tokens of one
    device, levels and ρ of layers; `seed` of all that is drawn.  The defaults are the declared
    grid; another one tests what was fitted on it.
    """

    sizes: Sequence[int] = tuple(SIZES)
    skews: Sequence[str] = SKEWS
    shapes: Sequence[str] = ("olmoe", "mixtral", "qwen3")
    tokens: Sequence[int] = BATCHES
    levels: Sequence[float] = LEVELS
    rhos: Sequence[float] = RHOS
    seed: int = 0


TINY = Grid(sizes=tuple(SIZES[:9]), shapes=("tiny",), tokens=(4, 16))  # a test of the code


def check(grid: Grid) -> None:
    """Refuse, before anything is measured, what no grid can hold."""
    rules = (
        ("sizes", lambda x: x >= 512 and x % row_bytes(x) == 0, "whole rows, 512 or 4,096 bytes"),
        ("skews", lambda x: x in SKEWS or _share(x), f"a share below 1, or of {', '.join(SKEWS)}"),
        ("shapes", lambda x: x in SHAPES and x != "trace", f"of {', '.join(SHAPES)}, but trace"),
        ("tokens", lambda x: x >= 1, "at least 1"),
        ("levels", lambda x: 0 <= x < 1, "from 0 to below 1"),
        ("rhos", lambda x: x >= 1, "at least 1"),
    )
    for name, holds, rule in rules:
        for value in getattr(grid, name):
            if not holds(value):
                raise ValueError(f"grid.check: {name}: {value!r}: must be {rule}")


def row_bytes(size: int) -> int:
    """Bytes of a row in an exchange of this size: 4,096 from 1 MiB up; below, 512."""
    return 4096 if size >= 1 << 20 else 512


def _share(skew: str) -> bool:
    return skew.replace(".", "", 1).isdigit() and float(skew) < 1


def skewed(skew: str, rows: int, devices: int, seed: int = 0) -> np.ndarray:
    """Whole rows [source, destination] in which every device holds `rows`.

    even; a number λ: the share λ of all goes to device 0, the rest evenly; one: all to device 0;
    shift: all to the next device; home: all stays; pair: device 0 sends all to device 1 and no
    other sends; random: Dirichlet(0.5) shares.
    """
    eye = np.eye(devices)
    toward = np.zeros((devices, devices))
    toward[:, 0] = 1
    if skew in ("even", "one") or _share(skew):
        share = {"even": 0.0, "one": 1.0}[skew] if skew in ("even", "one") else float(skew)
        wanted = (1 - share) / devices + share * toward
    elif skew == "random":
        wanted = np.random.default_rng([seed, rows, devices]).dirichlet(
            np.full(devices, 0.5), devices
        )
    elif skew in ("shift", "home", "pair"):
        wanted = {"shift": np.roll(eye, 1, 1), "home": eye, "pair": eye[:1].T * np.roll(eye, 1, 1)}[
            skew
        ]
    else:
        raise ValueError(
            f"grid.skewed: skew = {skew!r}: must be a share or one of {', '.join(SKEWS)}"
        )
    whole = np.floor(wanted * rows + 1e-9).astype(np.int64)
    left = np.rint(wanted.sum(1)).astype(np.int64) * rows - whole.sum(1)
    for i, missing in enumerate(left):
        whole[i, np.argsort(whole[i] - wanted[i] * rows, kind="stable")[:missing]] += 1
    return whole


def exchanges(devices: int, grid: Grid = Grid()) -> list[dict]:
    """The exchanges: size and skew crossed, with split sizes; without them where all is even; and
    splits off 16-byte boundaries, a separate experiment (aligned = 0).  Calls are queued on the
    device; the first and the last skew are launched in the other ways too, which never fit.
    """
    found = []
    for size in grid.sizes:
        row = row_bytes(size)
        for skew in grid.skews:
            sent = row * skewed(skew, size // row, devices, grid.seed)
            fits = size in SIZES[::2] and skew in FIT_SKEWS
            case = dict(
                size_bytes=size,
                skew=skew,
                row_bytes=row,
                part="fit" if fits else "held_out",
                **cost.features(sent),
            )
            plain = dict(case, call="split", aligned=1, launch=LAUNCHES[0])
            found.append(plain)
            if skew == "even" and (size // row) % devices == 0:
                found.append(plain | dict(call="single"))
            if skew in ("even", "0.5") and size >= 1 << 16:
                found.append(plain | dict(aligned=0))
            if skew in (grid.skews[0], grid.skews[-1]):
                found += [plain | dict(part="held_out", launch=way) for way in LAUNCHES[1:]]
    return found


def computes(tiny: bool = False) -> list[dict]:
    """Expert compute: total rows crossed with active experts; spread even, or half of the rows on
    one hot expert.

    Rows 4^i, spread evenly, fit; the others test.
    """
    found = []
    for name in ("tiny",) if tiny else ("olmoe", "mixtral", "qwen3"):
        for i in range(0, 7 if tiny else 16):
            active = 1
            while active <= min(SHAPES[name].experts, 2**i):
                fits = i % 2 == 0
                spreads = (
                    ("even", "hot")
                    if active > 1 and i % 3 == 0 and 2**i >= 2 * active
                    else ("even",)
                )
                for spread in spreads:
                    tiles = cost.tiled(expert_rows(2**i, active, spread, SHAPES[name].experts))
                    part = "fit" if fits and spread == "even" else "held_out"
                    case = dict(shape=name, rows=2**i, active=active, spread=spread)
                    found.append(case | dict(tile_rows=tiles, part=part))
                active *= 2
    return found


def expert_rows(rows: int, active: int, spread: str, experts: int) -> np.ndarray:
    """Rows [experts] of each expert: all on the first `active`, evenly, or half of them on the
    first.
    """
    counts = np.zeros(experts, dtype=np.int64)
    hot = rows // 2 if spread == "hot" else 0
    shared = np.diff(np.arange(active + 1 - (hot > 0)) * (rows - hot) // (active - (hot > 0)))
    counts[:active] = np.concatenate([[hot], shared]) if hot else shared
    return counts


def placed(load: np.ndarray, devices: int, rho: float, rng: np.random.Generator) -> np.ndarray:
    """A placement [experts], the same number on each device, whose busiest device has about `rho`
    times the mean load.

    From experts dealt out in order of load (rho low) or side by side (rho high), by swaps that come
    nearer to rho.
    """
    order = np.argsort(-load, kind="stable")
    dealt, side = np.empty(len(load), dtype=np.int64), np.empty(len(load), dtype=np.int64)
    turns = np.arange(len(load)) % (2 * devices)
    dealt[order] = np.minimum(turns, 2 * devices - 1 - turns)
    side[order] = placement.contiguous(len(load), devices)
    mean = load.sum() / devices
    best = min(
        (dealt, side),
        key=lambda home: abs(placement.device_load(load, home, devices).max() / mean - rho),
    ).copy()
    held = placement.device_load(load, best, devices)
    for a, b in rng.integers(0, len(load), (4000, 2)):
        error = abs(held.max() / mean - rho)
        if error < 0.005:
            break
        if best[a] != best[b]:
            tried = held.copy()
            tried[best[a]] += load[b] - load[a]
            tried[best[b]] += load[a] - load[b]
            if abs(tried.max() / mean - rho) <= error:
                held = tried
                best[a], best[b] = best[b], best[a]
    return best


def described(index: np.ndarray, home: np.ndarray, shape: cost.Shape, devices: int) -> dict:
    """Gini over experts and ρ = max/mean over devices of routes [tokens, k], what they send, and
    per device its rows, its active experts and its rows in whole tiles (lists).
    """
    load = np.bincount(index.reshape(-1), minlength=shape.experts)
    held = placement.device_load(load, home, devices)
    sent = traffic.matrix(index, home, devices, 2 * shape.hidden)
    return dict(
        gini=round(float(stats.gini(load)), 5),
        rho=round(float(held.max() / held.mean()), 5),
        **cost.features(sent),
        rank_rows=held.astype(int).tolist(),
        rank_active=[int((load[home == i] > 0).sum()) for i in range(devices)],
        rank_tile_rows=[cost.tiled(load[home == i]) for i in range(devices)],
    )


def layers(devices: int, traces: dict[str, np.ndarray], grid: Grid = Grid()) -> list[dict]:
    """Complete layers: Gini crossed with ρ by placement, per shape and batch, and the reference,
    even routes in whole rows; and recorded routes (arrays [layers, tokens, k] by name), experts
    placed in order.  Each holds its routes ("index") and placement ("home").

    placement: "aimed" at a ρ by swaps, "sorted" (busy experts side by side: ρ follows the level),
    or "in order".  Combinations that the routes cannot reach (ρ off by more than 0.05) are left
    out.  The shape qwen3, sorted, even and recorded routes never fit.
    """
    found = []
    for name in grid.shapes:
        shape = SHAPES[name]
        most = synthetic.highest_level(shape.experts, shape.k)
        for tokens in grid.tokens:
            found.append(_even(name, tokens, devices))
            for number, level in enumerate(x for x in grid.levels if x < most):
                for draw in range(DRAWS):
                    parts = [grid.seed, draw, number, tokens, shape.experts]
                    found += _drawn(name, tokens, level, devices, grid, parts)
    return found + recorded(devices, traces, (4,) if grid.shapes == TINY.shapes else RECORDED)


def _even(name: str, tokens: int, devices: int) -> dict:
    """The layer whose experts are taken in turn, k by k: all get the same rows, within one."""
    shape = SHAPES[name]
    turns = np.arange(devices * tokens * shape.k) % shape.experts
    return _case(
        dict(shape=name, tokens=tokens, routes="even", level=np.nan, rho_wanted=1.0, seed=0),
        turns.reshape(-1, shape.k),
        placement.contiguous(shape.experts, devices),
        devices,
    )


def _drawn(
    name: str, tokens: int, level: float, devices: int, grid: Grid, parts: list[int]
) -> list[dict]:
    """The layers of one draw of routes, numbered by `parts`: aimed at every ρ, and sorted."""
    shape, rng = SHAPES[name], np.random.default_rng(parts)
    chances = synthetic.inclusion(shape.experts, shape.k, level)
    index = synthetic.sample(chances, shape.k, devices * tokens, rng)
    index = rng.permutation(shape.experts)[index]
    load = np.bincount(index.reshape(-1), minlength=shape.experts).astype(float)
    fits = tokens in FIT_BATCHES and name != "qwen3"
    part = "fit" if fits else "held_out"
    plain = dict(shape=name, tokens=tokens, routes="level", level=level, seed=parts[1])
    found = []
    for rho in (r for r in grid.rhos if r < devices):
        aimed = plain | dict(rho_wanted=rho, placement="aimed", part=part)
        case = _case(aimed, index, placed(load, devices, rho, rng), devices)
        if abs(case["rho"] - rho) <= 0.05:
            found.append(case)
    home = np.empty(shape.experts, dtype=np.int64)
    home[np.argsort(-load, kind="stable")] = placement.contiguous(shape.experts, devices)
    order = plain | dict(rho_wanted=np.nan, placement="sorted")
    return [*found, _case(order, index, home, devices)]


def _case(known: dict, index: np.ndarray, home: np.ndarray, devices: int) -> dict:
    """A configuration of a layer, described; see `described`."""
    of_routes = described(index, home, SHAPES[known["shape"]], devices)
    plain = dict(placement="in order", part="held_out")
    return plain | known | of_routes | dict(index=index, home=home)


def recorded(devices: int, traces: dict[str, np.ndarray], batches: tuple[int, ...]) -> list[dict]:
    """Layers under recorded routes: the first tokens of every layer of each trace, experts placed
    in order.
    """
    shape, found = SHAPES["trace"], []
    for name, routes in traces.items():
        if routes.shape[2] != shape.k or routes.max() >= shape.experts or shape.experts % devices:
            continue  # routes of another layer than the one of this shape
        home = placement.contiguous(shape.experts, devices)
        for tokens in batches:
            for number, layer in enumerate(routes):
                index = layer[: devices * tokens].astype(np.int64)
                if len(index) == devices * tokens:
                    known = dict(shape="trace", tokens=tokens, routes=f"{name}_{number + 1}")
                    known |= dict(level=np.nan, rho_wanted=np.nan, seed=0)
                    found.append(_case(known, index, home, devices))
    return found
