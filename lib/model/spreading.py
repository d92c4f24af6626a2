"""Where the weights of a model go on a machine with several GPUs."""

from __future__ import annotations

import os
from typing import Any

import torch


def placed(need: int, device: torch.device) -> dict[str, Any]:
    """How transformers shall place `need` bytes of weights: on a CPU as it does; on the GPU
    `device` alone where they take at most a quarter of what is free there, which leaves room to
    work, and always under torchrun, as each process has its own; else over all GPUs, and where
    these do not suffice over the CPU.
    """
    if device.type != "cuda":
        return {}
    number = torch.cuda.current_device() if device.index is None else device.index
    alone = need <= torch.cuda.mem_get_info(number)[0] // 4 or "LOCAL_RANK" in os.environ
    return {"device_map": {"": number} if alone else "auto"}
