"""A user's images and labels, and reading them from folders and CSV files.

Reading opens no image file, so that mistakes in labels are found before that.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..data.images import InputError, opened
from ..runtime.progress import progress
from ..runtime.user_tables import alike, read_table

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

# Of telephones and cameras.
NOT_READ = (".arw", ".avif", ".cr2", ".cr3", ".dng", ".heic", ".heif", ".jp2", ".jxl", ".nef", ".orf", ".raf")

THUMBNAIL = 160  # pixels of the longer side


@dataclass(frozen=True)
class Images:
    """n images with or without labels.

    Attributes:
        parameter: the name by which the caller gave them, for messages.
        names: n indices (int), or n paths relative to ``folder`` (str).
        labels: (n,) array of strings, integers or booleans; None where none were given.
        load: makes the i-th image.
        channels: 1 if all are grey, else 3; files count as colour images.
        side: the longer side in pixels, if all images have the same size; None for files.
        folder: where the paths begin; None for images that are not files.
    """

    parameter: str
    names: list[int] | list[str]
    labels: np.ndarray | None
    load: Callable[[int], Image.Image]
    channels: int = 3
    side: int | None = None
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.names)

    def without(self, names: set[str]) -> Images:
        """The same images less those with the names."""
        kept = [i for i, name in enumerate(self.names) if name not in names]
        labels = None if self.labels is None else self.labels[kept]
        return replace(self, names=[self.names[i] for i in kept], labels=labels, load=lambda i: self.load(kept[i]))

    def pixels(self, size: int, channels: int, *, show: bool = False) -> Tensor:
        """All images, resized to a square: (n, channels, size, size) uint8.

        The aspect ratio is not kept. Grey images become colour ones and the reverse, as ``channels`` says.

        Raises:
            InputError: images cannot be read; the message has the first ten.
        """
        out = torch.empty((len(self), channels, size, size), dtype=torch.uint8)

        def fill(i: int) -> str | None:
            try:
                out[i] = _resized(self.load(i), size, channels)
            except InputError as error:
                return str(error)
            return None

        with ThreadPoolExecutor() as pool:  # decoding releases the interpreter's lock
            done = progress(
                pool.map(fill, range(len(self))), total=len(self), desc=f"reading {self.parameter}", show=show
            )
            broken = [error for error in done if error]
        if broken:
            more = f" (and {len(broken) - 1} more: {'; '.join(broken[1:10])})" if len(broken) > 1 else ""
            raise InputError(broken[0] + more)
        return out


def _resized(image: Image.Image, size: int, channels: int) -> Tensor:
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image).reshape(size, size, channels)).permute(2, 0, 1)


def read_folder(folder: str | Path, parameter: str = "noisy", *, labelled: bool = True) -> Images:
    """The images below a folder, named by their paths relative to it.

    Args:
        folder: with one subfolder per class, whose name is the label of all images in it and below.
        parameter: its name, for messages.
        labelled: whether labels are needed; if not, every image below the folder is taken.

    Raises:
        InputError: there is no such folder, no image in it, or an image of no class.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{parameter}: {folder} is not a folder")
    # Hidden files are thumbnails and other tools' own.
    found = [path.relative_to(folder) for path in _below(folder, parameter)]
    found = [path for path in found if not any(part.startswith(".") for part in path.parts)]
    paths = sorted(path.as_posix() for path in found if path.suffix.lower() in EXTENSIONS)
    others = _not_read(found)
    if not paths:
        convert = f"; it has {others}: convert them first" if others else ""
        raise InputError(f"{parameter}: there are no images in {folder} ({', '.join(EXTENSIONS)}){convert}")
    if others:
        warnings.warn(
            f"{parameter}: pictures in {folder} are left out, {others}; convert them first", stacklevel=2
        )
    if not labelled:
        return _files(parameter, folder, paths, None)
    loose = next((path for path in paths if "/" not in path), None)
    if loose:
        raise InputError(
            f"{parameter}: {loose} is in no subfolder of {folder}, whose name would be its label; labels can "
            "also come from a CSV file of path,label (read_labels, emlc correct --labels)"
        )
    return _files(parameter, folder, paths, np.array([alike(path.split("/")[0]) for path in paths]))


def _not_read(found: list[Path]) -> str:
    """How many files have which of the endings that are not read."""
    endings = Counter(path.suffix.lower() for path in found if path.suffix.lower() in NOT_READ)
    return ", ".join(f"{ending} ({n})" for ending, n in endings.most_common())


