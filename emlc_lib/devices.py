"""Names of devices, and whether they are there."""

from __future__ import annotations

import torch


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
