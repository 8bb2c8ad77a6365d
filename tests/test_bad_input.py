"""Bad parameters and arrays: one error of one line that names the culprit, before any work."""

import re
from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image
from refusals import Case, refused
from sklearn.exceptions import NotFittedError
from torch.utils.data import Dataset

from benchmarks.label_errors import out_of_fold
from emlc_lib import ConfigError, EMLCClassifier, make_config, prepare
from emlc_lib.data.datasets import is_available, load_dataset
from emlc_lib.estimator.images import InputError
from emlc_lib.experiments.notebook import check_parameters, committed_table
from emlc_lib.experiments.studies import look_ahead, run_study
from emlc_lib.experiments.sweep import grid, sweep
from emlc_lib.networks.pretrain_config import make_pretrain_config
from emlc_lib.networks.simclr import pretrain

NAN = float("nan")


def config(**changes):
    return make_config(**{"dataset": "digits", "device": "cpu"} | changes)


def prepared(**changes):
    return prepare(config(**changes))


def runs(noises=("symmetric:0.9",), methods=("emlc",), ks=(1,), seeds=(0,)):
    return grid(noises, methods, ks, seeds, dataset="digits", preset="smoke", device="cpu")


def notebook(injected="", **values):
    """check_parameters as a notebook calls it, after its parameters cell and papermill's."""
    cells = ["import os", "noise = 0.9  # rate\nseeds = [0]\noptions = {}", f"# Parameters\n{injected}\n", "x = 1"]
    shell = SimpleNamespace(user_ns={"In": cells} | values)
    with patch("emlc_lib.experiments.notebook.get_ipython", lambda: shell):
        check_parameters()


def human(**changes):
    return config(**{"dataset": "cifar10", "preset": "quick", "noise_type": "human"} | changes)


def refuse(name, message, call, error=ConfigError):
    return Case(name, error, message, call)


