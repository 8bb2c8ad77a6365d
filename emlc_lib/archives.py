"""NumPy archives that a user may have got from elsewhere."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np


def read_npz(path: Path, parameter: str) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz`` archive by name; nothing in it is unpickled.

    Args:
        path: the file.
        parameter: its name, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such archive, or damaged, or has an array of Python objects.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{parameter}: {path} is not a file")
    try:
        # Of anything else np.load would say that it can be unpickled.
        if not zipfile.is_zipfile(path):
            raise ValueError("no archive")
        # Opened here: np.load would leave a damaged archive open.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return dict(archive)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{parameter}: {path} is not a readable .npz archive ({error})") from error
