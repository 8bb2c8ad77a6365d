"""A device without values that is as strict as CUDA: whole trainings on torch's ``meta`` device under watch.

Every tensor operation passes through :class:`StrictDevice`, which fails where CUDA would because a host tensor
meets one of the device, and counts what makes the host wait for the device. One step is not enough to find such
mistakes: checks, logs, evaluation and checkpoints come at the ends of epochs.

It sees no values (what was computed there is read back as ones), no number format, no autocast and no speed,
nor the copy in ``torch.tensor(..., device=...)``.
"""

from collections import Counter

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

aten = torch.ops.aten

# CUDA takes host tensors here: copies, and indices, which it copies over while the host waits.
MIXING_ALLOWED = {
    aten.copy_.default, aten._to_copy.default, aten.index.Tensor, aten.index_put.default, aten.index_put_.default,
    aten._unsafe_index.Tensor,
}  # fmt: skip
# Their results are as large as the values say, so that the host has to ask for them.
SIZED_BY_VALUES = {
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
}


class DeviceMismatch(RuntimeError):
    """An operation on tensors of the host and of the device, as CUDA refuses it."""


class StrictDevice(TorchDispatchMode):
    """Within the context, meta tensors behave as if they were on CUDA.

    Attributes:
        waits: how often the host waited for the device, by reason.
        copies: non-blocking copies to the device, which do not count as waits.
    """

    def __init__(self):
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.copies = 0
        self._sources = WeakTensorKeyDictionary()  # host tensors by their unchanged copies

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_device = [t for t in tensors if t.is_meta]
        if func is aten._local_scalar_dense.default and on_device:
            self.waits["a number is read"] += 1
            return {torch.bool: True}.get(tensors[0].dtype, 1 if not tensors[0].is_floating_point() else 1.0)
        if func is aten._to_copy.default:
            target = torch.device(kwargs.get("device") or tensors[0].device)
            if on_device and target.type != "meta":
                return self._to_host(tensors[0]).to(kwargs.get("dtype") or tensors[0].dtype)
            if not on_device and target.type == "meta":
                self._to_device(kwargs.get("non_blocking", False))
                copy = func(*args, **kwargs)
                self._sources[copy] = (copy._version, tensors[0])
                return copy
        elif func is aten.copy_.default and len(on_device) == 1:
            target, source = args[:2]
            if source.is_meta:
                return target.copy_(self._to_host(source))
            self._to_device(kwargs.get("non_blocking", len(args) > 2 and args[2]))
        elif on_device:
            self._check(func, args, tensors, on_device)
        if func in SIZED_BY_VALUES and on_device:
            raise DeviceMismatch(f"{func}: its result has no size here; on CUDA the host waits for it")
        return func(*args, **kwargs)

    def _to_host(self, tensor: Tensor) -> Tensor:
        self.waits["copied to the host"] += 1
        version, source = self._sources.get(tensor, (None, None))
        return source.clone() if version == tensor._version else torch.ones(tensor.shape, dtype=tensor.dtype)

    def _to_device(self, non_blocking: bool) -> None:
        if non_blocking:
            self.copies += 1
        else:
            self.waits["copied to the device, blocking"] += 1

    def _check(self, func, args, tensors: list[Tensor], on_device: list[Tensor]) -> None:
        host = [t for t in tensors if not t.is_meta]
        if func in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default):
            indices = [t for t in args[1] if t is not None]
            if any(t.dtype in (torch.bool, torch.uint8) for t in indices):
                self.waits["a mask picks elements"] += 1
            if args[0].is_meta and not all(t.is_meta for t in indices):
                self.waits["indices copied to the device"] += 1
            elif not args[0].is_meta and any(t.is_meta for t in indices):
                raise DeviceMismatch(f"{func}: indices of the device on a host tensor")
            return
        # Elementwise operations take a host tensor of no dimension for a number.
        numbers_allowed = torch.Tag.pointwise in func.tags and not func.name().startswith("aten::_foreach")
        mixed = [t for t in host if t.dim() or not numbers_allowed]
        if mixed and func not in MIXING_ALLOWED:
            shapes = ", ".join(str(tuple(t.shape)) for t in mixed)
            raise DeviceMismatch(f"{func}: host tensors of shape {shapes} beside tensors of the device")
