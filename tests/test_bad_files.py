"""Damaged, foreign and missing files: one error of one line that names the culprit; images that must be read."""

import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import Case, refused

from benchmarks.label_errors import out_of_fold
from emlc_lib import ConfigError, EMLCClassifier, make_config, prepare
from emlc_lib.data.datasets import ImageSet, load_dataset
from emlc_lib.data.images import DiskImages
from emlc_lib.data.noise_file import as_noise_file, write_noise_file
from emlc_lib.estimator.images import InputError, read_folder
from emlc_lib.experiments.notebook import committed_table
from emlc_lib.experiments.runs import find_runs, load_run, run
from emlc_lib.networks.backbones import build_classifier
from emlc_lib.runtime.checkpoint import (
    CheckpointError,
    load_weights,
    read_checkpoint,
    read_own_checkpoint,
    save_checkpoint,
    save_weights,
)
from emlc_lib.runtime.parameters import DataUnavailable

CIFAR10 = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]
TRUE = np.arange(200) % 10


class Harmful:
    """Unpickling it leaves a file behind, which the test would see."""

    def __reduce__(self):
        return (Path.touch, (Path("unpickled"),))


def written(path, content):
    def write():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content)

    return write


def cifar(name, message, files):
    return Case(name, DataUnavailable, f"dataset: cifar10 .*{message}",
                lambda: load_dataset("cifar10", download=False), files)  # fmt: skip


def cifar_of(content, names=CIFAR10):
    def write():
        for name in names:
            written(f"cifar-10-batches-py/{name}", content)()

    return write


def made_up():
    x = torch.zeros(200, 3, 32, 32, dtype=torch.uint8)
    return ImageSet("cifar10", list("abcdefghij"), x, TRUE, x[:5], TRUE[:5])


def human(name, message, files, error=ConfigError):
    """Human labels for a CIFAR-10 of 200 images that is made up here."""

    def call():
        sizes = {"n_clean": 20, "n_noisy": 90, "batch_size": 16, "clean_batch_size": 8}
        noise = {"noise_type": "human", "human_labels": "h.npz"}
        prepare(make_config(dataset="cifar10", preset="quick", device="cpu", **sizes, **noise), made_up())

    return Case(f"human labels {name}", error, message, call, files)


def columns(**arrays):
    return lambda: np.savez("h.npz", **arrays)


def noise(name, message, files, error=ConfigError):
    """A noise file for the same images; 90 noisy and 20 clean ones."""

    def call():
        sizes = {"batch_size": 16, "clean_batch_size": 8}
        config = {"dataset": "cifar10", "preset": "quick", "device": "cpu", "noise_type": "file"}
        prepare(make_config(**config, **sizes, noise_file="n.npz"), made_up())

    return Case(f"noise file {name}", error, message, call, files)


def arrays(**changes):
    values = {"noisy": np.arange(90), "labels": TRUE[:90], "true_labels": TRUE[:90]}
    values |= {"clean": np.arange(180, 200), "clean_labels": TRUE[180:]} | changes
    return lambda: np.savez("n.npz", **{name: value for name, value in values.items() if value is not None})


def raw_member():
    arrays(labels=None)()
    with zipfile.ZipFile("n.npz", "a") as archive:
        archive.writestr("labels", b"no array")


def damaged_noise():
    values = {name: np.arange(90) for name in ("noisy", "labels", "true_labels", "clean", "clean_labels")}
    np.savez_compressed("n.npz", **values)
    content = bytearray(Path("n.npz").read_bytes())
    content[60:90] = b"\xff" * 30
    Path("n.npz").write_bytes(content)


def damaged_columns(damage):
    def write():
        np.savez("h.npz", worse_label=TRUE)
        Path("h.npz").write_bytes(damage(Path("h.npz").read_bytes()))

    return write


def one_array():
    with open("h.npz", "wb") as file:
        np.save(file, TRUE)