PARAMETERS = [
    refuse("noise above 1", r"noise: .*less than or equal to 1 \(got 1.7\)", lambda: config(noise=1.7)),
    refuse("noise below 0", r"noise: .*greater than or equal to 0 \(got -0.1\)", lambda: config(noise=-0.1)),
    refuse("noise NaN", r"noise: .*\(got nan\)", lambda: config(noise=NAN)),
    refuse("noise a word", r"noise: .*valid number.*'high'", lambda: config(noise="high")),
    refuse("noise a truth value", r"noise: must not be True or False", lambda: config(noise=True)),
    refuse("dataset", r"dataset: 'cfar10' is not one of digits, .*; did you mean 'cifar10'\?",
           lambda: config(dataset="cfar10")),
    refuse("dataset a list", r"dataset: \['cifar10'\] is not one of digits, ",
           lambda: config(dataset=["cifar10"])),
    refuse("method", r"method: 'emcl' is not one of .*mslc.*; did you mean 'emlc'\?",
           lambda: config(method="emcl")),
    refuse("preset", r"preset: 'quik' is not one of auto, .*; did you mean 'quick'\?",
           lambda: config(preset="quik")),
    refuse("name", r"nosie: unknown parameter; did you mean 'noise'\? Known are: ", lambda: config(nosie=0.9)),
    refuse("k 0", r"k: .*greater than or equal to 1", lambda: config(k=0)),
    refuse("k a truth value", r"k: must not be", lambda: config(k=True)),
    refuse("seed -1", r"seed: .*greater than or equal to 0", lambda: config(seed=-1)),
    refuse("two of them", r"noise: .*; lr: ", lambda: config(noise=1.7, lr=0)),
    refuse("device", r"device: must be auto, cpu, cuda or cuda:N", lambda: config(device="gpu0")),
    refuse("clean batch", r"clean_batch_size: 101 is more than n_clean 100", lambda: config(clean_batch_size=101)),
    refuse("n_clean 0", r"n_clean: .*greater than 0", lambda: config(n_clean=0)),
    refuse("n_clean of no use", r"n_clean: .*give a number", lambda: config(n_clean="all")),
    refuse("n_clean odd", r"n_clean: 105 is not a multiple of the 10", lambda: prepared(n_clean=105)),
    refuse("n_clean large", r"n_clean: class 8 has only 131", lambda: prepared(n_clean=1340)),
    refuse("n_noisy large", r"n_noisy: 1300 is more than the 1247", lambda: prepared(n_noisy=1300)),
    refuse("batch large", r"batch_size: 1248 is more", lambda: prepared(batch_size=1248)),
    refuse("human labels: none", r"human_labels: .*\.npz", human),
    refuse("human labels: empty", r"human_labels: .*\.npz", lambda: human(human_labels="")),
    refuse("human labels: data", r"noise_type: human .*cifar10", lambda: human(dataset="digits")),
    # Before the data set, which may be a long download.
    refuse("noise file: none", r"noise_file: noise_type file needs the path", lambda: config(noise_type="file")),
    refuse("noise file: hash alone", r"noise_sha256: is for noise_type file only",
           lambda: config(noise_sha256="0" * 64)),
    refuse("noise file: empty", r"noise_file: .* no other type has one", lambda: config(noise_file="")),
    refuse("noise file: of another type", r"noise_file: .* no other type has one",
           lambda: config(noise_file="n.npz")),
    refuse("noise file: on disk", r"noise_type: file is for .*, not for clothing1m",
           lambda: config(dataset="clothing1m", preset="smoke", noise_type="file", noise_file="n.npz")),
    refuse("human labels: file", r"human_labels: .*no.npz is not a file",
           lambda: prepare(human(human_labels="no.npz")), FileNotFoundError),
    refuse("noise that is not clothing1m's", r"noise_type: asymmetric is for .*clothing1m, which has real$",
           lambda: make_config(dataset="clothing1m", preset="smoke", device="cpu", noise_type="asymmetric")),
    refuse("start weights", r"start_weights: no.safetensors is not a file",
           lambda: config(start="simclr", start_weights="no.safetensors")),
    refuse("data set by name", r"dataset: 'cifar-10' is not one of digits, .*; did you mean 'cifar10'\?",
           lambda: load_dataset("cifar-10")),
    refuse("pretraining: name", r"batchsize: unknown parameter; did you mean 'batch_size'",
           lambda: make_pretrain_config(dataset="digits", batchsize=8)),
    refuse("pretraining: seed", r"seed: must not be", lambda: make_pretrain_config(dataset="digits", seed=True)),
    refuse("pretraining: batch", r"batch_size: 512 is more than the 100 images",
           lambda: pretrain(make_pretrain_config(dataset="digits", batch_size=512), np.empty((100, 1, 8, 8)))),
    refuse("start weights of a random start", r"start_weights: is for start simclr and imagenet only",
           lambda: config(start="random", start_weights="w.safetensors")),
    refuse("availability by name", "dataset: 'svhn' is not one of", lambda: is_available("svhn")),
    refuse("notebook: name", r"nosie: unknown parameter; did you mean 'noise'", lambda: notebook("nosie = 0.9")),
    refuse("notebook: options", r"options: must be a dictionary", lambda: notebook(options='{"lr": 0.1}')),
    refuse("notebook: table", r"csv: no.csv is neither a file nor a table", lambda: committed_table("no.csv")),
    refuse("seeds a string", r"seeds: must be a list .*'01'", lambda: runs(seeds="01")),
    refuse("seeds a number", r"seeds: must be a list .*\(got 0\)", lambda: run_study({"a": {}}, 0)),
    refuse("seeds empty", r"seeds: must be a list of one or more", lambda: runs(seeds=[])),
    refuse("a seed", r"seed: .*valid integer.*'one'", lambda: runs(seeds=["one"])),
    refuse("noises a string", r"noises: must be a list", lambda: runs(noises="symmetric:0.9")),
    refuse("a noise without rate", r"noise: 'symmetric:' is neither a rate nor of the form",
           lambda: runs(noises=["symmetric:"])),
    refuse("a noise of no kind", r"noise_type: ", lambda: runs(noises=["white:0.5"])),
    refuse("a noise above 1", r"noise: .*less than or equal to 1", lambda: runs(noises=["symmetric:1.7"])),
    refuse("a noise", r"noise: 'loud' is neither a rate nor of the form", lambda: runs(noises=["loud"])),
    refuse("methods a string", r"methods: must be a list", lambda: runs(methods="emlc")),
    refuse("ks a string", r"ks: must be a list", lambda: look_ahead("15", ["paper"])),
    refuse("a k", r"ks: must be positive integers", lambda: look_ahead(["5"], ["paper"])),
    refuse("equal", r"equal: 'steps' is not one of batches, updates",
           lambda: look_ahead([1], ["paper"], equal="steps")),
    refuse("jobs", r"jobs: must be None or a positive integer", lambda: sweep(runs(), jobs=0)),
    refuse("folds", r"folds: must be at least 2", lambda: out_of_fold(None, None, folds=1)),
]  # fmt: skip


