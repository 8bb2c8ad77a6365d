"""The committed tables, as claims read them."""

from pathlib import Path

import pandas as pd

from ..methods import METHODS
from .statistics import by_seed

SETTINGS = [("symmetric", 0.2), ("symmetric", 0.5), ("symmetric", 0.8), ("symmetric", 0.9), ("asymmetric", 0.4)]


class Tables:
    """The committed tables of a folder, by name."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._read: dict[str, pd.DataFrame] = {}

    def __call__(self, name: str) -> pd.DataFrame:
        if name not in self._read:
            self._read[name] = pd.read_csv(self.folder / f"{name}.csv")
        return self._read[name]

    def of(self, table: str, column: str, /, **where) -> pd.Series:
        """A column in percent by seed, of the rows with these values."""
        return by_seed(self(table), column, **where)

    def accuracy(self, name: str, method: str, kind: str, noise: float, k: int = 1) -> pd.Series:
        """Test accuracy in percent by seed, of what does not see the noise whatever it was run at."""
        return self.of(name, "test_accuracy", method=method, **self.setting(method, kind, noise, k))

    @staticmethod
    def setting(method: str, kind: str, noise: float, k: int = 1) -> dict:
        """What rows of a method have in common at that noise."""
        return {"noise_type": kind, "noise": noise, "k": k} if METHODS[method].sees_noise else {}


def at(noise: float, kind: str = "symmetric", preset: str = "quick", data: str = "CIFAR-10") -> str:
    """The scale of a claim in words; ``noise`` in [0, 1]."""
    return f"{data}, {preset}, {100 * noise:g} % {kind}"


def digits(noise: float) -> str:
    """The same of digits."""
    return at(noise, preset="smoke", data="digits")
