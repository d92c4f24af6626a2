"""Times of an exchange in the fluid model, where data flow like water through links of fixed capacity."""

from __future__ import annotations

import numpy as np

from lib.network.fabric import Fabric


def _checked(traffic: np.ndarray, fabric: Fabric) -> np.ndarray:
    """The traffic as floats [..., devices, devices]; refuses other shapes, bad entries, and pairs without a route."""
    traffic = np.asarray(traffic, dtype=float)
    if traffic.ndim < 2 or traffic.shape[-2:] != (fabric.devices, fabric.devices):
        raise ValueError(
            f"fluid: traffic of shape {traffic.shape}: must end in [{fabric.devices}, {fabric.devices}], "
            f"the devices of fabric {fabric.name}"
        )
    if not np.isfinite(traffic).all() or (traffic < 0).any():
        raise ValueError("fluid: traffic: must hold finite numbers of bytes ≥ 0")
    away = traffic.reshape(-1, fabric.devices**2).max(0)
    away[:: fabric.devices + 1] = 0
    lost = np.flatnonzero((away > 0) & (fabric.incidence.sum(1) == 0))
    if len(lost):
        raise ValueError(
            f"fluid: traffic from {lost[0] // fabric.devices} to {lost[0] % fabric.devices}: "
            f"must have a route in fabric {fabric.name}"
        )
    return traffic


def bottleneck_bound_s(traffic: np.ndarray, fabric: Fabric) -> np.ndarray:
    """Least time [...] in seconds in which any schedule can deliver traffic [..., devices, devices] in bytes.

    max over links of load / capacity, plus the longest path latency among the pairs that send.  A lower bound on the
    max-min fair makespan; on a star without latency no schedule does better and a perfect one attains it.
    """
    traffic = _checked(traffic, fabric)
    flat = traffic.reshape(*traffic.shape[:-2], -1)
    busiest = (flat @ fabric.incidence / fabric.capacity_bytes_per_s).max(-1)
    latency = np.where(traffic > 0, fabric.path_latency_s, 0.0).max((-2, -1))
    return busiest + latency


def exchange_s(
    dispatch: np.ndarray, fabric: Fabric, combine_share: float = 1.0, time_s=bottleneck_bound_s
) -> np.ndarray:
    """Time [...] of a dispatch and then its combine (the transposed matrix times `combine_share`), in seconds.

    time_s: the network model, (traffic, fabric) → seconds.
    """
    return time_s(dispatch, fabric) + time_s(combine_share * np.swapaxes(dispatch, -1, -2), fabric)