# Values that a parameter refuses by itself, besides those that test_bad_commands makes from its type and range,
VALUES = {
    "noise": ([0.1, 0.2],), "noise_type": ("real",), "dataset": (None,), "preset": (None, ["quick"], "paper"),
    "device": ("", "meta", "mps", "cpu:3", "cuda:99"), "lr": (NAN, float("inf")), "weight_decay": (NAN,),
    "start": ("imagenet",), "start_weights": ("w.safetensors",), "resized_copy": (True,),
}  # fmt: skip
CLOTHING = {"dataset": "clothing1m", "preset": "smoke"}
# and those that another one's value rules out.
TOGETHER = [
    ("noise_type", {"dataset": "fashion_mnist", "noise_type": "human", "human_labels": "labels.npz"}),
    ("preset", {"dataset": "fashion_mnist", "preset": "paper"}),
    ("preset", {"dataset": "clothing1m"}),
    ("preset", {"dataset": "clothing1m", "preset": "quick"}),
    ("splits", CLOTHING | {"splits": "released"}),
    ("start", CLOTHING | {"start": "simclr"}),
    ("start_weights", {"model": "resnet50_imagenet", "start": "imagenet", "start_weights": "nowhere.pth"}),
    ("mslc_plain_share", {"method": "mslc", "epochs": 1, "mslc_plain_share": 0.6}),
    ("share_primal", {"share_primal": True, "method": "mlc"}),
]
TOGETHER += [(name, {name: value}) for name, values in VALUES.items() for value in values]
PARAMETERS += [
    refuse(f"{name} of {changes}", f"{name}: ", partial(config, **changes)) for name, changes in TOGETHER
]


def images(n=32, size=8, channels=()):
    return np.random.default_rng(0).integers(0, 256, (n, size, size, *channels), dtype=np.uint8)


X, Y, CX, CY = images(), np.arange(32) % 2, images(8), np.arange(8) % 2
HOLED = np.where(np.arange(64).reshape(8, 8) == 5, NAN, X / 255)


class Pairs(Dataset):
    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def fit(name, message, noisy=(X, Y), clean=(CX, CY), error=InputError, **params):
    return Case(name, error, message, lambda: EMLCClassifier(**params).fit(noisy, clean))


def param(name, message, value):
    return fit(f"{name} {value}"[:40], f"{name}: {message}", error=ConfigError, **{name: value})


