"""The published folder of Clothing1M: what must be in it, what is missing or broken, a smaller copy.

Lists and labels lie in the folder itself or below ``annotations/``; their keys, such as
``images/0/00/1234,5678.jpg``, are paths relative to the folder.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from ...runtime.files import write_atomically
from ...runtime.parameters import DataUnavailable
from ...runtime.progress import progress
from ..images import THREADS, InputError, open_square

CLASSES = (
    "T-Shirt", "Shirt", "Knitwear", "Chiffon", "Sweater", "Hoodie", "Windbreaker", "Jacket", "Downcoat", "Suit",
    "Shawl", "Dress", "Vest", "Underwear",
)  # fmt: skip

# Lists of images by their part in the experiment, and which labels belong to them.
PARTS = {"noisy_train": "noisy", "clean_train": "clean", "clean_val": "clean", "clean_test": "clean"}
LABELS = ("noisy", "clean")
IMAGES, COPY, LEFT_OUT = "images", "images_224", "left_out.txt"

# The paper gives no sizes; these are the usual ones, and squeezing to a square is what the released code does.
RESIZE, CROP = 256, 224


class Annotations(NamedTuple):
    """What the text files say: images by part, in the files' order; by ``noisy`` and ``clean`` the classes 0..13
    by image. Some images have both labels."""

    keys: dict[str, list[str]]
    labels: dict[str, dict[str, int]]


@dataclass(frozen=True)
class FolderReport:
    """What :func:`inspect_folder` found. Images are given by their keys, sorted.

    Attributes:
        folder: the data set's.
        sizes: listed images by part.
        missing_files: text files, or ``images``, that are not there. If there are any, nothing else was looked at.
        without_file: images with a label, or in a list, whose file is missing.
        without_label: files, or listed images, without a label that their list needs.
        repeated: images that are listed twice, be it in two lists.
        broken: listed images that cannot be decoded; None if that was not tried.
        blocking: listed images that cannot be used and are not yet left out.
        left_out: how many images ``left_out.txt`` names.
    """

    folder: Path
    sizes: dict[str, int] = field(default_factory=dict)
    missing_files: list[str] = field(default_factory=list)
    without_file: list[str] = field(default_factory=list)
    without_label: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    broken: list[str] | None = None
    blocking: list[str] = field(default_factory=list)
    left_out: int = 0

    @property
    def usable(self) -> bool:
        """Whether training can begin (broken images count only if they were looked for)."""
        return not (self.missing_files or self.repeated or self.blocking)

    def __str__(self) -> str:
        if self.missing_files:
            return f"Clothing1M in {self.folder}: not there: {', '.join(self.missing_files)}"
        lines = [f"Clothing1M in {self.folder}:"]
        lines += [f"  {part}: {n} images listed" for part, n in self.sizes.items()]
        for name in ("without_file", "without_label", "repeated", "broken"):
            found = getattr(self, name)
            first = f" ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''})" if found else ""
            lines.append(f"  {name.replace('_', ' ')}: {'not looked for' if found is None else len(found)}{first}")
        lines.append(f"  left out by {LEFT_OUT}: {self.left_out}")
        lines.append(f"  in the way of training: {len(self.blocking) + len(self.repeated)}")
        return "\n".join(lines)


def read_annotations(folder: Path) -> Annotations:
    """All lists and labels.

    Raises:
        DataUnavailable: files are missing, or a line is no key with a label of 0..13; the message names them.
    """
    if missing := _missing_files(folder):
        raise DataUnavailable(str(FolderReport(folder, missing_files=missing)))
    keys = {part: _lines(folder, f"{part}_key_list.txt") for part in PARTS}
    return Annotations(keys, {kind: _read_labels(folder, f"{kind}_label_kv.txt") for kind in LABELS})


def inspect_folder(folder: Path, *, decode: bool = False, show: bool = False) -> FolderReport:
    """Compares lists, labels and files; with ``decode`` also opens every listed image (hours for a million).

    Raises:
        DataUnavailable: a text file has a line that is no key with a label; the message says which.
    """
    if missing := _missing_files(folder):
        return FolderReport(folder, missing_files=missing)
    (keys, labels), files = read_annotations(folder), set(_files(folder))
    times = Counter(chain(*keys.values()))
    listed = set(times)
    without_file = (listed | labels["noisy"].keys() | labels["clean"].keys()) - files
    needed = {key for part, kind in PARTS.items() for key in keys[part] if key not in labels[kind]}
    without_label = needed | (files - labels["noisy"].keys() - labels["clean"].keys())
    broken, left_out = None, read_left_out(folder)
    if decode:
        there = sorted(listed & files)
        found = _each(lambda key: _is_broken(folder / key), there, show)
        broken = [key for key, bad in zip(there, found, strict=True) if bad]
    blocking = ((without_file | without_label | set(broken or ())) & listed) - left_out
    return FolderReport(
        folder, {part: len(found) for part, found in keys.items()}, [], sorted(without_file),
        sorted(without_label), sorted(key for key, n in times.items() if n > 1), broken, sorted(blocking),
        len(left_out),
    )  # fmt: skip


def read_left_out(folder: Path) -> set[str]:
    """The images that are not to be used, one key a line in ``left_out.txt``; empty if there is no such file."""
    return set(_lines(folder, LEFT_OUT)) if (folder / LEFT_OUT).is_file() else set()


def leave_out(folder: Path, keys: Iterable[str]) -> None:
    """Adds images to ``left_out.txt``, so that training goes on without them."""
    text = "".join(f"{key}\n" for key in sorted(read_left_out(folder) | set(keys)))
    write_atomically(folder / LEFT_OUT, lambda path: path.write_text(text))


def write_copy(folder: Path, *, show: bool = False) -> int:
    """Writes every usable image, resized and cropped, to ``images_224/``; what is there already stays.

    The copies are JPEG files of quality 95 without chroma subsampling, so that their pixels differ a little from
    those of images that are resized as they are read.

    Returns:
        The number of images that were written.

    Raises:
        DataUnavailable: the folder is not in order. InputError: an image is broken; what was written stays.
    """
    report = inspect_folder(folder)
    if not report.usable:
        raise DataUnavailable(str(report))
    unused, listed = read_left_out(folder), chain(*read_annotations(folder).keys.values())
    keys = [key for key in listed if key not in unused and not copied(folder, key).is_file()]

    def write(key: str) -> None:
        image, copy = open_square(folder / key, resize=RESIZE, crop=CROP), copied(folder, key)
        copy.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(copy, lambda path: image.save(path, "JPEG", quality=95, subsampling=0))

    return len(_each(write, keys, show))


def copied(folder: Path, key: str) -> Path:
    """Where the resized copy of an image is."""
    return folder / COPY / Path(key).relative_to(IMAGES)


def _each(function: Callable[[str], Any], keys: list[str], show: bool) -> list[Any]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(progress(pool.map(function, keys), total=len(keys), desc="images", show=show))


def _is_broken(path: Path) -> bool:
    try:
        open_square(path, resize=RESIZE, crop=CROP)
    except InputError:
        return True
    return False


def _missing_files(folder: Path) -> list[str]:
    names = [*(f"{part}_key_list.txt" for part in PARTS), *(f"{kind}_label_kv.txt" for kind in LABELS)]
    missing = [name for name in names if not _text_file(folder, name).is_file()]
    return missing if (folder / IMAGES).is_dir() else [*missing, f"{IMAGES}/"]


def _text_file(folder: Path, name: str) -> Path:
    below = folder / "annotations" / name
    return below if below.is_file() else folder / name


def _lines(folder: Path, name: str) -> list[str]:
    text = _text_file(folder, name).read_text(encoding="utf-8")
    return [line for raw in text.splitlines() if (line := raw.strip())]


def _read_labels(folder: Path, name: str) -> dict[str, int]:
    labels = {}
    for line in _lines(folder, name):
        key, _, label = line.rpartition(" ")
        if not key or not label.isdecimal() or int(label) >= len(CLASSES):
            raise DataUnavailable(
                f"{_text_file(folder, name)}: {line!r} is not an image and a label of 0..{len(CLASSES) - 1}"
            )
        labels[key.strip()] = int(label)
    return labels


def _files(folder: Path) -> Iterator[str]:
    for directory, _, names in os.walk(folder / IMAGES):
        relative = Path(directory).relative_to(folder).as_posix()
        yield from (f"{relative}/{name}" for name in names)
