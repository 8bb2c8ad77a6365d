"""Data sets, splits and prepared experiments against scikit-learn, hand-made files and plain indexing.

Nothing here touches the network: what downloads is replaced by a stand-in.
"""

import dataclasses
import gzip
import pickle
import struct
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from emlc_lib.core.noise import symmetric_noise
from emlc_lib.data.datasets import DATASETS, ImageSet, _of_torchvision, is_available, load_dataset
from emlc_lib.data.prepare import prepare
from emlc_lib.data.splits import split_clean_noisy
from emlc_lib.runtime.parameters import DataUnavailable
from emlc_lib.runtime.places import data_root
from emlc_lib.runtime.randomness import Stream, numpy_generator
from emlc_lib.training.presets import make_config


def rng(seed=0):
    return np.random.default_rng(seed)


def labels_of(counts, seed=1):
    """Shuffled labels with the given number of samples of each class."""
    return rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="module")
def cifar10():
    return load_dataset("cifar10", download=False)


class TestSplit:
    @pytest.mark.parametrize("n_noisy", [None, 1, 37, 90])
    def test_disjoint_balanced_sorted_and_of_the_size_asked_for(self, n_noisy):
        labels = labels_of([20, 30, 10, 40])
        split = split_clean_noisy(labels, 4, 8, n_noisy, rng())
        assert np.bincount(labels[split.clean], minlength=4).tolist() == [2, 2, 2, 2]
        assert len(split.noisy) == (n_noisy or 92)
        together = np.concatenate([split.clean, split.noisy])
        assert len(set(together.tolist())) == len(together)
        assert together.min() >= 0
        assert together.max() < len(labels)
        for part in (split.clean, split.noisy):
            assert part.tolist() == sorted(part)

    def test_a_function_of_the_generator(self):
        labels = labels_of([50] * 4)
        first, again, other = (split_clean_noisy(labels, 4, 40, 60, rng(s)) for s in (0, 0, 1))
        assert np.array_equal(first.clean, again.clean)
        assert np.array_equal(first.noisy, again.noisy)
        assert not np.array_equal(first.clean, other.clean)
        assert not np.array_equal(first.noisy, other.noisy)

    def test_every_sample_is_as_likely_to_be_clean(self):
        """One of five samples of each class over 600 seeds; five sigma of the binomial count, fixed seeds."""
        labels = labels_of([5, 5, 5])
        seeds = 600
        counts = np.zeros(15)
        for seed in range(seeds):
            counts[split_clean_noisy(labels, 3, 3, None, rng(seed)).clean] += 1
        assert (np.abs(counts / seeds - 0.2) <= 5 * np.sqrt(0.2 * 0.8 / seeds)).all()

    def test_a_smaller_noisy_set_is_drawn_at_random(self):
        """Half of the rest over 600 seeds; a slice of sorted samples would always take the same ones."""
        labels = labels_of([10, 10])
        seeds, rest = 600, np.zeros(20)
        for seed in range(seeds):
            rest[split_clean_noisy(labels, 2, 10, 5, rng(seed)).noisy] += 1
        assert (np.abs(rest / seeds - 0.25) <= 5 * np.sqrt(0.25 * 0.75 / seeds)).all()

    def test_the_clean_set_does_not_depend_on_n_noisy(self):
        labels = labels_of([50] * 4)
        first, second = (split_clean_noisy(labels, 4, 40, n, rng()) for n in (60, None))
        assert np.array_equal(first.clean, second.clean)
        assert set(first.noisy) < set(second.noisy)

    @pytest.mark.parametrize(
        ("n_clean", "n_noisy", "message"),
        [
            (10, None, r"^n_clean: 10 is not a multiple of the 4 classes"),
            (24, None, r"^n_clean: class 2 has only 5 of 6 samples"),
            (12, 99, r"^n_noisy: 99 is more than the 18 samples that are not clean"),
        ],
    )
    def test_impossible_sizes(self, n_clean, n_noisy, message):
        with pytest.raises(ValueError, match=message):
            split_clean_noisy(labels_of([10, 8, 5, 7]), 4, n_clean, n_noisy, rng())

    def test_nothing_left_for_the_noisy_set(self):
        with pytest.raises(ValueError, match=r"^n_clean: 20 leaves no sample"):
            split_clean_noisy(labels_of([5] * 4), 4, 20, None, rng())


