"""What is measured on hardware: the declared grids of the three experiments, and which part of each
fits, which tests.

The parts are declared here, by size, skew, batch and shape, before anything is measured, and are
the same on any number of devices.  `part` is "fit" or "held_out"; nothing is tested on what it was
fitted on.
"""

from __future__ import annotations

import numpy as np

from lib import stats
from lib.network import cost, placement, synthetic, traffic

# from the models' published configurations; "trace": the recorded routes' own experts, OLMoE's
# sizes
SHAPES = {
    "olmoe": cost.Shape(2048, 1024, 64, 8),
    "mixtral": cost.Shape(4096, 14336, 8, 2),
    "qwen3": cost.Shape(2048, 768, 128, 8),
    "trace": cost.Shape(2048, 1024, 16, 2),
    "tiny": cost.Shape(64, 32, 16, 2),
}
SIZES = [
    4096 << i for i in range(18)
]  # 4 KiB to 512 MiB a device; every second one fits, the others test
SKEWS = ("even", "0.25", "0.5", "0.75", "one", "shift", "home", "pair", "random")
FIT_SKEWS = ("even", "0.5", "shift", "home")
BATCHES = (4, 16, 64, 256, 1024, 4096)  # tokens of one device: decode to prefill
FIT_BATCHES = (16, 256, 4096)
LEVELS = (0.0, 0.3, 0.5, 0.65, 0.8)  # as far as below the shape's highest, 1 − k/E
RHOS = (1.0, 1.3, 1.6, 1.9, 2.5, 3.5)  # as far as the devices and routes allow


def skewed(skew: str, rows: int, devices: int, seed: int = 0) -> np.ndarray:
    """Whole rows [source, destination] in which every device holds `rows`.

    even; a number λ: the share λ of all goes to device 0, the rest evenly; one: all to device 0;
    shift: all to the next device; home: all stays; pair: device 0 sends all to device 1 and no
    other sends; random: Dirichlet(0.5) shares.
    """
    eye = np.eye(devices)
    toward = np.zeros((devices, devices))
    toward[:, 0] = 1
    if skew in ("even", "one") or skew.replace(".", "", 1).isdigit():
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


def exchanges(devices: int, tiny: bool = False, seed: int = 0) -> list[dict]:
    """The exchanges: size and skew crossed, with split sizes; without them where all is even; and
    splits off 16-byte boundaries, a separate experiment (aligned = 0).  A row is 4,096 bytes, from
    1 MiB up; below, 512.
    """
    sizes = SIZES[:9] if tiny else SIZES
    found = []
    for size in sizes:
        row = 4096 if size >= 1 << 20 else 512
        for skew in SKEWS:
            sent = row * skewed(skew, size // row, devices, seed)
            fits = SIZES.index(size) % 2 == 0 and skew in FIT_SKEWS
            case = dict(
                size_bytes=size,
                skew=skew,
                row_bytes=row,
                part="fit" if fits else "held_out",
                **cost.features(sent),
            )
            found.append(dict(case, call="split", aligned=1))
            if skew == "even" and (size // row) % devices == 0:
                found.append(dict(case, call="single", aligned=1))
            if skew in ("even", "0.5") and size >= 1 << 16:
                found.append(dict(case, call="split", aligned=0))
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
                    found.append(
                        dict(
                            shape=name,
                            rows=2**i,
                            active=active,
                            spread=spread,
                            tile_rows=tiles,
                            part=part,
                        )
                    )
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


def layers(
    devices: int, traces: dict[str, np.ndarray], tiny: bool = False, seed: int = 0
) -> list[dict]:
    """Complete layers: Gini crossed with ρ by placement, per shape and batch; and recorded routes
    (arrays [layers, tokens, k] by name), experts placed in order.  Each holds its routes ("index")
    and placement ("home").

    Combinations that the routes cannot reach (ρ off by more than 0.05) are left out.  The shape
    qwen3 and recorded routes never fit.
    """
    names, batches, seeds = (
        (("tiny",), (4, 16), 2) if tiny else (("olmoe", "mixtral", "qwen3"), BATCHES, 2)
    )
    found = []
    for name in names:
        shape = SHAPES[name]
        for tokens in batches:
            most = synthetic.highest_level(shape.experts, shape.k)
            for number, level in enumerate(x for x in LEVELS if x < most):
                for draw in range(seeds):
                    rng = np.random.default_rng([seed, draw, number, tokens, shape.experts])
                    chances = synthetic.inclusion(shape.experts, shape.k, level)
                    index = synthetic.sample(chances, shape.k, devices * tokens, rng)
                    index = rng.permutation(shape.experts)[index]
                    load = np.bincount(index.reshape(-1), minlength=shape.experts).astype(float)
                    for rho in (r for r in RHOS if r < devices):
                        home = placed(load, devices, rho, rng)
                        case = described(index, home, shape, devices)
                        fits = tokens in FIT_BATCHES and name != "qwen3"
                        if abs(case["rho"] - rho) <= 0.05:
                            found.append(
                                dict(
                                    shape=name,
                                    tokens=tokens,
                                    routes="level",
                                    level=level,
                                    rho_wanted=rho,
                                    seed=draw,
                                    part="fit" if fits else "held_out",
                                    **case,
                                    index=index,
                                    home=home,
                                )
                            )
    return found + recorded(devices, traces, (4,) if tiny else (64, 256, 2048))


def recorded(devices: int, traces: dict[str, np.ndarray], batches: tuple[int, ...]) -> list[dict]:
    """Layers under recorded routes: the first tokens of every layer of each trace, experts placed
    in order.
    """
    shape, found = SHAPES["trace"], []
    for name, routes in traces.items():
        if routes.shape[2] != shape.k or routes.max() >= shape.experts or shape.experts % devices:
            continue  # routes of another layer than the one of this shape
        for tokens in batches:
            for number, layer in enumerate(routes):
                index, home = (
                    layer[: devices * tokens].astype(np.int64),
                    placement.contiguous(shape.experts, devices),
                )
                if len(index) == devices * tokens:
                    found.append(
                        dict(
                            shape="trace",
                            tokens=tokens,
                            routes=f"{name}_{number + 1}",
                            level=np.nan,
                            rho_wanted=np.nan,
                            seed=0,
                            part="held_out",
                            **described(index, home, shape, devices),
                            index=index,
                            home=home,
                        )
                    )
    return found
