"""An example folder of images with partly wrong labels: scikit-learn's digits as files."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd
from PIL import Image

from ..core.noise import symmetric_noise
from ..data.datasets import load_dataset
from ..data.splits import split_clean_noisy
from ..runtime.randomness import Stream, numpy_generator


class Example(NamedTuple):
    """What :func:`write_example` wrote.

    Attributes:
        images: the folder, with a subfolder per class.
        verified: the CSV file of path,label, with true labels.
        truth: every path's true label, indexed by path; from a user's folder nobody knows it.
    """

    images: Path
    verified: Path
    truth: pd.Series


def write_example(folder: str | Path, *, seed: int = 0, images: int | None = None) -> Example:
    """Writes digits of 8 x 8 pixels as PNG files into a subfolder per class, and a CSV file of verified ones.

    The folder of 30 % of the files is drawn at random from all ten, so that nine in ten of these are in a wrong
    one. Ten files of each class are verified.

    Args:
        folder: where ``images/`` and ``verified.csv`` go; made if it is not there.
        seed: of the choices.
        images: how many files that are not verified; None takes all 1,247.

    Raises:
        ValueError: there are not so many.
    """
    digits, root = load_dataset("digits"), Path(folder) / "images"
    true, names = digits.train_labels, digits.classes
    split = split_clean_noisy(true, len(names), 100, images, numpy_generator(seed, Stream.SPLIT))
    given = symmetric_noise(true, len(names), 0.3, numpy_generator(seed, Stream.NOISE)).noisy
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
    paths = {i: f"{names[given[i]]}/{i:04}.png" for i in sorted([*split.clean, *split.noisy])}
    for i, path in paths.items():
        Image.fromarray(digits.train_images[i, 0].numpy()).save(root / path)
    table = pd.DataFrame({"path": paths, "label": {i: names[true[i]] for i in paths}})
    file = root.parent / "verified.csv"
    table.loc[split.clean].to_csv(file, index=False)
    return Example(root, file, table.set_index("path")["label"])
