"""Labels from files: those that people gave (CIFAR-10N, CIFAR-100N)."""

from __future__ import annotations

from pathlib import Path
import numpy as np
from ..runtime.checkpoint import read_npz


def read_human_labels(path: str | Path, key: str) -> np.ndarray:
    """One label column of an ``.npz`` file of human labels, e.g. ``worse_label`` of CIFAR-10N.

    Args:
        path: a NumPy ``.npz`` archive whose arrays are (n,) integers in torchvision's sample order.
        key: the array's name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not such an archive, or has no array of that name.
    """
    path = Path(path)
    columns = read_npz(path, "human_labels")
    if key not in columns:
        raise ValueError(f"human_key: {key!r} is not in {path.name}; it holds {', '.join(sorted(columns))}")
    labels = columns[key]
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"human_labels: {key} of {path.name} holds {labels.dtype} values, not integers")
    return labels.astype(np.int64).ravel()
