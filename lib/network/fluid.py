"""Times of an exchange in the fluid model, where data flow like water through links of fixed
capacity.

All flows start together, each after the latency of its path.  At every moment the rates are max-min
fair: no flow can be faster but at the cost of one that is no faster (Bertsekas & Gallager, Data
Networks, 1992, section 6.5.2).  Hence bottleneck_bound_s ≤ makespan_s ≤ envelope_s.
"""

from __future__ import annotations

import numpy as np

from lib.network import filling, threads
from lib.network.links import Array, Fabric, namespace


def _shaped(traffic: Array, fabric: Fabric) -> Array:
    """The traffic in floating point [..., devices, devices], its library's own; refuses other
    shapes.
    """
    if not hasattr(traffic, "device"):
        traffic = np.asarray(traffic, dtype=float)
    if isinstance(traffic, np.ndarray) and traffic.dtype.kind != "f":
        traffic = traffic.astype(float)
    if traffic.ndim < 2 or tuple(traffic.shape[-2:]) != (fabric.devices, fabric.devices):
        raise ValueError(
            f"fluid: traffic of shape {tuple(traffic.shape)}: must end in "
            f"[{fabric.devices}, {fabric.devices}], the devices of fabric {fabric.name}"
        )
    return traffic


def bottleneck_bound_s(traffic: Array, fabric: Fabric) -> Array:
    """Least time [...] in seconds in which any schedule can deliver traffic [..., devices, devices]
    in bytes.

    max over links of load / capacity + the least latency of a route through the link.  A lower
    bound on the max-min fair makespan; on a star no schedule does better and a perfect one attains
    it.  The traffic may be an array of any library (a GPU's too); so is the answer.  Refused: other
    shapes, negative or unfinite bytes, pairs without a route.
    """
    traffic = _shaped(traffic, fabric)
    xp = namespace(traffic)
    load = fabric.load_bytes(traffic)
    like = dict(dtype=load.dtype, device=load.device)
    head = xp.asarray(fabric.least_latency_s, **like) * (load > 0)
    return xp.amax(load / xp.asarray(fabric.capacity_bytes_per_s, **like) + head, -1)


def envelope_s(traffic: np.ndarray, fabric: Fabric) -> np.ndarray:
    """Time [...] in seconds that no max-min fair exchange of traffic [..., devices, devices]
    exceeds.

    max over pairs that send of the sum of load / capacity along the route, plus its latency: while
    a flow lasts, some link of its route is full, and a link is full for at most load / capacity.
    """
    traffic = np.asarray(_shaped(traffic, fabric), dtype=float)
    full_s = fabric.load_bytes(traffic) / fabric.capacity_bytes_per_s
    times = (
        np.where(fabric.paths >= 0, full_s[..., fabric.paths], 0.0).sum(-1) + fabric.path_latency_s
    )
    return np.where((traffic > 0) & (fabric.paths[..., 0] >= 0), times, 0.0).max((-2, -1))


def completion_times_s(traffic: np.ndarray, fabric: Fabric, window: float = 0.0) -> np.ndarray:
    """When each flow of traffic [..., devices, devices] in bytes has arrived, in seconds, [...,
    devices, devices].

    0 for a pair that sends nothing and for what stays home.  window = 0: exact.  window > 0:
    completions within this share of the time left (to the bottleneck bound) are settled together,
    and the bytes that a link gained or lost by it are given back to the flows that it holds up.
    Meant for makespans: window 0.003 stays within 1e-3 of the exact makespan on the families that
    the tests try, a single flow only within a few windows of the makespan. Refused: what
    bottleneck_bound_s refuses, a window outside [0, 1).
    """
    if not 0 <= window < 1:
        raise ValueError(f"fluid.completion_times_s: window = {window}: must be from 0 to below 1")
    traffic = np.asarray(_shaped(traffic, fabric), dtype=float)
    top = np.asarray(bottleneck_bound_s(traffic, fabric)).reshape(-1)
    latency_s, paths = fabric.path_latency_s, fabric.paths  # listed once, not by every thread

    def completed(case: tuple[np.ndarray, float]) -> np.ndarray:
        sent, bound = case
        answer, pair = np.zeros_like(sent), np.nonzero(sent * ~np.eye(len(sent), dtype=bool))
        rest = fabric.capacity_bytes_per_s, float(window), bound
        answer[pair] = filling.completed(sent[pair], latency_s[pair], paths[pair], *rest)
        return answer

    matrices = traffic.reshape(-1, fabric.devices, fabric.devices)
    found = threads.each(completed, zip(matrices, top, strict=True))
    return np.array(found).reshape(traffic.shape)


def makespan_s(traffic: np.ndarray, fabric: Fabric, window: float = 0.0) -> np.ndarray:
    """When the last flow of traffic [..., devices, devices] in bytes has arrived, in seconds,
    [...].

    window: as in completion_times_s; an approximate answer is never below the bottleneck bound.
    """
    last = completion_times_s(traffic, fabric, window).max((-2, -1))
    return np.maximum(last, bottleneck_bound_s(traffic, fabric)) if window else last


def exchange_s(
    dispatch: np.ndarray, fabric: Fabric, combine_share: float = 1.0, time_s=bottleneck_bound_s
) -> np.ndarray:
    """Time [...] of a dispatch and then its combine (the transposed matrix times `combine_share`),
    in seconds.

    time_s: the network model, (traffic, fabric) → seconds.
    """
    return time_s(dispatch, fabric) + time_s(combine_share * np.swapaxes(dispatch, -1, -2), fabric)
