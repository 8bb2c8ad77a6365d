"""Where a number comes from: hardware, versions and the number of processes."""

import os
import platform
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from .execution import bfloat16_is_fast
from .parallel import own_share
from .places import REPOSITORY


def provenance(device: str = "cpu") -> dict[str, Any]:
    """Hardware, versions and the number of processes, without any path or host name."""
    names = ("torch", "torchvision", "numpy", "scikit-learn")
    hardware = {"machine": platform.machine(), "processor": _processor(), "threads": torch.get_num_threads()}
    if torch.device(device).type == "cuda":
        hardware["gpu"] = torch.cuda.get_device_name(device)
    versions = {"python": platform.python_version(), "emlc-lib": _own_version()}
    versions |= {name: metadata.version(name) for name in names}
    return {"hardware": hardware, "processes": own_share().world, "os": sys.platform, "versions": versions}


def _own_version() -> str:
    try:
        return metadata.version("emlc-lib")
    except metadata.PackageNotFoundError:  # it runs from its checkout, without being installed
        return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]


def _processor() -> str:
    """Name, instructions and cores: a name such as "AMD EPYC" alone is that of processors of many speeds."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or "unknown"
    kind = torch.backends.cpu.get_cpu_capability() + (" with bfloat16" if bfloat16_is_fast("cpu") else "")
    return f"{name} ({kind}), {os.cpu_count()} cores"
