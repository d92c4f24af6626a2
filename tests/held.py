"""How many bytes of tensors are held at a time: the most that live at once while it is entered.

What a GPU's allocator would count is counted on a CPU, storage by storage; what was there before
counts as nothing.
"""

from __future__ import annotations

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class Held(TorchDispatchMode):
    """`now` and `most`: bytes of storages that were made inside, alive at present and at most."""

    def __init__(self, *before: torch.Tensor) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known = {part.untyped_storage()._cdata for part in before}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for part in tree_flatten(found)[0]:
            if isinstance(part, torch.Tensor):
                self.count(part.untyped_storage())
        return found

    def count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self.gone, key, size)

    def gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size