def read_labels(
    file: str | Path, folder: str | Path, parameter: str = "clean", *, gone_through: bool = True
) -> Images:
    """The images that a CSV file with the columns ``path`` and ``label`` names; other columns do not matter.

    Of a table of :func:`emlc_lib.estimator.folder.with_verified`, i.e. what was corrected and then gone through,
    if that will do, the corrected labels of rows whose ``verified`` is True.

    Args:
        file: the CSV file.
        folder: where relative paths begin.
        parameter: the file's name, for messages.

    Raises:
        ConfigError: the file cannot be read, or a column is missing; see :mod:`emlc_lib.runtime.user_tables`.
        InputError: it names no image, a path is no file, a label is empty, a path has two labels, or ``verified``
            is neither True nor False.
    """
    folder = Path(folder)
    was_corrected = ("path", "corrected_label", "verified")

    def needed(columns: set[str]) -> tuple[str, ...]:
        own = gone_through and columns.issuperset(was_corrected[1:]) and "label" not in columns
        return was_corrected if own else ("path", "label")

    table = read_table(file, parameter, needed)  # as text: a class may be called NA or 007
    if "label" not in table:
        table = table[_booleans(table["verified"], file, parameter)].rename(columns={"corrected_label": "label"})
    if table.empty:
        raise InputError(f"{parameter}: {file} names no image")
    labels: dict[str, str] = {}
    others: dict[str, str] | None = None
    for line, path, label in zip(table.index, table["path"], table["label"].map(alike), strict=True):
        name = _name(path, folder)
        if not os.path.isfile(folder / name):
            there = (str(found.relative_to(folder)) for found in _below(folder, parameter))
            others = others or {_alike(other): other for other in there}
            name = others.get(_alike(name), name)
        if not os.path.isfile(folder / name):
            raise InputError(f"{parameter}: {path!r} (line {line} of {file}) is not a file in {folder}")
        if not label:
            raise InputError(f"{parameter}: {path!r} (line {line} of {file}) has no label")
        if labels.setdefault(name, label) != label:
            raise InputError(f"{parameter}: {path!r} has two labels in {file}, {labels[name]!r} and {label!r}")
    return _files(parameter, folder, list(labels), np.array(list(labels.values())))


def _booleans(cells: pd.Series, file: str | Path, parameter: str) -> pd.Series:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    found = cells.str.lower().map(known)
    if (wrong := cells[found.isna()]).size:
        raise InputError(
            f"{parameter}: verified must be True or False (line {wrong.index[0]} of {file} has {wrong.iloc[0]!r})"
        )
    return found.astype(bool)


def _below(folder: Path, parameter: str) -> Iterator[Path]:
    """All that is below the folder, also through links to folders, but not those that lead back, nor hidden ones.

    Raises:
        InputError: a folder cannot be read, or is there twice, by a link.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"{parameter}: {error.filename} cannot be read ({error.strerror})")

    seen: dict[str, str] = {}
    for root, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(root)
        if (other := seen.setdefault(real, root)) != root:
            raise InputError(f"{parameter}: {other} and {root} are the same folder, by a link")
        back = {real, *(os.path.realpath(path) for path in Path(root).absolute().parents)}
        shown = sorted(name for name in folders if name[0] != ".")
        folders[:] = [name for name in shown if os.path.realpath(os.path.join(root, name)) not in back]
        yield from (Path(root) / name for name in [*folders, *files])


def _alike(path: str) -> str:
    return "/".join(alike(part) for part in path.split("/"))


def _name(path: str, folder: Path) -> str:
    """One name per file, however it is written: relative to the folder if it is in there; links keep theirs."""
    whole, root = (Path(os.path.abspath(place)) for place in (folder / path, folder))
    return whole.relative_to(root).as_posix() if whole.is_relative_to(root) else whole.as_posix()


def _files(parameter: str, folder: Path, paths: Sequence[str], labels: np.ndarray | None) -> Images:
    bad = next((path for path in (str(folder), *paths) if path != path.encode(errors="replace").decode()), None)
    if bad:
        raise InputError(f"{parameter}: the name {bad!a} is no UTF-8; rename the file")

    def load(i: int) -> Image.Image:
        return read_image(folder / paths[i], parameter)

    return Images(parameter, list(paths), labels, load, folder=folder)


def read_image(path: Path, parameter: str) -> Image.Image:
    """An image file, decoded and turned upright as its EXIF data say.

    Raises:
        InputError: it cannot be read, or has more than 8 bits per channel.
    """
    with opened(path, parameter) as file:
        image = ImageOps.exif_transpose(file)
        image.load()
    return of_eight_bits(image, str(path), parameter)


def thumbnail(path: Path, parameter: str) -> Image.Image:
    """:func:`read_image` in RGB, its longer side at most :data:`THUMBNAIL` pixels."""
    image = read_image(path, parameter).convert("RGB")
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return image


def of_eight_bits(image: Image.Image, name: str, parameter: str) -> Image.Image:
    """The image; an InputError if it has more than 8 bits per channel."""
    if image.mode.startswith(("I", "F")):
        raise InputError(f"{parameter}: {name} has more than 8 bits per channel; convert it first")
    return image


def image_size(path: Path, parameter: str) -> tuple[int, int]:
    """Width and height of an image file, from its header.

    Raises:
        InputError: it cannot be read.
    """
    with opened(path, parameter) as file:
        return file.size