class TestDigits:
    def test_shapes_and_types(self, digits):
        assert digits.name == "digits"
        assert digits.classes == list("0123456789")
        assert digits.train_images.shape == (1347, 1, 8, 8)
        assert digits.test_images.shape == (450, 1, 8, 8)
        assert digits.train_images.dtype == digits.test_images.dtype == torch.uint8
        assert digits.train_labels.shape == (1347,)
        assert digits.test_labels.shape == (450,)
        assert digits.train_labels.dtype == digits.test_labels.dtype == np.int64

    def test_every_sample_of_scikit_learn_once_with_its_label(self, digits):
        """Its 1,797 images are all different, so their bytes identify them; 16 grey levels become 0..255."""
        original = load_digits()
        label = {
            image.astype(np.uint8).tobytes(): y for image, y in zip(original.images, original.target, strict=True)
        }
        assert len(label) == 1797
        seen = []
        for images, labels in (
            (digits.train_images, digits.train_labels),
            (digits.test_images, digits.test_labels),
        ):
            levels = images.numpy()[:, 0] * (16 / 255)
            # Rounding to 255ths moves a level by at most half of 16 / 255.
            assert np.abs(levels - levels.round()).max() <= 0.5 * 16 / 255
            keys = [image.tobytes() for image in levels.round().astype(np.uint8)]
            assert [label[key] for key in keys] == labels.tolist()
            seen += keys
        assert set(seen) == set(label)
        assert len(seen) == len(label)

    def test_test_set_is_stratified(self, digits):
        """A quarter of each class, up to one sample of rounding."""
        share = np.bincount(load_digits().target) / 4
        assert (np.abs(np.bincount(digits.test_labels) - share) <= 1).all()

    def test_always_the_same(self, digits):
        again = load_dataset("digits")
        assert torch.equal(digits.train_images, again.train_images)
        assert np.array_equal(digits.test_labels, again.test_labels)

    @pytest.mark.parametrize("constant", ["mean", "std"])
    def test_normalisation_constants(self, digits, constant):
        """The table has four decimals: the constants of the training images round to it."""
        x = digits.train_images.numpy() / 255
        (mean,), (std,) = DATASETS["digits"].constants
        value, expected = (mean, x.mean()) if constant == "mean" else (std, x.std())
        assert value == pytest.approx(expected, abs=0.5e-4)


def idx(array):
    """The IDX format of MNIST: magic number with type 8 (uint8) and rank, big-endian sizes, bytes."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def fashion(tmp_path):
    """A Fashion-MNIST of 20 + 8 random images as torchvision lays it out."""
    arrays = {
        "train-images-idx3-ubyte": rng(0).integers(256, size=(20, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte": rng(1).integers(10, size=20, dtype=np.uint8),
        "t10k-images-idx3-ubyte": rng(2).integers(256, size=(8, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": rng(3).integers(10, size=8, dtype=np.uint8),
    }
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        (folder / name).write_bytes(idx(array))
    return folder, arrays


def replaced(monkeypatch, cls):
    """CIFAR-10 is read by this class in place of torchvision's."""
    values = _of_torchvision("cifar10", "cifar-10-batches-py", cls)
    monkeypatch.setitem(DATASETS, "cifar10", dataclasses.replace(DATASETS["cifar10"], **values))


