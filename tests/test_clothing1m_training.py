"""Clothing1M end to end on a made-up tree: data, batches, the ImageNet start, the schedule, every method."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from clothing1m_config import config_of
from problems import interrupted
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet50

from emlc_lib import ConfigError, find_runs, make_config, prepare, run
from emlc_lib.data.autoaugment import IMAGENET_POLICY
from emlc_lib.data.batches import Batches
from emlc_lib.data.clothing1m.example import SIZES, colour
from emlc_lib.data.clothing1m.folder import CLASSES
from emlc_lib.data.datasets import DATASETS, is_available, load_dataset
from emlc_lib.experiments.notebook import announce
from emlc_lib.experiments.sweep import grid
from emlc_lib.experiments.tables import accuracy_table
from emlc_lib.methods import METHODS
from emlc_lib.networks import weights as files
from emlc_lib.networks.pretrain_config import make_pretrain_config
from emlc_lib.runtime.parameters import DataUnavailable
from emlc_lib.training.presets import learning_rates
from emlc_lib.training.start import initial_networks
from emlc_lib.training.trainer import train


class TestPrepare:
    @pytest.fixture
    def data(self, clothing1m, small_images, monkeypatch):
        monkeypatch.setenv("EMLC_DATA", str(clothing1m[0]))
        return prepare(config_of())

    def test_every_image_has_its_label(self, data, clothing1m):
        """By the colour of class and number."""
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
        assert DATASETS["clothing1m"].recipe.policy is IMAGENET_POLICY

    def test_balanced_batches_of_an_unbalanced_clean_set(self, data):
        """Two classes have three images and the rest two: two batches of one each make a pass."""
        batches = Batches(config_of(augment=False), data)
        drawn = [batches.balanced_clean(t, 1) for t in range(4)]
        assert all(b.labels.tolist() == list(range(14)) for b in drawn)
        assert not torch.equal(drawn[0].x, drawn[1].x)
        with pytest.raises(ValueError, match=r"^n_clean: a class has fewer than 3"):
            batches.balanced_clean(0, 3)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_trains(method, clothing1m, small_images, tmp_path, monkeypatch):
    monkeypatch.setenv("EMLC_DATA", str(clothing1m[0]))
    needed = {"fasten": {"clean_batch_size": 28}, "distilled": {"epochs": 2}, "dividemix": {"epochs": 2}}.get(
        method, {}
    )
    finished = run(config_of(method=method, **{"epochs": 1} | needed), root=tmp_path, show=False)
    assert 0 <= finished.result["test_accuracy"] <= 1
    losses = finished.steps["student_loss"].dropna()  # a step of distillation's first part has none
    assert len(losses)
    assert np.isfinite(losses).all()
    assert (finished.result["n_noisy"], finished.result["n_clean"]) == (42, 30)


def test_emlc_end_to_end_at_224_pixels(clothing1m, tmp_path, monkeypatch):
    """Two epochs, the rates of the second a tenth; read back from its files; unknown recovery is no number."""
    monkeypatch.setenv("EMLC_DATA", str(clothing1m[0]))
    config = config_of(k=2, n_noisy=15, batch_size=7, clean_batch_size=4)
    finished = run(config, root=tmp_path, show=False)
    assert len(finished.epochs) == 2
    assert finished.epochs["recovery_all"].isna().all()
    assert finished.epochs["gate_right"].isna().all()
    assert np.isfinite(finished.epochs["student_test_accuracy"]).all()
    start = "papermill notebooks/11_clothing1m.ipynb out.ipynb -p method emlc -p k 2 -p seed 0 -p preset smoke -y "
    assert finished.result["command"].startswith(start)
    options = {"n_noisy": 15, "batch_size": 7, "clean_batch_size": 4}
    assert json.loads(finished.result["command"].removeprefix(start).strip("'")) == {"options": options}
    (again,) = find_runs(tmp_path, dataset="clothing1m")
    assert again.result["name"] == config.name
    (row,) = accuracy_table([again]).itertuples()
    assert (row.noise, row.method, row.n, row.comparable) == ("real", "emlc k=2", 1, False)
    (planned,) = grid(["real"], ["emlc"], [2], [0], dataset="clothing1m", preset="smoke", device="cpu")
    assert planned.noise_type == "real"


def test_a_run_is_announced_with_its_time(clothing1m, small_images, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EMLC_DATA", str(clothing1m[0]))
    config = config_of(epochs=1)
    announce(config, tmp_path)
    said = capsys.readouterr().out
    assert "emlc with k = 1 on clothing1m, real noise as crawled, seed 0" in said
    assert "all clean labels" in said
    assert "start: random weights" in said
    run(config, root=tmp_path)
    assert "preset smoke on cpu: small_cnn, 1 epochs, about " in capsys.readouterr().err
    announce(config, tmp_path)
    assert capsys.readouterr().out.endswith("finished before: its files are read back\n")


def test_a_resumed_run_gives_the_same_bits(clothing1m, small_images, tmp_path, monkeypatch):
    monkeypatch.setenv("EMLC_DATA", str(clothing1m[0]))
    config = config_of(epochs=2)
    interrupted(config, prepare(config), tmp_path)
    resumed = train(config, prepare(config), folder=tmp_path, show=False)
    whole = train(config, prepare(config), show=False)
    weights = [list(result.method.student.parameters()) for result in (resumed, whole)]
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_the_first_epochs_do_not_depend_on_how_many_follow(clothing1m, small_images, monkeypatch):
    """Three epochs or five: with lr_step the longer training contains the shorter one."""
    monkeypatch.setenv("EMLC_DATA", str(clothing1m[0]))
    short, long = (train(config_of(epochs=n), prepare(config_of(epochs=n)), show=False) for n in (2, 3))
    assert len(long.epochs) == 3
    assert short.epochs.equals(long.epochs.head(2))
    assert short.steps.equals(long.steps.head(len(short.steps)))


def test_nothing_is_pretrained_on_it():
    with pytest.raises(ConfigError, match=r"^dataset: clothing1m has no views for SimCLR"):
        make_pretrain_config(dataset="clothing1m", device="cpu")


def test_auto_needs_a_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"^preset: auto finds no GPU for clothing1m; take paper"):
        make_config(dataset="clothing1m")


class TestSchedule:
    def factors(self, data, **changes):
        config = config_of(**{"schedule": "lr_step"} | changes)
        batches = Batches(config, data)
        networks = initial_networks(config, batches, teacher=METHODS[config.method].needs_teacher)
        method = METHODS[config.method](config, batches, *networks)
        factors = [method.schedule(t) for t in range(method.last_step(config.epochs))]
        rates = learning_rates(config, len(data.noisy_labels))
        np.testing.assert_array_equal(rates, config.lr * np.array(factors))
        return factors

    @pytest.fixture
    def data(self, clothing1m, small_images, monkeypatch):
        monkeypatch.setenv("EMLC_DATA", str(clothing1m[0]))
        return prepare(config_of())

    def test_both_rates_fall_to_a_tenth_after_the_first_epoch(self, data):
        assert self.factors(data, method="cross_entropy", batch_size=14, epochs=3) == [1] * 3 + [0.1] * 6
        assert self.factors(data, method="emlc", batch_size=14, epochs=5, lr_step_epoch=2, lr_step_factor=0.5) == [
            *[1] * 6,
            *[0.5] * 9,
        ]

    def test_the_other_schedules(self, data):
        assert self.factors(data, schedule="none", batch_size=21, epochs=2) == [1] * 4
        cosine = self.factors(data, schedule="cosine", k=2, batch_size=21, epochs=2)
        np.testing.assert_allclose(cosine, [1, 1, 0.5, 0.5], rtol=1e-15)

    def test_they_are_constant_between_teacher_updates(self, data):
        """Three batches an epoch and k = 2: the first epoch ends with step 4, the second with step 6."""
        assert self.factors(data, batch_size=14, k=2, epochs=2) == [1] * 4 + [0.1] * 2


class TestImageNet:
    @pytest.fixture
    def published(self, monkeypatch):
        """A stand-in for the download: random weights, and the network that they are of."""
        torch.manual_seed(0)
        net = resnet50()
        asked = []

        class Stub:
            url = "https://example.org/resnet50-0123abcd.pth"

            @staticmethod
            def get_state_dict(**arguments):
                asked.append(arguments)
                return net.state_dict()

        monkeypatch.setattr(files, "PUBLISHED", Stub)
        return net, asked

    def test_student_and_teacher_start_from_it(self, published, clothing1m, small_images, monkeypatch):
        net, asked = published
        monkeypatch.setenv("EMLC_DATA", str(clothing1m[0]))
        config = config_of(model="resnet50_imagenet", start="imagenet", batch_size=4, clean_batch_size=4)
        data = prepare(config)
        batches = Batches(config, data)
        student, teacher = initial_networks(config, batches, teacher=True)
        net.fc = nn.Identity()
        x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            expected = net.eval()(x)
            for features in (student.features, teacher.classifier.features):
                torch.testing.assert_close(features.eval()(x), expected, rtol=1e-4, atol=1e-4)
        assert not torch.equal(student.head.weight, teacher.classifier.head.weight)
        assert all(arguments["check_hash"] and arguments["weights_only"] for arguments in asked)
        # A step with the recorded forward pass, whose tangents go through max pooling.
        method = METHODS["emlc"](config, batches, student.train(), teacher.train())
        log = method.step(0)
        assert torch.isfinite(log["student_loss"])

    def test_weights_that_cannot_be_downloaded(self, published, monkeypatch):
        def offline(**arguments):
            raise OSError("no route to host")

        monkeypatch.setattr(files.PUBLISHED, "get_state_dict", offline)
        with pytest.raises(DataUnavailable, match=r"no route to host.*resnet50-0123abcd\.pth.*start_weights"):
            files.load_imagenet(nn.Identity())

    def test_a_file_that_was_fetched_elsewhere(self, tmp_path, monkeypatch):
        """torchvision's own, which is a pickle, goes by its checksum; any other must be safetensors."""
        weights = {"weight": torch.eye(2), "bias": torch.ones(2), "fc.weight": torch.ones(1)}
        pickled, plain = tmp_path / "resnet50.pth", tmp_path / "mine.safetensors"
        torch.save(weights, pickled)
        save_file(weights, plain)
        digest = files.imagenet_digest(str(pickled))
        with pytest.raises(ValueError, match=rf"resnet50\.pth must be .*resnet50-11ad3fa6\.pth .* with {digest}"):
            files.load_imagenet(nn.Linear(2, 2), str(pickled))
        monkeypatch.setattr(files, "KNOWN", (f"resnet50-{digest}.pth",))
        for path in (pickled, plain):
            features = nn.Linear(2, 2)
            files.load_imagenet(features, str(path))
            assert torch.equal(features.weight, torch.eye(2))

    def test_no_pickle_is_run_even_if_its_checksum_is_known(self, tmp_path, monkeypatch):
        path, trace = tmp_path / "weights.pth", tmp_path / "trace"

        class Harmful:
            def __reduce__(self):
                return (Path.touch, (trace,))

        torch.save({"weight": Harmful()}, path)
        monkeypatch.setattr(files, "KNOWN", (f"resnet50-{files.imagenet_digest(str(path))}.pth",))
        with pytest.raises(ValueError, match=r"^start_weights: weights\.pth is damaged or no weight file"):
            files.load_imagenet(nn.Linear(2, 2), str(path))
        assert not trace.exists()

    def test_weights_of_another_model(self, tmp_path):
        path = tmp_path / "weights.safetensors"
        path.write_bytes(b"no weights")
        with pytest.raises(ValueError, match=r"^start_weights: weights\.safetensors is damaged"):
            files.load_imagenet(nn.Linear(2, 2), str(path))
        save_file({"weight": torch.ones(2, 2), "fc.weight": torch.ones(1)}, path)
        with pytest.raises(ValueError, match=r"weights\.safetensors does not fit this model: missing bias"):
            files.load_imagenet(nn.Linear(2, 2), str(path))

    def test_the_digest_is_that_of_the_file(self, tmp_path, published):
        """The published file, wherever it lies, gives the same runs: torchvision names it by its SHA-256."""
        path = tmp_path / "weights.pth"
        path.write_bytes(b"abc")
        assert files.imagenet_digest(str(path)) == "ba7816bf"
        assert files.imagenet_digest(None) == "0123abcd"
