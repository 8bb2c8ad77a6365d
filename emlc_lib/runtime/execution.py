"""How the same mathematics is executed: devices, number formats, memory layout."""

import functools
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

P, R = ParamSpec("P"), TypeVar("R")

Precision = Literal["float32", "tf32", "bfloat16"]


def autocast(precision: Precision, device: str) -> AbstractContextManager:
    """A context in which convolutions and linear layers compute in bfloat16, if ``precision`` says so.

    Parameters, their gradients and their updates stay in float32 either way.
    """
    if precision != "bfloat16":
        return nullcontext()
    return torch.autocast(torch.device(device).type, torch.bfloat16)


@contextmanager
def matmul_precision(precision: Precision):
    """Within the context CUDA may round the factors of float32 products to TF32, if ``precision`` is not float32.

    The setting is one of the process; what it was before is restored.
    """
    before = [backend.fp32_precision for backend in _tf32_backends()]
    _set_tf32(["ieee" if precision == "float32" else "tf32"] * len(before))
    try:
        yield
    finally:
        _set_tf32(before)


def _tf32_backends() -> tuple:
    cudnn = torch.backends.cudnn
    return torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn


def _set_tf32(values: list[str]) -> None:
    # torch refuses to read its older flags where they contradict the newer ones, which users may have set: both
    # are set, the older ones first, since they overwrite the newer.
    torch.backends.cuda.matmul.allow_tf32 = values[0] == "tf32"
    torch.backends.cudnn.allow_tf32 = values[1] == "tf32"
    for backend, value in zip(_tf32_backends(), values, strict=True):
        backend.fp32_precision = value


@contextmanager
def fastest_convolutions():
    """Within the context cuDNN tries its algorithms for each new shape and keeps the fastest; CPUs have no choice.

    The setting is one of the process; what it was before is restored.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def at_own_precision(function: Callable[P, R]) -> Callable[P, R]:
    """The function, run within :func:`matmul_precision` of its first argument, a configuration.

    On CUDA with the :func:`fastest_convolutions`, too.
    """

    @functools.wraps(function)
    def wrapped(config, *arguments, **options):
        with matmul_precision(config.precision), fastest_convolutions():
            return function(config, *arguments, **options)

    return wrapped


def bfloat16_is_fast(device: str) -> bool:
    """Whether the device has instructions for bfloat16. A CPU without them is 7 to 11 times slower in it than in
    float32 (SimCLR, AVX2)."""
    if device != "cpu":
        old = (
            device.startswith("cuda") and torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0)
        )
        return not old
    has = torch.cpu.get_capabilities()
    return torch.backends.mkldnn.is_available() and any(has.get(n) for n in ("avx512_bf16", "amx_bf16", "bf16"))


def synchronise(device: str) -> None:
    """Waits until the device has done what it was asked for, as a clock must; a CPU always has."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def to_device(device: torch.device, *tensors: Tensor) -> list[Tensor]:
    """Host tensors on a device, by one copy that the host does not wait for.

    Copied one by one, the choices of an augmentation cost more than the augmentation.
    """
    if device.type == "cpu":
        return list(tensors)
    # Every part begins at a multiple of eight bytes, as a view of its type must.
    parts = [
        F.pad(flat, (0, -len(flat) % 8)) for flat in (t.contiguous().flatten().view(torch.uint8) for t in tensors)
    ]
    packed = torch.cat(parts)
    if device.type == "cuda":
        packed = packed.pin_memory()
    moved = packed.to(device, non_blocking=True).split([len(part) for part in parts])
    return [
        part[: t.numel() * t.element_size()].view(t.dtype).view(t.shape)
        for part, t in zip(moved, tensors, strict=True)
    ]


def chosen_device(device: str) -> str:
    """The device, for ``auto`` CUDA where there is one, else the CPU."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def known_device(device: str) -> str:
    """The device, if it is one that some machine can have; a ValueError otherwise."""
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError("must be auto, cpu, cuda or cuda:N") from error
    if kind not in ("cpu", "cuda") or (kind == "cpu" and device != "cpu"):
        raise ValueError("must be auto, cpu, cuda or cuda:N")
    return device


def check_device(device: str) -> str:
    """The device, if it can be used here; a ValueError that says why not otherwise."""
    kind = torch.device(known_device(device)).type
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError("CUDA is not available on this machine; use auto or cpu")
    if kind == "cuda" and (torch.device(device).index or 0) >= torch.cuda.device_count():
        raise ValueError(f"this machine has {torch.cuda.device_count()} CUDA devices")
    return device
