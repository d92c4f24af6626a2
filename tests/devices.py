"""A second device on a machine that has one: tensors that say they are elsewhere.

Such a tensor holds its numbers on the CPU and says that it is on "meta:1", which torch knows
without a driver; an operation on tensors of two devices is refused as a GPU would refuse it, and
what it gives is where its inputs are.  So what is computed is real, whatever waits for numbers, and
only the place is pretended.
"""

from __future__ import annotations

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

CPU, FAR = torch.device("cpu"), torch.device("meta:1")
INDEXING = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default)


class On(torch.Tensor):
    """A tensor that says it is on `device`; `held` has its numbers."""

    @staticmethod
    def __new__(cls, held: torch.Tensor, device: torch.device):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=device,
            requires_grad=held.requires_grad,
        )

    def __init__(self, held: torch.Tensor, device: torch.device) -> None:
        self.held = held.detach()

    def __repr__(self) -> str:
        return f"On({self.device}, {self.held})"

    def tolist(self):
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class Devices(TorchDispatchMode):
    """While it is entered, tensors are made on the device that is asked for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _run(func, args, kwargs):
    """`func` on the numbers, refused where its tensors are on several devices.

    As on a GPU, a single number of the CPU goes with any device, and so does an index.
    """
    flat = [part for part in tree_flatten((args, kwargs))[0] if isinstance(part, torch.Tensor)]
    copies = func in (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)
    own = flat[:1] if func in INDEXING and isinstance(flat[0], On) else flat
    places = {part.device for part in own if part.dim() or isinstance(part, On)}
    if len(places) > 1 and not copies:
        raise RuntimeError(f"{func}: tensors on {sorted(map(str, places))}: must be on one device")
    asked = kwargs.get("device")
    home = torch.device(asked) if asked is not None else flat[0].device if copies else None
    if home is None:
        home = FAR if any(isinstance(part, On) for part in own) else CPU
    if asked is not None:
        kwargs = kwargs | {"device": CPU}
    near, named = tree_map(lambda one: one.held if isinstance(one, On) else one, (args, kwargs))
    found = func(*near, **named)
    if func.__name__.split(".")[0].endswith("_") and flat:
        return args[0]  # in place
    if home == CPU:
        return found
    return tree_map(lambda one: On(one, home) if isinstance(one, torch.Tensor) else one, found)


def split(model: nn.Module, first: int) -> None:
    """Put the layers of `model` from number `first` on, and all that follows them, on the second
    device, as accelerate does with a device map.
    """
    body = model.model
    add_hook_to_module(model, AlignDevicesHook(io_same_device=True), append=True)
    for part in (*body.layers[first:], body.norm, model.lm_head):
        for module in part.modules():
            for name, value in module._parameters.items():
                if value is not None:
                    far = nn.Parameter(On(value.detach(), FAR), value.requires_grad)
                    module._parameters[name] = far
        add_hook_to_module(part, AlignDevicesHook(execution_device=FAR))
