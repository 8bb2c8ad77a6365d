"""Training methods by name. A new one is a file with a :class:`Method` and a line here."""

from __future__ import annotations

from .base import Method
from .baselines import CleanOnly, CrossEntropy
from .emlc import EMLC
from .fasten import FasTEN
from .mlc import MLC
from .mlnt import MLNT
from .mslc import MSLC
from .mwnet import MWNet

METHODS: dict[str, type[Method]] = {
    "emlc": EMLC,
    "mlc": MLC,
    "mslc": MSLC,
    "mwnet": MWNet,
    "mlnt": MLNT,
    "fasten": FasTEN,
    "cross_entropy": CrossEntropy,
    "clean_only": CleanOnly,
}


__all__ = [
    "EMLC",
    "LOSSES",
    "METHODS",
    "MLC",
    "MLNT",
    "MSLC",
    "CleanOnly",
    "CrossEntropy",
    "FasTEN",
    "MWNet",
    "Method",
]
