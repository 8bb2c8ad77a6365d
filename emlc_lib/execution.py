"""How the same mathematics is executed: number formats, memory layout, compilation."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from contextlib import contextmanager
from typing import Literal, ParamSpec, TypeVar

import torch
from torch import nn

P, R = ParamSpec("P"), TypeVar("R")
Precision = Literal["float32", "tf32", "bfloat16"]


def autocast(precision: Precision, device: str) -> torch.autocast:
    """A context in which convolutions and linear layers compute in bfloat16, if ``precision`` says so.

    Parameters, their gradients and their updates stay in float32 either way.
    """
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16")


@contextmanager
def matmul_precision(precision: Precision):
    """Within the context CUDA may round the factors of float32 products to TF32, if ``precision`` is not float32.

    The setting is one of the process; what it was before is restored.
    """
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = precision != "float32"
    try:
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


def at_own_precision(function: Callable[P, R]) -> Callable[P, R]:
    """The function, run within :func:`matmul_precision` of its first argument, a configuration."""

    @functools.wraps(function)
    def wrapped(config, *arguments, **options):
        with matmul_precision(config.precision):
            return function(config, *arguments, **options)

    return wrapped


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_format(channels_last: bool) -> torch.memory_format:
    """The layout of images and convolution weights."""
    return torch.channels_last if channels_last else torch.contiguous_format


def compiled(function: nn.Module | Callable, enabled: bool) -> Callable:
    """``torch.compile`` of a module or function if ``enabled``, else the same object.

    The module itself is left as it is: its compiled form shares its parameters, and forward-mode
    differentiation goes on through the original, since a compiled module may lose tangents.
    """
    return torch.compile(function, dynamic=False) if enabled else function


def announce_compilation() -> None:
    """Says on stderr why the first steps take so long."""
    print(
        "compiling: the first steps take up to a few minutes, later ones are faster", file=sys.stderr, flush=True
    )
