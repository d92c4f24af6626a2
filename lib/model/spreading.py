"""Whether the weights of a model fit, and where they go on a machine with several GPUs."""

from __future__ import annotations

import os
from typing import Any

import psutil
import torch
import transformers


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


def needed(settings, dtype: torch.dtype, *, code: bool = False) -> int:
    """Memory of a model's weights by its config: built without storage, counted, times the size of
    a number.
    """
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(settings, trust_remote_code=code)
    return sum(part.numel() for part in model.parameters()) * dtype.itemsize


def available(device: torch.device) -> int:
    """Memory for weights: of the machine, and on CUDA of all its GPUs as well."""
    free = psutil.virtual_memory().available
    if device.type == "cuda":
        free += sum(torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count()))
    return free


def check(name: str, need: int, dtype: torch.dtype, device: torch.device) -> None:
    """Refuse a model whose `need` bytes do not fit into memory, with both figures and what would
    fit.
    """
    free = available(device)
    if need <= 0.9 * free:
        return
    half = need // dtype.itemsize * 2
    most = 0.9 * free / 2 / 1e9
    smaller = f"a model of at most {most:.1f} billion parameters would fit in bfloat16"
    if dtype.itemsize > 2 and half <= 0.9 * free:
        smaller = "dtype = 'bfloat16' would fit"
    kind = str(dtype).removeprefix("torch.")
    raise MemoryError(
        f"load: model = {name!r}: needs {need / 1e9:.1f} GB in {kind}, "
        f"{free / 1e9:.1f} GB are available: {smaller}"
    )
