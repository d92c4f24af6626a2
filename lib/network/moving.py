"""What it costs to move experts to another placement, and when it pays."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from lib.network import cost, placement, search

BYTES = 2.0  # of a number in bfloat16


def fetched(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """[devices] experts that each device must fetch to go from placement `old` [devices, slots] to
    `new` (slots may differ): those that it did not hold.
    """
    if len(old) != len(new):
        raise ValueError(f"moving: {len(old)} devices, then {len(new)}: must be the same")
    pairs = zip(old, new, strict=True)
    return np.array([len(np.setdiff1d(after, before)) for before, after in pairs])


def seconds(
    old: np.ndarray, new: np.ndarray, shape: cost.Shape, bytes_per_s: float, layers: int = 1
) -> float:
    """Seconds that `layers` layers take to move, all devices at once: the most that one fetches
    over its wire's bytes per second. What it may cost those who send, and what of it runs beside
    the work, is left out.
    """
    return float(fetched(old, new).max()) * shape.expert_bytes * layers / bytes_per_s


def rows_that_pay(shape: cost.Shape, out_share: float = 1.0) -> float:
    """Rows (a token at one expert) from which on an expert's weights are fewer bytes than the rows
    sent to it and back: 6 h w / (2 h (1 + out_share)) = 3 w / (1 + out_share), whatever the hidden
    size h; w the expert's width, out_share as step.Model.out_share.
    """
    return shape.expert_bytes / (BYTES * shape.hidden * (1 + out_share))


def tokens_that_pay(moving_s: float, before_s: float, after_s: float, tokens: int) -> float:
    """Tokens after which moving has paid: moving_s / (before_s − after_s) batches of `tokens`; inf
    where the new placement is not faster.
    """
    saved = before_s - after_s
    return tokens * moving_s / saved if saved > 0 else np.inf


def refresh(
    loads: np.ndarray,
    every: Sequence[int],
    devices: int,
    redundant: int,
    *,
    moved_s: Callable[[np.ndarray, np.ndarray], float],
    layer_s: Callable[[np.ndarray, np.ndarray], float],
) -> pd.DataFrame:
    """How often a layer's placement should be made anew, from loads [windows, experts] in time: a
    row per number of windows in `every` (0: once, after the first).

    The first placement is made for window 0, which is not judged; a later one for the windows since
    the last. rho: busiest device over the mean, mean over windows;
    fetched: experts of the device with most, per refresh; layer_s: of a window's load and its
    placement, mean; moving_s: per window.
    """
    rows = []
    for interval in every:
        home = search.better(loads[:1].sum(0), devices, redundant)
        rho, moved, spent, took = [], [], 0.0, []
        for at in range(1, len(loads)):
            if at > 1 and interval and (at - 1) % interval == 0:
                new = search.better(loads[max(0, at - interval) : at].sum(0), devices, redundant)
                moved.append(int(fetched(home, new).max()))
                spent += moved_s(home, new)
                home = new
            held = placement.device_load(loads[at], home, devices)
            rho.append(held.max() / held.mean())
            took.append(layer_s(loads[at], home))
        number = len(loads) - 1
        values = dict(rho=np.mean(rho), fetched=np.mean(moved) if moved else 0.0)
        rows.append(dict(every=interval, **values, layer_s=np.mean(took), moving_s=spent / number))
    return pd.DataFrame(rows)
