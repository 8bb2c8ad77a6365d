"""A data set is one object: one that this project does not know is trained, stored, read back and tabulated."""

import dataclasses

import numpy as np
import pytest
import torch

from emlc_lib import (
    ConfigError,
    DatasetSpec,
    DataUnavailable,
    ImageSet,
    find_runs,
    load_dataset,
    make_config,
    prepare,
    run,
)  # fmt: skip
from emlc_lib.data.spec import DATASETS, Constants, Recipe, ViewRecipe
from emlc_lib.experiments.pretraining import provide
from emlc_lib.experiments.tables import accuracy_table
from emlc_lib.networks.pretrain_config import DEFAULTS, make_pretrain_config

SHORT = {"method": "cross_entropy", "device": "cpu", "epochs": 1, "n_clean": 30, "clean_batch_size": 15}


def load(root, download):
    """Three classes of stripes: of other brightness, so that they are learned at once."""
    rng = np.random.default_rng(0)
    labels = np.arange(330) % 3
    images = rng.integers(0, 60, (330, 1, 8, 8)) + 90 * labels[:, None, None, None]
    images = torch.from_numpy(images.astype(np.uint8))
    return ImageSet("stripes", ["dark", "grey", "light"], images[:300], labels[:300], images[300:], labels[300:])


STRIPES = dict(
    name="stripes",
    constants=Constants((0.5,), (0.3,)),
    recipe=Recipe(1, True, True, None),
    views=ViewRecipe(0.6, True, 0.4, 0.0, 0.0),
    load=load,
    look_alikes={"grey": "light"},
    presets={"smoke": {"start_steps": 20}},
    models=("small_cnn", "small_cnn"),
)


@pytest.fixture
def stripes():
    yield DatasetSpec(**STRIPES).register()
    del DATASETS["stripes"]


def test_a_new_data_set_is_one_object(stripes, tmp_path):
    config = make_config(dataset="stripes", noise=0.2, **SHORT)
    assert (config.preset, config.start_steps) == ("smoke", 20)
    made = run(config, root=tmp_path, show=False)
    assert made.result["test_accuracy"] > 0.9
    (read,) = find_runs(tmp_path, dataset="stripes")
    assert (read.config, read.result) == (config, made.result)
    assert accuracy_table([read])[["dataset", "n"]].to_numpy().tolist() == [["stripes", 1]]
    assert "-p dataset stripes" in made.result["command"]


def test_everything_of_it_is_used(stripes, tmp_path, monkeypatch):
    data = prepare(make_config(dataset="stripes", noise_type="asymmetric", noise=1.0, **SHORT))
    assert data.recipe == stripes.recipe
    assert (data.mean.item(), data.std.item()) == pytest.approx((0.5, 0.3))
    assert data.noisy_labels.tolist() == [[0, 2, 2][label] for label in data.true_labels]
    monkeypatch.setitem(DEFAULTS, "small_cnn", DEFAULTS["small_cnn"] | {"epochs": 1, "precision": "float32"})
    assert make_pretrain_config(dataset="stripes").model == "small_cnn"
    file = provide("stripes", "small_cnn", "cpu", folder=tmp_path, show=False)
    assert make_config(dataset="stripes", start="simclr", start_weights=str(file), **SHORT).start == "simclr"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "paper"}, r"^preset: 'paper' is not one of auto, smoke for stripes$"),
        ({"noise_type": "real"}, r"^noise_type: real is for clothing1m, not for stripes, which has symmetric, "),
        ({"dataset": "stripe"}, r"^dataset: 'stripe' is not one of digits, .*; did you mean 'stripes'\?$"),
        ({"resized_copy": True}, r"^resized_copy: is for images on disk, and stripes is in memory$"),
    ],
)
def test_what_it_does_not_have_is_refused(stripes, changes, message):
    with pytest.raises(ConfigError, match=message):
        make_config(**{"dataset": "stripes"} | changes, **SHORT)


def test_without_look_alikes_asymmetric_noise_is_random(monkeypatch):
    monkeypatch.setitem(DATASETS, "stripes", DatasetSpec(**STRIPES | {"look_alikes": None}))
    asked = {"dataset": "stripes", "noise_type": "asymmetric"} | SHORT
    with pytest.raises(ConfigError, match=r"^asymmetric_map: stripes has no map of similar classes; take random$"):
        make_config(**asked)
    assert prepare(make_config(**asked, asymmetric_map="random", noise=0.5)).corruption.wrong.any()


def test_look_alikes_are_classes(monkeypatch):
    asked = {"dataset": "stripes", "noise_type": "asymmetric"} | SHORT
    for wrong in ({"gray": "light"}, {"grey": "bright"}):
        monkeypatch.setitem(DATASETS, "stripes", DatasetSpec(**STRIPES | {"look_alikes": wrong}))
        with pytest.raises(ConfigError, match=r"^look_alikes: '(gray|bright)' is no class of stripes: dark, "):
            prepare(make_config(**asked))


def test_a_data_set_without_test_images_is_refused(monkeypatch):
    def untested(root, download):
        images = load(root, download)
        return dataclasses.replace(images, test_images=images.test_images[:0], test_labels=images.test_labels[:0])

    monkeypatch.setitem(DATASETS, "stripes", DatasetSpec(**STRIPES | {"load": untested}))
    with pytest.raises(DataUnavailable, match=r"^dataset: stripes is damaged: 0 test images and 0 labels$"):
        prepare(make_config(dataset="stripes", **SHORT))


def test_what_cannot_be_registered():
    for changes, message in (
        ({"name": "digits"}, "^name: there is a data set digits already"),
        ({"name": "own"}, "^name: there is a data set own already"),
        ({"load": None}, "^load: stripes needs either load or prepare"),
        ({"presets": {}}, "^load: stripes needs .* a preset"),
    ):
        with pytest.raises(ConfigError, match=message):
            DatasetSpec(**STRIPES | changes).register()
    assert "stripes" not in DATASETS


def test_images_and_labels_must_be_equally_many(monkeypatch):
    whole = load(None, False)
    broken = dataclasses.replace(whole, train_labels=whole.train_labels[:9])
    monkeypatch.setitem(DATASETS, "stripes", DatasetSpec(**STRIPES | {"load": lambda *_: broken}))
    with pytest.raises(DataUnavailable, match=r"^dataset: stripes is damaged: 300 train images and 9 labels"):
        load_dataset("stripes")