class TestFiles:
    @pytest.mark.parametrize("packed_anew", [False, True])
    def test_fashion_mnist(self, fashion, tmp_path, packed_anew):
        folder, arrays = fashion
        for file in list(folder.iterdir()) if packed_anew else []:
            (folder / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
        images = load_dataset("fashion_mnist", root=tmp_path, download=False)
        assert len(images.classes) == 10
        assert np.array_equal(images.train_images.numpy(), arrays["train-images-idx3-ubyte"][:, None])
        assert np.array_equal(images.test_images.numpy(), arrays["t10k-images-idx3-ubyte"][:, None])
        assert np.array_equal(images.train_labels, arrays["train-labels-idx1-ubyte"])
        assert np.array_equal(images.test_labels, arrays["t10k-labels-idx1-ubyte"])
        assert images.train_labels.dtype == np.int64

    @pytest.mark.parametrize("keep", [0, 20, -100])
    def test_damaged_fashion_mnist(self, fashion, tmp_path, keep):
        path = fashion[0] / "train-images-idx3-ubyte"
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(DataUnavailable, match="fashion_mnist is missing or damaged"):
            load_dataset("fashion_mnist", root=tmp_path, download=False)

    @pytest.mark.parametrize(
        ("name", "folder"),
        [
            ("cifar10", "cifar-10-batches-py"),
            ("cifar100", "cifar-100-python"),
            ("fashion_mnist", "FashionMNIST/raw"),
        ],
    )
    def test_a_missing_set_says_where_it_must_go(self, tmp_path, name, folder):
        with pytest.raises(DataUnavailable) as caught:
            load_dataset(name, root=tmp_path, download=False)
        message = str(caught.value)
        assert name in message
        assert str(tmp_path / folder) in message
        assert "EMLC_DATA" in message

    def test_the_root_is_taken_from_the_environment(self, tmp_path, monkeypatch):
        monkeypatch.setenv("EMLC_DATA", str(tmp_path))
        with pytest.raises(DataUnavailable) as caught:
            load_dataset("cifar10", download=False)
        assert str(tmp_path / "cifar-10-batches-py") in str(caught.value)

    def test_download_that_fails(self, tmp_path, monkeypatch):
        asked = []

        class Offline:
            def __init__(self, root, train, download):
                asked.append(download)
                raise urllib.error.URLError("no route to host") if download else RuntimeError("not found")

        replaced(monkeypatch, Offline)
        with pytest.raises(DataUnavailable, match="not found"):
            load_dataset("cifar10", root=tmp_path, download=False)
        assert asked == [False]
        with pytest.raises(DataUnavailable, match="no route to host") as caught:
            load_dataset("cifar10", root=tmp_path, download=True)
        assert asked == [False, False, True]
        assert str(tmp_path / "cifar-10-batches-py") in str(caught.value)

    def test_download_only_of_what_is_missing(self, tmp_path, monkeypatch):
        asked = []

        class Online:
            classes = ("a", "b")
            data = rng().integers(256, size=(4, 5, 6, 3), dtype=np.uint8)
            targets = (0, 1, 1, 0)

            def __init__(self, root, train, download):
                asked.append((train, download))
                if train and not download:
                    raise RuntimeError("not found")

        replaced(monkeypatch, Online)
        images = load_dataset("cifar10", root=tmp_path)
        assert asked == [(True, False), (True, True), (False, False)]
        assert images.classes == ["a", "b"]
        # torchvision keeps (n, h, w, channels).
        assert np.array_equal(images.train_images.numpy(), np.moveaxis(Online.data, 3, 1))
        assert images.test_labels.tolist() == [0, 1, 1, 0]

    def test_is_available(self, tmp_path, monkeypatch):
        assert is_available("digits", tmp_path)
        assert not is_available("cifar10", tmp_path)
        (tmp_path / "cifar-10-batches-py").mkdir()
        assert is_available("cifar10", tmp_path)
        assert not is_available("cifar100", tmp_path)
        monkeypatch.setenv("EMLC_DATA", str(tmp_path))
        assert is_available("cifar10")

    def test_data_root(self, tmp_path, monkeypatch):
        monkeypatch.setenv("EMLC_DATA", str(tmp_path))
        assert data_root() == tmp_path
        monkeypatch.setenv("EMLC_DATA", "~/somewhere")
        assert data_root() == Path.home() / "somewhere"
        monkeypatch.delenv("EMLC_DATA")
        assert data_root() == Path(__file__).resolve().parent.parent / "data"
        # Installed elsewhere than in the repository.
        monkeypatch.setattr("emlc_lib.runtime.places.REPOSITORY", tmp_path)
        assert data_root() == Path("data")


def digits_config(**changes):
    return make_config(dataset="digits", device="cpu", **{"n_clean": 100} | changes)


def tensors(data):
    """Every tensor and index array that a run sees, by name."""
    names = ("noisy_images", "noisy_labels", "true_labels", "clean_images", "clean_labels", "test_images")
    return {name: getattr(data, name) for name in (*names, "test_labels", "mean", "std")} | {
        "clean": torch.from_numpy(data.split.clean),
        "noisy": torch.from_numpy(data.split.noisy),
    }


def differing(a, b):
    a, b = tensors(a), tensors(b)
    return {name for name in a if not torch.equal(a[name], b[name])}


class TestPrepare:
    @pytest.mark.parametrize("noise_type", ["symmetric", "asymmetric"])
    def test_parts_are_those_of_the_split(self, noise_type):
        images = load_dataset("digits")
        data = prepare(digits_config(noise_type=noise_type, noise=0.5, n_clean=50, n_noisy=1000))
        clean, noisy = data.split.clean, data.split.noisy
        assert (len(clean), len(noisy)) == (50, 1000)
        assert not set(clean) & set(noisy)
        assert torch.equal(data.clean_images, images.train_images[clean])
        assert data.clean_labels.tolist() == images.train_labels[clean].tolist()
        assert data.clean_labels.bincount().tolist() == [5] * 10
        assert torch.equal(data.noisy_images, images.train_images[noisy])
        assert data.true_labels.tolist() == images.train_labels[noisy].tolist()
        assert torch.equal(data.test_images, images.test_images)
        assert data.test_labels.tolist() == images.test_labels.tolist()
        assert data.noisy_labels.tolist() == data.corruption.noisy.tolist()
        assert data.true_labels.tolist() == data.corruption.true.tolist()
        assert 0 < (data.noisy_labels != data.true_labels).sum() <= 500
        assert (data.classes, data.n_classes) == (list("0123456789"), 10)
        assert data.noisy_labels.dtype == data.true_labels.dtype == data.clean_labels.dtype == torch.int64
        assert data.mean.shape == data.std.shape == (1, 1, 1)

    def test_asymmetric_noise_follows_the_map_of_the_data_set(self):
        data = prepare(digits_config(noise_type="asymmetric", noise=1.0))
        turned = {2: 7, 3: 8, 5: 6, 6: 5, 7: 1}
        assert data.noisy_labels.tolist() == [turned.get(y, y) for y in data.true_labels.tolist()]

    def test_noise_rate_zero(self):
        data = prepare(digits_config(noise=0.0))
        assert torch.equal(data.noisy_labels, data.true_labels)

    def test_same_seed_same_data(self):
        assert differing(prepare(digits_config(seed=3)), prepare(digits_config(seed=3))) == set()

    def test_other_seed_other_split_and_noise(self):
        changed = differing(prepare(digits_config(seed=3)), prepare(digits_config(seed=4)))
        assert {"clean", "noisy", "noisy_labels", "clean_images"} <= changed
        assert not {"test_images", "test_labels", "mean", "std"} & changed

    @pytest.mark.parametrize(
        "changes",
        [
            {"method": "cross_entropy"},
            {"method": "clean_only"},
            {"k": 5},
            {"epochs": 2, "lr": 0.1},
            {"model": "resnet_narrow"},
            {"corruption": "random"},
            {"batch_size": 16},
            {"start_steps": 3},
        ],
    )
    def test_the_data_do_not_depend_on_the_method(self, changes):
        assert differing(prepare(digits_config()), prepare(digits_config(**changes))) == set()

    def test_the_noise_does_not_change_the_split(self):
        changed = differing(prepare(digits_config(noise=0.2)), prepare(digits_config(noise=0.8)))
        assert changed == {"noisy_labels"}

    def test_split_and_noise_have_random_streams_of_their_own(self):
        """With one stream for both, which samples are corrupted would depend on which are clean."""
        labels = load_dataset("digits").train_labels
        data = prepare(digits_config(seed=5, noise=0.5, n_noisy=1000))
        split = split_clean_noisy(labels, 10, 100, 1000, numpy_generator(5, Stream.SPLIT))
        assert np.array_equal(data.split.clean, split.clean)
        assert np.array_equal(data.split.noisy, split.noisy)
        corruption = symmetric_noise(labels[split.noisy], 10, 0.5, numpy_generator(5, Stream.NOISE))
        assert data.noisy_labels.tolist() == corruption.noisy.tolist()


class TestPrepareHuman:
    """Human labels on a made-up CIFAR-10 of 200 images."""

    @pytest.fixture
    def images(self):
        labels = labels_of([20] * 10)
        x = torch.zeros(200, 3, 32, 32, dtype=torch.uint8)
        return ImageSet("cifar10", [f"c{i}" for i in range(10)], x, labels, x[:5], labels[:5])

    def config(self, folder, labels, **changes):
        np.savez(folder / "labels.npz", worse_label=labels)
        sizes = {"n_clean": 20, "n_noisy": 90, "batch_size": 16, "clean_batch_size": 8, "preset": "quick"}
        return make_config(
            noise_type="human", human_labels=folder / "labels.npz", device="cpu", **sizes, **changes
        )

    def test_labels_go_with_their_images(self, images, tmp_path):
        """The column is in the training set's order; every sample has a label that tells its place."""
        column = (images.train_labels + 1 + np.arange(200) % 3) % 10
        data = prepare(self.config(tmp_path, column), images)
        assert data.noisy_labels.tolist() == column[data.split.noisy].tolist()
        assert data.true_labels.tolist() == images.train_labels[data.split.noisy].tolist()
        assert data.clean_labels.tolist() == images.train_labels[data.split.clean].tolist()
        assert data.mean.shape == data.std.shape == (3, 1, 1)
        # The matrix is that of the noisy set, counted here.
        counts = np.zeros((10, 10))
        for i in data.split.noisy:
            counts[images.train_labels[i], column[i]] += 1
        np.testing.assert_allclose(data.corruption.expected, counts / counts.sum(1, keepdims=True), rtol=1e-15)


@pytest.mark.cifar10
class TestCifar10:
    def test_shapes_and_classes(self, cifar10):
        assert cifar10.train_images.shape == (50_000, 3, 32, 32)
        assert cifar10.test_images.shape == (10_000, 3, 32, 32)
        assert cifar10.train_images.dtype == torch.uint8
        assert np.bincount(cifar10.train_labels).tolist() == [5000] * 10
        assert np.bincount(cifar10.test_labels).tolist() == [1000] * 10
        assert " ".join(cifar10.classes) == "airplane automobile bird cat deer dog frog horse ship truck"
        # The data set opens with a frog and two trucks, the test set with a cat and two ships.
        assert cifar10.train_labels[:3].tolist() == [6, 9, 9]
        assert cifar10.test_labels[:3].tolist() == [3, 8, 8]

    def test_pixels_are_in_the_files_order(self, cifar10):
        """The distribution stores 1,024 red, then green, then blue bytes, row by row: the file has these runs."""
        raw = (data_root() / "cifar-10-batches-py" / "data_batch_1").read_bytes()
        for image in cifar10.train_images[[0, 1, 9999]]:
            assert image.numpy().tobytes() in raw
        assert cifar10.train_images[10_000].numpy().tobytes() not in raw

    def test_normalisation_constants(self, cifar10):
        """The table has four decimals; histograms of the bytes give exact moments."""
        table, levels = DATASETS["cifar10"].constants, np.arange(256) / 255
        for channel, (mean, std) in enumerate(zip(*table, strict=True)):
            parts = cifar10.train_images[:, channel].split(5000)
            share = sum(np.bincount(part.reshape(-1), minlength=256) for part in parts) / (50_000 * 32 * 32)
            expected = (share * levels).sum()
            assert mean == pytest.approx(expected, abs=0.5e-4)
            assert std == pytest.approx(((share * (levels - expected) ** 2).sum()) ** 0.5, abs=0.5e-4)

    def test_prepare(self, cifar10):
        data = prepare(make_config(preset="quick", device="cpu", noise=0.9, n_clean=1000, n_noisy=5000), cifar10)
        assert data.noisy_images.shape == (5000, 3, 32, 32)
        assert data.clean_labels.bincount().tolist() == [100] * 10
        assert not set(data.split.clean) & set(data.split.noisy)
        # floor(0.9 * 5000) labels are redrawn and a tenth of them hits; five sigma of that binomial count.
        wrong = (data.noisy_labels != data.true_labels).sum().item()
        assert abs(wrong - 4500 * 0.9) <= 5 * np.sqrt(4500 * 0.9 * 0.1)


@pytest.mark.cifar100
class TestCifar100:
    def test_shapes_classes_and_constants(self):
        images, table = load_dataset("cifar100", download=False), DATASETS["cifar100"].constants
        assert images.train_images.shape == (50_000, 3, 32, 32)
        assert np.bincount(images.train_labels).tolist() == [500] * 100
        assert np.bincount(images.test_labels).tolist() == [100] * 100
        pixels = images.train_images.numpy()
        for channel, (mean, std) in enumerate(zip(*table, strict=True)):
            share = np.bincount(pixels[:, channel].ravel(), minlength=256) / (50_000 * 32 * 32)
            levels = np.arange(256) / 255
            assert mean == pytest.approx(share @ levels, abs=0.5e-4)
            assert std == pytest.approx((share @ levels**2 - (share @ levels) ** 2) ** 0.5, abs=0.5e-4)

    def test_look_alikes_are_of_the_superclass_that_its_files_give_to_every_image(self):
        with open(data_root() / "cifar-100-python" / "train", "rb") as file:
            stored = pickle.load(file, encoding="latin1")
        fine, coarse = np.array(stored["fine_labels"]), np.array(stored["coarse_labels"])
        assert load_dataset("cifar100", download=False).train_labels.tolist() == fine.tolist()
        data = prepare(
            make_config(dataset="cifar100", preset="quick", device="cpu", noise_type="asymmetric", noise=1)
        )
        superclass = np.array([coarse[fine == c][0] for c in range(100)])
        assert (superclass[fine] == coarse).all()
        given, true = data.noisy_labels.numpy(), data.true_labels.numpy()
        assert (given != true).all()
        assert (superclass[given] == superclass[true]).all()
