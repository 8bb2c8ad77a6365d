"""The made-up folder of Clothing1M's layout."""

import numpy as np
import pytest

from emlc_lib.data.clothing1m.example import SIZES, colour, draw, write_tree
from emlc_lib.data.clothing1m.folder import CLASSES, inspect_folder, read_annotations


def test_labels_are_wrong_at_the_rate_and_the_truth_is_known(tmp_path):
    tree = write_tree(tmp_path, SIZES | {"noisy_train": 140}, noise=0.5)
    annotations = read_annotations(tmp_path)
    assert annotations.keys == tree.keys
    assert inspect_folder(tmp_path).usable
    keys = tree.keys["noisy_train"]
    given = np.array([annotations.labels["noisy"][key] for key in keys])
    true = tree.true_labels(tmp_path / key for key in keys)
    assert true.tolist() == [i % 14 for i in range(140)]
    # Of 70 redrawn labels one in 14 is right by luck: 65 wrong ones, with a standard deviation of 2.2.
    assert 0.38 < np.mean(given != true) < 0.5
    assert all(annotations.labels["clean"][key] == tree.true[key] for key in tree.keys["clean_test"])
    again = write_tree(tmp_path / "again", SIZES | {"noisy_train": 140}, noise=0.5)
    assert read_annotations(again.folder).labels == annotations.labels
    other = write_tree(tmp_path / "other", SIZES | {"noisy_train": 140}, noise=0.5, seed=1)
    assert read_annotations(other.folder).labels["noisy"] != annotations.labels["noisy"]


@pytest.mark.parametrize("number", [0, 7, 143])
def test_a_class_is_a_hue(number):
    colours = np.array([colour(label, number) for label in range(len(CLASSES))])
    apart = np.abs(colours[:, None] - colours).max(2) + 255 * np.eye(len(CLASSES), dtype=int)
    assert apart.min() > 30
    for label in (0, 5):
        image = np.asarray(draw(label, number))
        assert tuple(image[80, image.shape[1] // 2]) == colour(label, number)
        assert len(set(image[0, 0].tolist())) == 1  # grey
