"""A small made-up folder of Clothing1M's published layout, for trials and tests without the real images.

A picture is a shirt in the colour of its class. Nothing learned from it says anything about Clothing1M.
"""

import colorsys
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from ...core.noise import symmetric_noise
from ...runtime.randomness import Stream, numpy_generator
from .folder import CLASSES, PARTS

SIZES = {"noisy_train": 42, "clean_train": 30, "clean_val": 14, "clean_test": 15}

# The outline in shares of width and height, the same when mirrored, since clean images are flipped.
_SHIRT = (
    (0.36, 0.12), (0.64, 0.12), (0.95, 0.3), (0.84, 0.48), (0.72, 0.42),
    (0.72, 0.9), (0.28, 0.9), (0.28, 0.42), (0.16, 0.48), (0.05, 0.3),
)  # fmt: skip


class MadeUpTree(NamedTuple):
    """The data set's folder, its images by part in the lists' order, and the class of every image, which of noisy
    images no file tells."""

    folder: Path
    keys: dict[str, list[str]]
    true: dict[str, int]

    def true_labels(self, paths: Iterable[Path | str]) -> np.ndarray:
        """(n,) int64, the true classes of n image files of the folder."""
        return np.array([self.true[Path(path).relative_to(self.folder).as_posix()] for path in paths])


def colour(label: int, number: int) -> tuple[int, int, int]:
    """The shirt's: hue by class; the image's number decides how bright and how pale it is."""
    pale, bright = 0.3 * (17 * number % 10) / 9, 0.6 + 0.4 * (29 * number % 50) / 49
    red, green, blue = (round(255 * v) for v in colorsys.hsv_to_rgb(label / len(CLASSES), 1 - pale, bright))
    return red, green, blue


def draw(label: int, number: int) -> Image.Image:
    """The picture of an image: a shirt on grey, 120 to 160 pixels wide and 160 high."""
    width, height = 120 + 4 * (number % 11), 160
    image = Image.new("RGB", (width, height), (90 + 37 * number % 110,) * 3)
    ImageDraw.Draw(image).polygon([(x * width, y * height) for x, y in _SHIRT], fill=colour(label, number))
    return image


def write_tree(folder: Path, sizes: Mapping[str, int] = SIZES, *, noise: float = 0.0, seed: int = 0) -> MadeUpTree:
    """Writes images, lists and labels. A third of the clean images have a noisy label as well, as some really do.

    Args:
        folder: made if it is not there.
        sizes: of the four lists; classes take turns.
        noise: rate of symmetric noise (Appendix E) of the labels of ``noisy_train``.
        seed: of the noise.
    """
    tree, text = MadeUpTree(folder, {}, {}), {"noisy_label_kv": [], "clean_label_kv": []}
    for part, size in sizes.items():
        labels = np.arange(size) % len(CLASSES)
        rate = noise if part == "noisy_train" else 0.0
        given = symmetric_noise(labels, len(CLASSES), rate, numpy_generator(seed, Stream.NOISE)).noisy
        tree.keys[part] = []
        for i, label in enumerate(labels.tolist()):
            number = len(tree.true)
            # The published names have commas in them.
            key = f"images/{number % 10}/{number % 7:02d}/{number},{7 * number}.jpg"
            (folder / key).parent.mkdir(parents=True, exist_ok=True)
            draw(label, number).save(folder / key, quality=95)
            text[f"{PARTS[part]}_label_kv"].append(f"{key} {given[i]}")
            if PARTS[part] == "clean" and i % 3 == 0:
                text["noisy_label_kv"].append(f"{key} {(label + i % 2) % len(CLASSES)}")
            tree.keys[part].append(key)
            tree.true[key] = label
    for name, lines in (text | {f"{part}_key_list": found for part, found in tree.keys.items()}).items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return tree


def damage_tree(tree: MadeUpTree) -> dict[str, str]:
    """Does to a tree what a download can suffer.

    Returns:
        The keys of what was harmed: ``broken``, an image cut off; ``lost``, a listed label without its file;
        ``unlabelled``, a listed file without its label; and, in no list and so harmless, ``extra``, a file without
        a label, and ``nowhere``, a label without a file.
    """
    folder, noisy = tree.folder, tree.keys["noisy_train"]
    faults = {
        "broken": noisy[3], "lost": tree.keys["clean_train"][5], "unlabelled": noisy[20],
        "extra": "images/0/00/extra.jpg", "nowhere": "images/9/99/nowhere.jpg",
    }  # fmt: skip
    broken = folder / faults["broken"]
    broken.write_bytes(broken.read_bytes()[:400])
    (folder / faults["lost"]).unlink()
    shutil.copy(folder / tree.keys["clean_val"][0], folder / faults["extra"])
    labels = folder / "noisy_label_kv.txt"
    kept = [line for line in labels.read_text().splitlines() if line.rpartition(" ")[0] != faults["unlabelled"]]
    labels.write_text("\n".join([*kept, f"{faults['nowhere']} 3"]) + "\n")
    return faults