DATA = [
    cifar("CIFAR missing", r"Put its files into .*cifar-10-batches-py .*EMLC_DATA", lambda: None),
    cifar("CIFAR folder empty", r"Put its files into", lambda: Path("cifar-10-batches-py").mkdir()),
    cifar("CIFAR truncated", r"data_batch_3 has another MD5 sum", cifar_of(pickle.dumps({"data": 0})[:-3])),
    cifar("CIFAR of another MD5", r"batches.meta has another MD5 sum", cifar_of(pickle.dumps(Harmful()))),
    cifar("CIFAR without a file", r"test_batch is not there", cifar_of(b"", CIFAR10[:5])),
    Case("Fashion-MNIST of an old torchvision", DataUnavailable, "dataset: fashion_mnist is missing",
         lambda: load_dataset("fashion_mnist", download=False),
         lambda: [written(f"FashionMNIST/processed/{part}.pt", pickle.dumps(Harmful()))() for part in
                  ("training", "test")]),
    Case("Clothing1M missing", DataUnavailable, r"dataset: Clothing1M in .*noisy_train_key_list.txt.*on request",
         lambda: prepare(make_config(dataset="clothing1m", preset="smoke", device="cpu"))),
    human("missing", r"human_labels: .*h.npz is not a file", lambda: None, FileNotFoundError),
    human("of another key", r"human_key: 'worse_label' is not in h.npz; it holds worst_label",
          columns(worst_label=TRUE)),
    human("of fractions", r"human_labels: worse_label of h.npz holds float64", columns(worse_label=TRUE / 2)),
    human("too few", r"human_labels: 9 labels for 200 training images", columns(worse_label=TRUE[:9])),
    human("above the classes", r"human_labels: must lie in \[0, 10\)", columns(worse_label=TRUE + 1)),
    human("below the classes", r"human_labels: must lie in \[0, 10\)", columns(worse_label=TRUE - 1)),
    human("of objects", r"human_labels: .*h.npz is not a readable .npz",
          columns(worse_label=np.array([Harmful()] * 200))),
    human("a pickle", r"human_labels: .*h.npz is not a readable .npz", written("h.npz", pickle.dumps(Harmful()))),
    human("no archive", r"human_labels: .*h.npz is not a readable .npz", written("h.npz", b"junk")),
    human("empty", r"human_labels: .*h.npz is not a readable .npz", written("h.npz", b"")),
    human("one array", r"human_labels: .*h.npz is not a readable .npz", one_array),
    human("truncated", r"human_labels: .*h.npz is not a readable .npz", damaged_columns(lambda b: b[:200])),
    # Inside the array: the archive's directory is whole.
    human("damaged", r"human_labels: ", damaged_columns(lambda b: b[:900] + b"\xff" + b[901:])),
    human("of words", r"human_labels: worse_label of h.npz holds <U", columns(worse_label=TRUE.astype(str))),
    noise("missing", r"noise_file: .*n.npz is not a file", lambda: None, FileNotFoundError),
    noise("no archive", r"noise_file: .*n.npz is not a readable .npz", written("n.npz", b"junk")),
    noise("a pickle", r"noise_file: .*n.npz is not a readable .npz", written("n.npz", pickle.dumps(Harmful()))),
    noise("of objects", r"noise_file: .*n.npz is not a readable .npz", arrays(labels=np.array([Harmful()] * 90))),
    noise("without labels", r"noise_file: .*n.npz has no array 'labels'; it needs noisy, labels, true_labels,",
          arrays(labels=None)),
    noise("of fractions", r"noise_file: .*n.npz: labels has float64 values", arrays(labels=TRUE[:90] / 2)),
    noise("of words", r"noise_file: .*n.npz: labels has <U\d+ values", arrays(labels=TRUE[:90].astype(str))),
    noise("too few", r"noise_file: .*n.npz: labels has 89 values, noisy 90", arrays(labels=TRUE[:89])),
    noise("empty", r"noise_file: .*n.npz: noisy has int64 values of shape \(0,\)", arrays(noisy=TRUE[:0])),
    noise("of two axes", r"noise_file: .*n.npz: clean has int64 values of shape \(2, 10\)",
          arrays(clean=np.arange(180, 200).reshape(2, 10))),
    noise("above the classes", r"noise_file: labels must lie in \[0, 10\)", arrays(labels=TRUE[:90] + 1)),
    noise("below the classes", r"noise_file: .*n.npz: labels has negative values", arrays(labels=TRUE[:90] - 1)),
    noise("above the images", r"noise_file: has indices beyond the 200 training images of cifar10",
          arrays(noisy=np.arange(150, 240), clean=np.arange(20), clean_labels=TRUE[:20])),
    noise("twice", r"noise_file: .*n.npz: an image is in noisy or clean twice", arrays(noisy=np.arange(90) // 2)),
    noise("in both", r"noise_file: .*n.npz: an image is in .*or in both",
          arrays(clean=np.arange(80, 100), clean_labels=TRUE[80:100])),
    noise("of other true labels", r"noise_file: its true_labels are not those of the training images",
          arrays(true_labels=(TRUE[:90] + 1) % 10)),
    noise("of other clean labels", r"noise_file: its clean_labels are not those of the training images",
          arrays(clean_labels=(TRUE[180:] + 1) % 10)),
    noise("of another data set", r"noise_file: is of cifar100, not of cifar10", arrays(dataset="cifar100")),
    noise("of another hash", r"noise_file: .*n.npz: it holds something else than what its SHA-256 0000",
          arrays(sha256="0" * 64)),
    noise("of a smaller matrix", r"noise_file: .*n.npz: transition_matrix has float64 values of shape \(3, 3\)",
          arrays(transition_matrix=np.eye(3))),
    noise("of a larger matrix", r"noise_file: transition_matrix is of 11 classes, cifar10 has 10",
          arrays(transition_matrix=np.eye(11))),
    noise("of a number for a matrix", r"noise_file: .*n.npz: transition_matrix has float64 values of shape \(\)",
          arrays(transition_matrix=np.float64(1))),
    noise("of counts for a matrix", r"noise_file: .*n.npz: transition_matrix has rows that are no shares",
          arrays(transition_matrix=2 * np.eye(10))),
    noise("of a matrix that is none", r"noise_file: .*n.npz: transition_matrix has rows that are no shares",
          arrays(transition_matrix=np.full((10, 10), np.nan))),
    noise("with a member that is no array", r"noise_file: .* is not a readable .npz archive \(labels is no",
          raw_member),
    noise("damaged", r"noise_file: .*n.npz is not a readable .npz", damaged_noise),
    noise("with a small clean set", r"clean_batch_size: 8 is more than the 4 clean samples",
          arrays(clean=np.arange(180, 184), clean_labels=TRUE[180:184])),
    Case("noise file of another hash than asked for", ConfigError, r"noise_sha256: .*n.npz has another, \w{64}",
         lambda: make_config(dataset="digits", device="cpu", noise_type="file", noise_file="n.npz",
                             noise_sha256="0" * 64), arrays()),
    Case("noise file of a set that overlaps", ConfigError, r"splits: clean images are in the noisy set",
         lambda: write_noise_file(as_noise_file(prepare(RELEASED), "digits"), Path("o.npz"))),
    Case("folds no archive", ConfigError, r"file: f.npz is not a readable .npz",
         lambda: out_of_fold(SMALL, prepare(SMALL), folds=2, file=Path("f.npz")), written("f.npz", b"junk")),
    Case("folds of another run", ConfigError, r"file: f.npz is of another configuration",
         lambda: out_of_fold(SMALL, prepare(SMALL), folds=2, file=Path("f.npz")),
         lambda: np.savez("f.npz", config="another")),
    Case("table empty", ConfigError, r"csv: t.csv cannot be read as CSV .No columns",
         lambda: committed_table("t.csv"), written("t.csv", b"")),
]  # fmt: skip
SMALL = make_config(dataset="digits", device="cpu")
RELEASED = make_config(dataset="digits", device="cpu", splits="released")


def png(size=(32, 32), mode="RGB", path="images/a/x.png"):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)


def truncated(path="images/a/x.png"):
    png(path=path)
    Path(path).write_bytes(Path(path).read_bytes()[:200])


def image(name, message, files):
    return Case(f"image {name}", InputError, f"noisy: .*x.png {message}",
                lambda: read_folder("images").pixels(8, 3), files)  # fmt: skip


IMAGES = [
    image("truncated", "cannot be read as an image", truncated),
    image("a text", "cannot be read as an image", written("images/a/x.png", b"hello")),
    image("empty", "cannot be read as an image", written("images/a/x.png", b"")),
    image("a folder", "cannot be read as an image", lambda: Path("images/a/x.png").mkdir(parents=True)),
    image("of 16 bits", "has more than 8 bits per channel; convert it first", lambda: png(mode="I;16")),
    Case("image of Clothing1M truncated", InputError, "dataset: x.jpg cannot be read as an image",
         lambda: DiskImages(["x.jpg"], side=8, resize=10)[torch.tensor([0])], lambda: truncated("x.jpg")),
    Case("image of Clothing1M missing", InputError, "dataset: x.jpg cannot be read as an image",
         lambda: DiskImages(["x.jpg"], side=8, resize=10)[torch.tensor([0])]),
]  # fmt: skip


def network():
    return build_classifier("small_cnn", 10, 1, torch.Generator())


def saved(model=None, dataset=None, keep=None):
    """Weights that are said to be of a model and a data set; ``keep`` is how many bytes stay."""
    metadata = {"model": model, "dataset": dataset} if model else None
    save_weights(network().features, "w.safetensors", metadata=metadata)
    Path("w.safetensors").write_bytes(Path("w.safetensors").read_bytes()[:keep])


def checkpoint(keep=None):
    save_checkpoint(Path("c.safetensors"), {"student": network()}, {}, {}, {"config": {"seed": 0}})
    Path("c.safetensors").write_bytes(Path("c.safetensors").read_bytes()[:keep])


def weights(name, message, files, error=ConfigError):
    return Case(f"weights {name}", error, f"start_weights: w.safetensors {message}",
                lambda: make_config(dataset="digits", device="cpu", start="simclr", start_weights="w.safetensors"),
                files)  # fmt: skip


def pickled(path):
    return lambda: torch.save({"weight": Harmful()}, path)


def estimator(start):
    x, y = np.zeros((8, 32, 32, 3), np.uint8), np.arange(8) % 2
    return EMLCClassifier(model="resnet_narrow", start=start).fit((x, y), (x, y))


def result(text, complete=False):
    def write_run():
        Path("run").mkdir()
        Path("run/result.json").write_text(text)
        for name in ("epochs.csv", "steps.csv") * complete:
            Path("run", name).write_text("epoch\n1\n")

    return write_run


WEIGHTS = [
    weights("missing", "is not a file", lambda: None),
    weights("of another model", "is for model resnet34, not small_cnn", lambda: saved("resnet34", "digits")),
    weights("of other data", "is for dataset cifar10, not digits", lambda: saved("small_cnn", "cifar10")),
    weights("of nobody knows what", "is for model None, not small_cnn", saved),
    weights("truncated", "is damaged or no safetensors file", lambda: saved(keep=-50)),
    weights("without the end of the header", "is damaged or no safetensors file", lambda: saved(keep=50)),
    weights("a pickle", "is damaged or no safetensors file", pickled("w.safetensors")),
    Case("weights of ImageNet a pickle", ConfigError, r"start_weights: w.pth must be a .safetensors file or torch",
         lambda: make_config(dataset="clothing1m", preset="paper", device="cpu", start_weights="w.pth"),
         pickled("w.pth")),
    Case("weights of features only", ConfigError, r"weights: w.safetensors does not fit this model: miss",
         lambda: load_weights(network(), "w.safetensors"), saved),
    Case("weights missing when loaded", FileNotFoundError, r"weights: w.safetensors is not a file",
         lambda: load_weights(network(), "w.safetensors")),
    Case("estimator's start a pickle", ConfigError, r"start: w.pth is damaged or no safetensors file",
         lambda: estimator("w.pth"), pickled("w.pth")),
    Case("estimator's start of another model", ConfigError, r"start: w.safetensors is for model small_cnn, not",
         lambda: estimator("w.safetensors"), lambda: saved("small_cnn", "cifar10")),
    Case("estimator missing", FileNotFoundError, r".*w.safetensors", lambda: EMLCClassifier.load("w.safetensors")),
    Case("estimator a pickle", CheckpointError, r"w.safetensors is damaged or no checkpoint",
         lambda: EMLCClassifier.load("w.safetensors"), pickled("w.safetensors")),
    Case("estimator mere weights", CheckpointError, r"w.safetensors is damaged or no checkpoint",
         lambda: EMLCClassifier.load("w.safetensors"), saved),
    Case("estimator of a run", CheckpointError, r"c.safetensors was not written by EMLCClassifier.save",
         lambda: EMLCClassifier.load("c.safetensors"), checkpoint),
    Case("checkpoint truncated", CheckpointError, r"c.safetensors is damaged or no checkpoint",
         lambda: read_checkpoint(Path("c.safetensors")), lambda: checkpoint(keep=-1)),
    Case("checkpoint of another run", CheckpointError, r"c.safetensors belongs to another .* differs in seed",
         lambda: read_own_checkpoint(Path("c.safetensors"), {"seed": 1}), checkpoint),
    Case("checkpoint a folder", FileNotFoundError, r"c is not a file", lambda: read_checkpoint(Path("c")),
         lambda: Path("c").mkdir()),
    Case("run missing", FileNotFoundError, r".*result.json", lambda: load_run(Path("run"))),
    Case("run of data that are refused", ConfigError, r"n_clean: ",
         lambda: run(make_config(dataset="digits", device="cpu", n_clean=105), root="runs", show=False)),
    Case("run truncated", CheckpointError, r"run holds a run that cannot be read .*; delete it",
         lambda: load_run(Path("run")), result('{"config": {"data')),
    Case("run of another version", CheckpointError, r"run holds a run that cannot be read .*delete it",
         lambda: load_run(Path("run")), result('{"config": {"dataset": "digits", "colour": 1}}', complete=True)),
    Case("run without its log", UserWarning, r"run holds a run that cannot be read .*epochs.csv",
         lambda: find_runs("."), result("{}")),
]  # fmt: skip


@pytest.mark.parametrize("case", DATA + IMAGES + WEIGHTS, ids=lambda case: case.name)
def test_one_error_before_any_work(case, here):
    case.files()
    error, changed = refused(case.call, here)
    assert type(error) is case.error, error
    assert re.match(case.message, str(error)), error
    assert len(str(error).splitlines()) == 1
    assert not changed  # nothing was unpickled either


# An image of one colour, as it is stored, and the colour that is read, in RGB.
READABLE = [
    ("grey", "L", 100, "png", (100, 100, 100)),
    ("black and white", "1", 1, "png", (255, 255, 255)),
    ("grey and transparent", "LA", (100, 0), "png", (100, 100, 100)),
    ("transparent", "RGBA", (10, 20, 30, 0), "png", (10, 20, 30)),
    ("CMYK", "CMYK", (255, 0, 0, 0), "tif", (0, 255, 255)),
    ("YCbCr", "YCbCr", (100, 128, 128), "tif", (100, 100, 100)),
    ("GIF", "L", 100, "gif", (100, 100, 100)),
    ("capital ending", "RGB", (10, 20, 30), "PNG", (10, 20, 30)),
]


@pytest.mark.parametrize(
    ("mode", "stored", "ending", "expected"), [r[1:] for r in READABLE], ids=[r[0] for r in READABLE]
)
@pytest.mark.parametrize("size", [(1, 1), (5, 1), (7, 9)])
def test_images_of_any_kind_and_size_are_read(here, mode, stored, ending, expected, size):
    Path("images/a").mkdir(parents=True)
    Image.new(mode, size, stored).save(f"images/a/x.{ending}")
    pixels = read_folder("images").pixels(4, 3)
    assert pixels.shape == (1, 3, 4, 4)
    assert (pixels == torch.tensor(expected)[:, None, None]).all()


@pytest.mark.filterwarnings(
    "ignore:the gate stayed", "ignore:no label was changed", "ignore:noisy. images that are in"
)
@pytest.mark.parametrize("size", [1, 3])
def test_images_of_few_pixels_can_be_learnt_from(size):
    x = np.random.default_rng(0).integers(0, 256, (16, size, size), dtype=np.uint8)
    y = np.arange(16) % 2
    estimator = EMLCClassifier(epochs=1, start_steps=1, batch_size=8).fit((x[4:], y[4:]), (x[:4], y[:4]))
    assert estimator.image_size_ == size
    assert np.isfinite(estimator.predict_proba(x)).all()
