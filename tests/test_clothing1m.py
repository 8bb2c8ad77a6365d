"""Clothing1M on a made-up tree of its layout: generated images, 14 classes, and everything that can be wrong."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from emlc_lib import ConfigError, find_runs, make_config, prepare, run
from emlc_lib.augment import RECIPES
from emlc_lib.autoaugment import IMAGENET_POLICY
from emlc_lib.batches import Batches
from emlc_lib.clothing1m import main, prepare_clothing1m
from emlc_lib.clothing1m_folder import CLASSES, PARTS, copied, inspect_folder, leave_out, write_copy
from emlc_lib.data import is_available, load_dataset
from emlc_lib.disk_images import DataUnavailable, DiskImages, open_image

SIZES = {"noisy_train": 42, "clean_train": 30, "clean_val": 14, "clean_test": 15}
METHODS = ["emlc", "mlc", "mslc", "mwnet", "mlnt", "fasten", "cross_entropy", "clean_only"]


def colour(label, i):
    return (18 * label, 255 - 18 * label, (37 * i) % 256)


def write_tree(folder, annotations="."):
    """Images have the colour of their class and number; a third of the clean ones have both labels."""
    text = {name: [] for name in ("noisy_label_kv", "clean_label_kv")}
    number = 0
    for part, size in SIZES.items():
        keys = []
        for i in range(size):
            # The published names have commas in them.
            key, label = f"images/{number % 10}/{number % 7:02d}/{number},{7 * number}.jpg", i % 14
            (folder / key).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (30 + i, 40), colour(label, number)).save(folder / key, quality=95)
            text[f"{PARTS[part]}_label_kv"].append(f"{key} {label}")
            if part != "noisy_train" and i % 3 == 0:
                text["noisy_label_kv"].append(f"{key} {(label + (i % 2)) % 14}")
            keys.append(key)
            number += 1
        text[f"{part}_key_list"] = keys
    (folder / annotations).mkdir(exist_ok=True)
    for name, lines in text.items():
        (folder / annotations / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return {part: text[f"{part}_key_list"] for part in SIZES}


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """The data root and the keys of a tree without faults, which no test changes."""
    root = tmp_path_factory.mktemp("data")
    (root / "clothing1m").mkdir()
    return root, write_tree(root / "clothing1m")


@pytest.fixture
def small(monkeypatch):
    """Images of 16 pixels, so that a training takes a second."""
    for module in ("clothing1m", "clothing1m_folder"):
        monkeypatch.setattr(f"emlc_lib.{module}.RESIZE", 20)
        monkeypatch.setattr(f"emlc_lib.{module}.CROP", 16)


@pytest.fixture
def damaged(tmp_path, small):
    """One fault of every kind; the folder and what was done."""
    folder = tmp_path / "clothing1m"
    folder.mkdir()
    keys = write_tree(folder)
    broken, lost, unlabelled = keys["noisy_train"][3], keys["clean_train"][5], keys["noisy_train"][20]
    (folder / broken).write_bytes((folder / broken).read_bytes()[:400])
    (folder / lost).unlink()
    labels = folder / "noisy_label_kv.txt"
    labels.write_text("".join(x for x in labels.read_text().splitlines(True) if not x.startswith(unlabelled)))
    extra = "images/0/00/extra.jpg"
    shutil.copy(folder / keys["clean_val"][0], folder / extra)
    labels.write_text(labels.read_text() + "images/9/99/nowhere.jpg 3\n")
    return folder, {"broken": broken, "lost": lost, "unlabelled": unlabelled, "extra": extra}


def config_of(**changes):
    return make_config(**{"dataset": "clothing1m", "preset": "smoke", "device": "cpu"} | changes)


class TestFolder:
    def test_an_intact_folder(self, intact, small):
        root, _ = intact
        report = inspect_folder(root / "clothing1m", decode=True)
        assert report.usable
        assert report.sizes == SIZES
        found = (report.without_file, report.without_label, report.repeated, report.broken, report.blocking)
        assert found == ([],) * 5
        assert "noisy_train: 42 images listed" in str(report)

    def test_every_fault_is_listed(self, damaged):
        folder, faults = damaged
        report = inspect_folder(folder)
        assert not report.usable
        assert report.without_file == sorted([faults["lost"], "images/9/99/nowhere.jpg"])
        assert report.without_label == sorted([faults["unlabelled"], faults["extra"]])
        assert report.broken is None
        # A label or a file that no list asks for does no harm.
        assert report.blocking == sorted([faults["lost"], faults["unlabelled"]])
        decoded = inspect_folder(folder, decode=True)
        assert decoded.broken == [faults["broken"]]
        assert decoded.blocking == sorted([faults["lost"], faults["unlabelled"], faults["broken"]])
        text = str(decoded)
        for line in (
            f"without file: 2 ({', '.join(report.without_file)})",
            "broken: 1",
            "in the way of training: 3",
        ):
            assert line in text

    def test_images_can_be_left_out(self, damaged):
        folder, faults = damaged
        with pytest.raises(DataUnavailable, match=r"without file: 2(.|\n)*--leave-out"):
            prepare_clothing1m(config_of(), folder)
        leave_out(folder, inspect_folder(folder, decode=True).blocking)
        data = prepare_clothing1m(config_of(), folder)
        assert (len(data.noisy_labels), len(data.clean_labels)) == (40, 29)
        paths = {*data.noisy_images.paths, *data.clean_images.paths}
        assert not {str(folder / faults[name]) for name in ("broken", "lost", "unlabelled")} & paths
        assert data.noisy_images[:].shape == (40, 3, 16, 16)
        assert inspect_folder(folder, decode=True).usable

    def test_a_broken_image_stops_the_training_by_name(self, damaged):
        folder, faults = damaged
        leave_out(folder, [faults["lost"], faults["unlabelled"]])
        data = prepare_clothing1m(config_of(), folder)
        with pytest.raises(DataUnavailable, match="cannot be read as an image") as caught:
            data.noisy_images[:]
        assert faults["broken"] in str(caught.value)

    def test_missing_text_files_are_named(self, tmp_path, monkeypatch):
        assert set(inspect_folder(tmp_path).missing_files) == {
            "noisy_train_key_list.txt",
            "clean_train_key_list.txt",
            "clean_val_key_list.txt",
            "clean_test_key_list.txt",
            "noisy_label_kv.txt",
            "clean_label_kv.txt",
            "images/",
        }
        monkeypatch.setenv("EMLC_DATA", str(tmp_path))
        with pytest.raises(DataUnavailable, match=r"noisy_label_kv\.txt(.|\n)*on request") as caught:
            prepare(config_of())
        assert str(tmp_path / "clothing1m") in str(caught.value)

    def test_text_files_may_lie_below_annotations(self, tmp_path):
        write_tree(tmp_path, "annotations")
        assert inspect_folder(tmp_path).usable

    @pytest.mark.parametrize("line", ["images/0/00/x.jpg", "images/0/00/x.jpg shirt", "images/0/00/x.jpg 14"])
    def test_a_line_without_a_label(self, intact, tmp_path, line):
        folder = tmp_path / "copy"
        shutil.copytree(intact[0] / "clothing1m", folder)
        with open(folder / "clean_label_kv.txt", "a") as file:
            file.write(line + "\n")
        with pytest.raises(DataUnavailable, match=r"clean_label_kv\.txt: 'images/0/00/x\.jpg.*0\.\.13"):
            inspect_folder(folder)

    def test_a_test_image_in_a_training_list(self, intact, tmp_path):
        folder = tmp_path / "copy"
        shutil.copytree(intact[0] / "clothing1m", folder)
        key = intact[1]["clean_test"][2]
        with open(folder / "clean_train_key_list.txt", "a") as file:
            file.write(key + "\n")
        report = inspect_folder(folder)
        assert report.repeated == [key]
        assert not report.usable

    def test_the_command_line(self, damaged, capsys):
        folder, faults = damaged
        assert main(["check", str(folder)]) == 1
        assert faults["lost"] in capsys.readouterr().out
        assert main(["copy", str(folder)]) == 1
        assert main(["check", "--decode", "--leave-out", str(folder)]) == 0
        assert "3 images were added" in capsys.readouterr().out
        assert main(["check", "--decode", str(folder)]) == 0
        assert main(["copy", str(folder)]) == 0
        assert f"{sum(SIZES.values()) - 3} images written" in capsys.readouterr().out


class TestImages:
    def test_they_are_squeezed_and_cropped(self, tmp_path):
        """A wide image, black but for a white band of the middle fifth, which stays the middle fifth of 256."""
        pixels = np.zeros((100, 500, 3), np.uint8)
        pixels[:, 200:300] = 255
        Image.fromarray(pixels).save(tmp_path / "x.png")
        image = np.asarray(open_image(tmp_path / "x.png", resize=256, crop=224))
        assert image.shape == (224, 224, 3)
        bright = np.flatnonzero(image[0, :, 0] > 127)
        # 256 * 0.4 - 16 = 86.4 and 256 * 0.6 - 16 = 137.6
        assert (bright.min(), bright.max()) == (86, 137)

    @pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK"])
    def test_other_colour_modes(self, tmp_path, mode):
        path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
        Image.new(mode, (9, 9)).save(path)
        assert open_image(path, resize=8, crop=6).mode == "RGB"

    def test_a_size_that_is_not_that_of_the_copy(self, tmp_path):
        Image.new("RGB", (9, 8)).save(tmp_path / "x.png")
        with pytest.raises(DataUnavailable, match="9 x 8 pixels instead of 8 x 8"):
            open_image(tmp_path / "x.png", resize=None, crop=8)

    @pytest.fixture
    def images(self, tmp_path):
        pixels = np.random.default_rng(0).integers(256, size=(7, 6, 6, 3), dtype=np.uint8)
        for i, image in enumerate(pixels):
            Image.fromarray(image).save(tmp_path / f"{i}.png")
        whole = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        return DiskImages([tmp_path / f"{i}.png" for i in range(7)], side=6, resize=None), whole

    def test_they_are_indexed_like_a_tensor(self, images):
        disk, whole = images
        assert (len(disk), disk.shape) == (len(whole), whole.shape)
        for index in (
            torch.tensor([5, 0, 5]),
            slice(2, 4),
            slice(5, 99),
            slice(None),
            torch.tensor([-1]),
            slice(0),
        ):
            assert torch.equal(disk[index], whole[index])

    def test_what_is_begun_early_is_the_same(self, images):
        disk, whole = images
        for begun, wanted in (([1, 2], [1, 2]), ([1, 2], [2, 1]), ([3], [3]), ([3], [3])):
            disk.prefetch(torch.tensor(begun))
            assert torch.equal(disk[torch.tensor(wanted)], whole[torch.tensor(wanted)])

    def test_the_copy(self, intact, tmp_path, small):
        folder = tmp_path / "clothing1m"
        shutil.copytree(intact[0] / "clothing1m", folder)
        assert write_copy(folder) == sum(SIZES.values())
        first = copied(folder, intact[1]["noisy_train"][0])
        first.unlink()
        assert write_copy(folder) == 1  # the rest is there
        original, copy = (prepare_clothing1m(config_of(resized_copy=c), folder) for c in (False, True))
        difference = original.noisy_images[:].int() - copy.noisy_images[:].int()
        assert difference.abs().max() <= 4
        assert not copied(folder, "images/0/00/nowhere.jpg").exists()


class TestPrepare:
    @pytest.fixture
    def data(self, intact, small, monkeypatch):
        monkeypatch.setenv("EMLC_DATA", str(intact[0]))
        return prepare(config_of())

    def test_every_image_has_its_label(self, data, intact):
        """By colour: the class in red and green, the number in blue."""
        first = 0
        for part, name in zip(SIZES, ("noisy", "clean", "validation", "test"), strict=True):
            images, labels = getattr(data, f"{name}_images"), getattr(data, f"{name}_labels")
            n = SIZES[part]
            assert images.shape == (n, 3, 16, 16)
            assert labels.tolist() == [i % 14 for i in range(n)]
            expected = torch.tensor([colour(i % 14, first + i) for i in range(n)])
            assert (images[:][:, :, 8, 8].int() - expected).abs().max() <= 4  # JPEG
            first += n
        assert data.classes == list(CLASSES)
        assert (data.n_classes, data.mean.shape) == (14, (3, 1, 1))

    def test_nobody_knows_the_true_labels(self, data):
        assert set(data.true_labels.tolist()) == {-1}
        assert not data.corruption.wrong.any()
        assert np.isnan(data.corruption.wrong_share)

    def test_transitions_come_from_training_images_with_both_labels(self, data):
        counts = np.zeros((14, 14))
        for i in range(0, SIZES["clean_train"], 3):
            counts[i % 14, (i % 14 + i % 2) % 14] += 1
        counts[counts.sum(1) == 0] = np.eye(14)[counts.sum(1) == 0]
        np.testing.assert_allclose(data.corruption.expected, counts / counts.sum(1, keepdims=True), rtol=1e-15)

    def test_parts_of_the_lists(self, data):
        part = prepare(config_of(n_clean=10, n_noisy=20))
        assert (len(part.clean_labels), len(part.noisy_labels)) == (10, 20)
        assert part.split.noisy.tolist() == sorted(set(part.split.noisy.tolist()))
        assert part.noisy_labels.tolist() == data.noisy_labels[part.split.noisy].tolist()
        assert part.noisy_images.paths == [data.noisy_images.paths[i] for i in part.split.noisy]
        assert prepare(config_of(n_noisy=20)).split.noisy.tolist() == part.split.noisy.tolist()
        assert prepare(config_of(n_noisy=20, seed=1)).split.noisy.tolist() != part.split.noisy.tolist()
        assert part.validation_labels.tolist() == data.validation_labels.tolist()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"n_clean": 31}, "^n_clean: 31 is more than the 30 images"),
            ({"n_noisy": 43}, "^n_noisy: 43 is more than the 42 images"),
            ({"batch_size": 43}, "^batch_size: 43 is more than the 42 noisy"),
            ({"clean_batch_size": 31}, "^clean_batch_size: 31 is more than the 30 clean"),
        ],
    )
    def test_sizes_that_the_lists_cannot_give(self, data, changes, message):
        with pytest.raises(ValueError, match=message):
            prepare(config_of(**changes))

    def test_it_is_not_loaded_as_a_whole(self, data, tmp_path):
        assert is_available("clothing1m")
        assert not is_available("clothing1m", tmp_path)
        with pytest.raises(ValueError, match=r"^dataset: clothing1m stays on disk"):
            load_dataset("clothing1m")

    def test_batches_are_those_of_the_whole_in_memory(self, data):
        """Table 4: noisy batches as they are, clean ones flipped and with ImageNet's AutoAugment."""
        names = [f"{name}_images" for name in ("noisy", "clean", "validation", "test")]
        memory = dataclasses.replace(data, **{name: getattr(data, name)[:] for name in names})
        config = config_of()
        lazy, eager = Batches(config, data), Batches(config, memory)
        for t in (0, 1, 5, 2):
            for a, b in ((lazy.noisy(t), eager.noisy(t)), (lazy.clean(t, 8), eager.clean(t, 8))):
                assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        plain = Batches(config_of(augment=False), memory)
        assert torch.equal(plain.noisy(3).x, lazy.noisy(3).x)
        clean = plain.clean(3, 8).x
        flipped = Batches(config_of(autoaugment=False), data).clean(3, 8).x
        same, mirrored = ((flipped == x).flatten(1).all(1) for x in (clean, clean.flip(3)))
        assert (same | mirrored).all()
        assert not torch.equal(lazy.clean(3, 8).x, flipped)
        assert RECIPES["clothing1m"].policy is IMAGENET_POLICY

    def test_balanced_batches_of_an_unbalanced_clean_set(self, data):
        """Two classes have three images and the rest two: two batches of one each make a pass."""
        batches = Batches(config_of(augment=False), data)
        drawn = [batches.balanced_clean(t, 1) for t in range(4)]
        assert all(b.labels.tolist() == list(range(14)) for b in drawn)
        assert not torch.equal(drawn[0].x, drawn[1].x)
        with pytest.raises(ValueError, match=r"^n_clean: a class has fewer than 3"):
            batches.balanced_clean(0, 3)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains(method, intact, small, tmp_path, monkeypatch):
    monkeypatch.setenv("EMLC_DATA", str(intact[0]))
    changes = {"clean_batch_size": 28, "epochs": 1} if method == "fasten" else {"epochs": 1}
    finished = run(config_of(method=method, **changes), root=tmp_path, show=False)
    assert 0 <= finished.result["test_accuracy"] <= 1
    assert np.isfinite(finished.steps["student_loss"]).all()
    assert (finished.result["n_noisy"], finished.result["n_clean"]) == (42, 30)


def test_emlc_end_to_end_at_224_pixels(intact, tmp_path, monkeypatch):
    """Two epochs, the rates of the second a tenth; read back from its files; unknown recovery is no number."""
    monkeypatch.setenv("EMLC_DATA", str(intact[0]))
    config = config_of(k=2, batch_size=14)
    finished = run(config, root=tmp_path, show=False)
    assert len(finished.epochs) == 2
    assert finished.epochs["recovery_all"].isna().all()
    assert finished.epochs["gate_right"].isna().all()
    assert np.isfinite(finished.epochs["student_test_accuracy"]).all()
    assert "11_clothing1m" in finished.result["command"]
    assert "noise" not in json.dumps(finished.result["command"]).replace("noise_type", "")
    (again,) = find_runs(tmp_path, dataset="clothing1m")
    assert again.result["name"] == config.name


def test_auto_needs_a_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"^preset: auto finds no GPU for clothing1m; take paper"):
        make_config(dataset="clothing1m")
