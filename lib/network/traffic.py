"""Traffic: from routes and a placement to bytes between devices, and to rows that they compute."""

from __future__ import annotations

import numpy as np

from lib.network import placement


def matrix(
    expert_index: np.ndarray,
    home: np.ndarray,
    devices: int,
    bytes_per_token: float,
    *,
    deduplicate: bool = False,
) -> np.ndarray:
    """Bytes sent in the dispatch, [devices, devices] source × destination; the combine is its
    transpose.

    expert_index [tokens, k]; home: a placement, [experts] or with copies [devices, slots].  Tokens
    lie on the devices in equal consecutive stretches. One copy of `bytes_per_token` per selection,
    or with `deduplicate` per device that holds any of its experts.  What lies on the diagonal stays
    home.
    """
    if expert_index.ndim != 2 or bytes_per_token <= 0:
        raise ValueError(
            f"traffic.matrix: expert_index {expert_index.shape}, bytes_per_token = "
            f"{bytes_per_token}: must be [tokens, k] and > 0"
        )
    tokens = len(expert_index)
    source = np.arange(tokens) * devices // tokens
    target = placement.targets(expert_index, home)
    if deduplicate:
        ordered = np.sort(target, axis=1)
        keep = np.diff(ordered, axis=1, prepend=-1) != 0
        key = (source[:, None] * devices + ordered)[keep]
    else:
        key = (source[:, None] * devices + target).reshape(-1)
    return np.bincount(key, minlength=devices**2).reshape(devices, devices) * float(bytes_per_token)


def forwarded(
    expert_index: np.ndarray, home: np.ndarray, devices: int, per_node: int, bytes_per_token: float
) -> tuple[np.ndarray, np.ndarray]:
    """Bytes [devices, devices] of a dispatch in two hops: between nodes, then inside them.

    A token crosses the network once for every other node that holds any of its experts, to the
    device at its own position there, which forwards it over NVLink to each device that needs it; at
    home its own device does (DeepSeek-V3, arXiv 2412.19437, section 3.2.2).  Arguments as for
    `matrix`; devices in nodes of `per_node`.
    """
    tokens = len(expert_index)
    source = np.arange(tokens) * devices // tokens
    target = placement.targets(expert_index, home)
    landing = (
        target // per_node * per_node + (source % per_node)[:, None]
    )  # the source itself in its own node
    hops = []
    for key in (source[:, None] * devices + landing, landing * devices + target):
        pairs = np.unique(np.arange(tokens)[:, None] * devices**2 + key)  # once per token
        hops.append(
            np.bincount(pairs % devices**2, minlength=devices**2).reshape(devices, devices)
            * float(bytes_per_token)
        )
    return hops[0], hops[1]


def slots(expert_index: np.ndarray, home: np.ndarray, devices: int, experts: int) -> np.ndarray:
    """Rows [devices, experts] that each device computes for each expert, of routes [tokens, k] and
    a placement.
    """
    target = placement.targets(expert_index, home)
    return np.bincount(
        (target * experts + expert_index).reshape(-1), minlength=devices * experts
    ).reshape(devices, experts)


def even(tokens: int, k: int, devices: int, bytes_per_token: float) -> np.ndarray:
    """The same bytes spread perfectly evenly, [devices, devices]: what no imbalance would cost."""
    return np.full((devices, devices), tokens * k * bytes_per_token / devices**2)


def counted(
    counts: np.ndarray, home: np.ndarray, bytes_per_token: float
) -> tuple[np.ndarray, np.ndarray]:
    """(bytes [devices, devices], rows [devices, experts]): `matrix` and `slots` of routes that are
    known only as counts [devices, experts], how often each device's tokens choose each expert.

    home: a placement without copies, [experts], with as many experts on each device.
    """
    devices, experts = counts.shape
    order = np.argsort(home, kind="stable")
    sent = counts[:, order].reshape(devices, devices, -1).sum(-1)
    rows = np.zeros((devices, experts), counts.dtype)
    rows[home, np.arange(experts)] = counts.sum(0)
    return sent * float(bytes_per_token), rows


def received(sent: np.ndarray) -> np.ndarray:
    """[...] the most bytes that one device receives of traffic [..., devices, devices], its own
    copies to itself included: what it must have room for beside its weights.
    """
    return np.asarray(sent).sum(-2).max(-1)
