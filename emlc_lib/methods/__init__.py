"""Training methods, one file each, with their own parameters, presets, label and capabilities.

A new one is a file in this folder. May import core, runtime and data.
"""

import importlib
import pkgutil

from .base import LOSSES, METHODS, Method, MethodParameters

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["LOSSES", "METHODS", "Method", "MethodParameters"]
