"""Training methods by name. A new one is a file with a :class:`Method` and a line here."""

from .base import Method
from .cross_entropy import CleanOnly, CrossEntropy
from .emlc import EMLC
from .mlc import MLC
from .mslc import MSLC

METHODS: dict[str, type[Method]] = {
    "emlc": EMLC,
    "mlc": MLC,
    "mslc": MSLC,
    "cross_entropy": CrossEntropy,
    "clean_only": CleanOnly,
}

__all__ = ["EMLC", "METHODS", "MLC", "MSLC", "CleanOnly", "CrossEntropy", "Method"]
