"""Placements: which device holds each expert, an array [experts] of device numbers, the same number on each device."""

from __future__ import annotations

import numpy as np


def contiguous(experts: int, devices: int) -> np.ndarray:
    """Experts in order of their number: the first E/D on device 0, and so on.  E must be a multiple of D."""
    if devices < 1 or experts < 1 or experts % devices:
        raise ValueError(f"placement: experts = {experts}, devices = {devices}: experts must be a multiple of devices")
    return np.arange(experts) // (experts // devices)


def random(experts: int, devices: int, rng: np.random.Generator) -> np.ndarray:
    """A random balanced placement: the labels of experts carry no meaning across layers and seeds."""
    return rng.permutation(contiguous(experts, devices))


def device_load(load: np.ndarray, placement: np.ndarray, devices: int) -> np.ndarray:
    """[..., devices] assignments arriving at each device, from loads [..., experts]."""
    holds = np.zeros((len(placement), devices))
    holds[np.arange(len(placement)), placement] = 1
    return load @ holds