ESTIMATOR = [
    fit("pixels NaN", r"noisy: .*\[0, 1\]", (HOLED, Y)),
    fit("pixels NaN, clean", r"clean: .*\[0, 1\]", clean=(HOLED[:8], CY)),
    fit("pixels above 1", r"noisy: .*\[0, 1\]", (X * 1.0, Y)),
    fit("pixels below 0", r"noisy: .*\[0, 1\]", (X / 255 - 1, Y)),
    fit("pixels of 16 bits", r"noisy: .*int16.*uint8", (X.astype(np.int16), Y)),
    fit("pixels no numbers", r"noisy: .*no array of numbers", (X.astype(str), Y)),
    fit("images flat", r"noisy: .*\(32, 64\), not \(n, h, w\)", (X.reshape(32, -1), Y)),
    fit("images of 5 channels", r"noisy: .*5 channels, not 1 or 3", (images(32, 8, (5,)), Y)),
    fit("images of several sizes", r"noisy: .*no array", ([images(1, 8)[0], images(1, 9)[0]] * 16, Y)),
    fit("no images", r"noisy: there are no images", (X[:0], Y[:0])),
    fit("no clean images", r"clean: there are no images", clean=(CX[:0], CY[:0])),
    fit("no pair", r"noisy: needs \(images, labels\)", [X, Y]),
    fit("nothing", r"clean: needs \(images, labels\)", clean=None),
    fit("no labels", r"noisy: there are no labels", (X, None)),
    fit("31 labels", r"noisy: there are 32 images but 31 labels", (X, Y[:31])),
    fit("labels one-hot", r"noisy: labels have shape \(32, 2\), not \(n,\)", (X, np.eye(2)[Y])),
    fit("labels fractions", r"noisy: labels must be strings or integers", (X, Y / 2)),
    fit("labels missing", r"noisy: labels must be strings or integers", (X, [None, "a"] * 16)),
    fit("labels of two types", r"clean: labels are strings, but the classes are integers",
        clean=(CX, ["a", "b"] * 4)),
    fit("label unknown", r"clean: label 2 of 1 is not one of the classes 0, 1", clean=(CX, CY * 2)),
    fit("label not in classes", r"noisy: label 1 of 1 is not one of the classes 0, 2", classes=[0, 2]),
    fit("class missing", r"clean: there is no image of class 1", clean=(CX, CY * 0)),
    fit("one class", r"noisy: there is only one class", (X, Y * 0), (CX, CY * 0)),
    fit("classes twice", r"classes: must be strings or integers, none of them twice", classes=[0, 1, 1]),
    fit("classes fractions", r"classes: must be strings or integers", classes=[0.5, 1]),
    fit("folder missing", r"noisy: nowhere is not a folder", "nowhere"),
    fit("CSV for arrays", r"clean: verified.csv is no folder; a CSV file is only for", clean="verified.csv"),
    fit("data set of no pairs", r"noisy: the data set's items must be \(image, label\)", Pairs(1, 2)),
    fit("classes a number", r"classes: must be strings or integers", classes=2),
    fit("classes one missing", r"classes: must be strings or integers", classes=[0, None]),
    fit("data set of text", r"noisy: .*must be PIL images or arrays, not str", Pairs(("a", 0), ("b", 1))),
    fit("data set of nothing", r"noisy: .*must be PIL images or arrays, not NoneType", Pairs((None, 0))),
    fit("data set of 16 bits", r"noisy: .* more than 8 bits per channel", Pairs((Image.new("I;16", (8, 8)), 0))),
    fit("images without pixels", r"noisy: images have no pixels", (X[:, :0], Y)),
    fit("data set empty", r"noisy: there are no images", Pairs()),
    fit("autoaugment of grey images", r"autoaugment: is for colour images", error=ConfigError, autoaugment=True),
    param("image_size", "must be None or an integer from 4 to 1024", 2),
    param("image_size", "must be None or an integer from 4 to 1024", "8"),
    param("method", "must be one of emlc, emlc_consistent", "mlc"),
    param("method", "must be one of emlc, emlc_consistent", None),
    param("model", "'vgg' is not one of auto, small_cnn, ", "vgg"),
    param("start", "nowhere is not a file", "nowhere"),
    param("start", "'published' is not for", "published"),
    param("epochs", ".*greater than 0", 0),
    param("epochs", ".*valid integer", "ten"),
    param("patience", "must be an integer from 1", 0),
    param("patience", "must be an integer from 1", True),
    param("pretrain_epochs", "must be an integer from 1", None),
    param("pretrain_epochs", "must be an integer from 1 to 10,000", 99_999),
    param("flip", "must be True or False", "no"),
    param("verbose", "must be True or False", 1),
    param("batch_size", "33 is more than the 32 noisy images", 33),
    param("batch_size", ".*greater than 1", 1),
    param("clean_batch_size", "9 is more than", 9),
    param("lr", ".*greater than 0", 0),
    param("lr", "must not be None", None),
    param("teacher_lr", r".*\(got nan\)", NAN),
    param("k", ".*greater than or equal to 1", 0),
    param("start_steps", ".*greater than or equal to 0", -1),
    param("seed", "must not be", True),
    param("seed", "must not be None", None),
    param("device", "must be auto, cpu, cuda or cuda:N", "tpu"),
    param("options", "method is set by the estimator", {"method": "mlc"}),
    param("options", "must be a dictionary", "lr"),
    param("options", "must be a dictionary", ["lr"]),
    param("options", "must be a dictionary", {3: 1}),
    param("options", "splits is set by the estimator, or says nothing of images", {"splits": "released"}),
    param("options", "noise_type is set by the estimator, or says nothing of", {"noise_type": "asymmetric"}),
    param("checkpoint", "must be a path", 3),
    fit("option unknown", r"wieght_decay: unknown parameter; did you mean 'weight_decay'", error=ConfigError,
        options={"wieght_decay": 0.1}),
    fit("option out of range", r"momentum: .*less than 1", error=ConfigError, options={"momentum": 1}),
    Case("predict before fit", NotFittedError, "This EMLCClassifier", lambda: EMLCClassifier().predict(X)),
    Case("predict_proba before fit", NotFittedError, "This EMLCCl", lambda: EMLCClassifier().predict_proba(X)),
    Case("correct before fit", NotFittedError, "This EMLCClassifier", lambda: EMLCClassifier().correct_labels()),
    Case("save before fit", NotFittedError, "This EMLCClassifier", lambda: EMLCClassifier().save("e.safetensors")),
]  # fmt: skip


@pytest.mark.parametrize("case", PARAMETERS + ESTIMATOR, ids=lambda case: case.name)
def test_one_error_before_any_work(case, here):
    error, changed = refused(case.call, here)
    assert type(error) is case.error, error
    assert re.match(case.message, str(error)), error
    assert len(str(error).splitlines()) == 1
    assert not changed
