"""Pretraining: the loss against its definition, resumption to the same bits, what it refuses, what it learns."""

import hashlib
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from sklearn.datasets import make_blobs

from emlc_lib import load_dataset, make_config, prepare
from emlc_lib.data.batches import Batches
from emlc_lib.experiments.pretraining import card, command, comparable, obtain, save_pretrained, save_with_card
from emlc_lib.networks.backbones import build_classifier, build_features
from emlc_lib.networks.pretrain_config import PretrainConfig, make_pretrain_config
from emlc_lib.networks.probes import embeddings, knn_probe, linear_probe, probe
from emlc_lib.networks.simclr import CHECKPOINT, Pretrained, nt_xent, pretrain
from emlc_lib.networks.weights import SHIPPED_WEIGHTS
from emlc_lib.runtime.checkpoint import CheckpointError, load_weights
from emlc_lib.training.start import initial_networks

TINY = {"dataset": "digits", "epochs": 2, "batch_size": 64, "precision": "float32"}


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def defined_nt_xent(projections, temperature):
    """Eq. 1 of Chen et al. (2020), view by view, in NumPy."""
    _, n, _ = projections.shape
    z = projections.reshape(2 * n, -1)
    losses = []
    for i in range(2 * n):
        s = [z[i] @ z[j] / (np.linalg.norm(z[i]) * np.linalg.norm(z[j])) / temperature for j in range(2 * n)]
        normaliser = math.log(sum(math.exp(s[j]) for j in range(2 * n) if j != i))
        losses.append(normaliser - s[(i + n) % (2 * n)])
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_nt_xent_is_its_definition(temperature):
    generator = torch.Generator().manual_seed(0)
    projections = torch.randn(2, 7, 5, generator=generator, dtype=torch.float64)
    expected = defined_nt_xent(projections.numpy(), temperature)
    assert nt_xent(projections, temperature).item() == pytest.approx(expected, rel=1e-12)  # float64 rounding


def test_nt_xent_of_equal_projections_is_chance():
    ones = torch.ones(2, 8, 3, dtype=torch.float64)
    assert nt_xent(ones, 0.5).item() == pytest.approx(math.log(2 * 8 - 1), rel=1e-12)


def weights(pretrained):
    return pretrained.features.state_dict()


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_pretraining_is_a_function_of_its_configuration(digits):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = pretrain(make_pretrain_config(**TINY), digits.train_images, show=False)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(1)
    assert equal(weights(first), weights(pretrain(make_pretrain_config(**TINY), digits.train_images, show=False)))
    other = pretrain(make_pretrain_config(**TINY, seed=1), digits.train_images, show=False)
    assert not equal(weights(first), weights(other))
    assert first.epochs["epoch"].tolist() == [1, 2]
    assert not first.features.training


class Interrupted(Exception):
    pass


@pytest.mark.parametrize(("precision", "norm"), [("float32", False), ("bfloat16", False), ("bfloat16", True)])
def test_resuming_gives_the_same_bits(digits, tmp_path, monkeypatch, precision, norm):
    config = make_pretrain_config(**(TINY | {"epochs": 3, "precision": precision, "projection_norm": norm}))
    whole = pretrain(config, digits.train_images, show=False)
    import emlc_lib.networks.simclr as module

    calls, step = [], module._Steps.__call__

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 2 * (len(digits.train_images) // 64) + 5:  # in the third epoch
            raise Interrupted
        return step(*args)

    monkeypatch.setattr(module._Steps, "__call__", interrupted)
    with pytest.raises(Interrupted):
        pretrain(config, digits.train_images, folder=tmp_path, show=False)
    monkeypatch.undo()
    rows = []

    def on_epoch(features, row):
        embeddings(features, digits.test_images, "digits")  # what a look at them changes is changed back
        rows.append(row)

    resumed = pretrain(config, digits.train_images, folder=tmp_path, show=False, on_epoch=on_epoch)
    assert [row["epoch"] for row in rows] == [3]
    assert rows[0]["loss"] == resumed.epochs["loss"].iloc[-1]
    assert equal(weights(whole), weights(resumed))
    assert resumed.epochs["loss"].tolist() == whole.epochs["loss"].tolist()
    # A finished one is read back without a step.
    monkeypatch.setattr(module._Steps, "__call__", None)
    assert equal(weights(whole), weights(pretrain(config, digits.train_images, folder=tmp_path, show=False)))


def test_a_foreign_or_damaged_checkpoint_is_refused_and_kept(digits, tmp_path):
    pretrain(make_pretrain_config(**TINY), digits.train_images, folder=tmp_path, show=False)
    content = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(CheckpointError, match="differs in lr"):
        pretrain(make_pretrain_config(**TINY, lr=0.1), digits.train_images, folder=tmp_path, show=False)
    assert (tmp_path / CHECKPOINT).read_bytes() == content
    (tmp_path / CHECKPOINT).write_bytes(content[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        pretrain(make_pretrain_config(**TINY), digits.train_images, folder=tmp_path, show=False)


def test_a_diverging_loss_stops_with_its_step(digits, tmp_path):
    config = make_pretrain_config(**(TINY | {"lr": 10.0, "momentum": 0.99, "weight_decay": 1.0, "epochs": 10}))
    with pytest.raises(FloatingPointError, match=r"not finite at step \d+\. The checkpoint of .* smaller lr"):
        pretrain(config, digits.train_images, folder=tmp_path, show=False)


def test_any_change_is_another_name():
    base = make_pretrain_config(dataset="cifar10", model="resnet_narrow", device="cpu", precision="bfloat16")
    changes = {
        "seed": 1, "epochs": 7, "batch_size": 512, "view_size": 32, "lr": 0.1, "momentum": 0.8,
        "weight_decay": 0.0, "projection_hidden": 32, "projection_norm": True,
        "warmup_epochs": 5, "temperature": 0.1, "projection_dim": 64, "precision": "float32", "model": "resnet34",
        "dataset": "cifar100",
    }  # fmt: skip
    assert set(changes) | {"device"} == set(PretrainConfig.model_fields)
    names = {base.name} | {base.model_copy(update={name: value}).name for name, value in changes.items()}
    assert len(names) == len(changes) + 1


class TestProbes:
    def test_blobs_are_easy_and_noise_is_chance(self):
        x, y = make_blobs(600, 8, centers=4, cluster_std=0.5, random_state=0)
        sides = x[:400], y[:400], x[400:], y[400:]
        assert linear_probe(*sides) > 0.99
        assert knn_probe(*sides, k=10) > 0.99
        rng = np.random.default_rng(0)
        shuffled = rng.normal(size=(600, 8))
        sides = shuffled[:400], y[:400], shuffled[400:], y[400:]
        # Four standard errors of a share of 1/4 of 200.
        assert abs(linear_probe(*sides) - 0.25) < 4 * (0.25 * 0.75 / 200) ** 0.5
        assert abs(knn_probe(*sides) - 0.25) < 4 * (0.25 * 0.75 / 200) ** 0.5

    def test_neighbours_vote_by_cosine_not_by_distance(self):
        """The length of an embedding does not count, and nearer directions weigh more."""
        train, labels = np.array([[10.0, 0.1], [10.0, 2.0], [9.0, 2.1], [0.0, 0.2]]), np.array([0, 1, 1, 2])
        assert knn_probe(train, labels, np.array([[0.1, 0.001]]), np.array([0]), k=1) == 1
        # Three neighbours: one at cosine 1 against two at about 0.98, at a temperature that decides for the one.
        assert knn_probe(train, labels, np.array([[1.0, 0.0]]), np.array([0]), k=3, temperature=0.01) == 1
        assert knn_probe(train, labels, np.array([[1.0, 0.0]]), np.array([1]), k=3, temperature=1.0) == 1

    def test_embeddings_do_not_depend_on_the_batch(self, digits):
        features, dim = build_features("small_cnn", 1, torch.Generator().manual_seed(0))
        whole = embeddings(features, digits.train_images[:700], "digits")
        assert whole.shape == (700, dim)
        # Rounding differs with the batch's shape: float32 sums of a few hundred terms.
        np.testing.assert_allclose(whole[:7], embeddings(features, digits.train_images[:7], "digits"), atol=1e-5)


def test_pretraining_lowers_the_loss_and_helps_neighbours(digits):
    config = make_pretrain_config(dataset="digits", epochs=8)
    result = pretrain(config, digits.train_images, show=False)
    loss = result.epochs["loss"].to_numpy()
    assert loss[-1] < loss[0] < math.log(2 * 256 - 1)  # a constant network is at log(2n - 1)
    untrained, _ = build_features("small_cnn", 1, torch.Generator().manual_seed(0))
    assert probe(result.features, digits)["knn"] > probe(untrained, digits)["knn"]


class TestStart:
    @pytest.fixture
    def file(self, digits, tmp_path):
        config = make_pretrain_config(**TINY)
        result = pretrain(config, digits.train_images, show=False)
        path = tmp_path / "digits.safetensors"
        save_pretrained(result, config, path)
        return path

    def test_student_and_teacher_begin_with_the_same_features(self, digits, file):
        config = make_config(dataset="digits", start="simclr", start_weights=str(file))
        student, teacher = initial_networks(config, Batches(config, prepare(config, digits)), teacher=True)
        features, _ = build_features("small_cnn", 1, torch.Generator().manual_seed(0))
        load_weights(features, file)
        wanted = features.state_dict()
        assert equal(wanted, student.features.state_dict())
        assert equal(wanted, teacher.classifier.features.state_dict())
        assert not torch.equal(student.head.weight, teacher.classifier.head.weight)

    def test_the_digest_is_of_the_weights_not_of_their_place(self, file, tmp_path):
        moved = tmp_path / "elsewhere.safetensors"
        moved.write_bytes(file.read_bytes())
        one, two = (make_config(dataset="digits", start="simclr", start_weights=str(p)) for p in (file, moved))
        assert one.digest == two.digest
        other = pretrain(make_pretrain_config(**TINY, seed=3), load_dataset("digits").train_images, show=False)
        save_pretrained(other, make_pretrain_config(**TINY, seed=3), moved)
        assert make_config(dataset="digits", start="simclr", start_weights=str(moved)).digest != one.digest


class TestFiles:
    """Weights with their card, as the package looks for them."""

    @pytest.fixture
    def package(self, digits, tmp_path, monkeypatch):
        monkeypatch.setattr("emlc_lib.networks.weights.SHIPPED_WEIGHTS", tmp_path)
        config = make_pretrain_config(**TINY)
        result = pretrain(config, digits.train_images, show=False)
        described = card(result, config, digits, {"linear": 0.9, "knn": 0.8}, {"linear": 0.5, "knn": 0.4})
        return config, result, save_with_card(result, config, described, tmp_path)

    def test_weights_in_the_package_are_taken_without_training(self, package, digits, tmp_path):
        config, result, path = package
        found = obtain(config, digits, root=tmp_path / "runs", show=False)
        assert found.source == path.name
        assert equal(weights(found), weights(result))
        assert found.epochs["loss"].tolist() == result.epochs["loss"].tolist()
        assert not (tmp_path / "runs").exists()
        assert make_config(dataset="digits", start="simclr").start_weights is None  # and a run finds them

    def test_a_card_of_weights_that_were_read_tells_where_they_were_trained(self, package, digits, monkeypatch):
        config, _, path = package
        elsewhere = "emlc_lib.experiments.pretraining.provenance"
        monkeypatch.setattr(elsewhere, lambda _: {"hardware": "that of a reader"})
        probes = {"linear": 0.9, "knn": 0.8}
        other = config.model_copy(update={"precision": "bfloat16"})  # a reader's machine may have another
        described = card(obtain(config, digits, show=False), other, digits, probes, probes)
        stored = json.loads(path.with_suffix(".json").read_text())
        assert all(described[name] == stored[name] for name in ("command", "config", "provenance"))

    @pytest.mark.parametrize(("changes", "retrain"), [({"seed": 1}, False), ({}, True)])
    def test_another_configuration_or_retrain_trains(self, package, digits, tmp_path, changes, retrain):
        config = make_pretrain_config(**TINY, **changes)
        found = obtain(config, digits, root=tmp_path / "runs", retrain=retrain, show=False)
        assert found.source == "trained"
        assert (tmp_path / "runs" / config.name / CHECKPOINT).is_file()

    def test_the_command_names_what_differs_from_the_defaults(self):
        text = command(make_pretrain_config(**TINY, lr=0.1))
        assert text.startswith("papermill notebooks/04_pretrain_simclr.ipynb out.ipynb -p dataset digits")
        options = json.loads(text.split("-y '")[1].rstrip("'"))["options"]
        assert options == {"batch_size": 64, "precision": "float32", "lr": 0.1}

    def test_large_models_are_stored_in_16_bits(self, tmp_path):
        config = make_pretrain_config(dataset="cifar10", model="resnet34", device="cpu")
        features, _ = build_features("resnet34", 3, torch.Generator().manual_seed(0))
        save_pretrained(Pretrained(features, pd.DataFrame()), config, tmp_path / "w.safetensors")
        assert (tmp_path / "w.safetensors").stat().st_size < 43e6
        again, _ = build_features("resnet34", 3, torch.Generator().manual_seed(1))
        load_weights(again, tmp_path / "w.safetensors")
        for a, b in zip(features.parameters(), again.parameters(), strict=True):
            assert b.dtype == torch.float32
            torch.testing.assert_close(a, b, rtol=2**-10, atol=1e-7)  # half a unit in a 16-bit float's last place


class TestShipped:
    NAME = "simclr-cifar10-resnet_narrow"

    @pytest.mark.parametrize(
        ("dataset", "model", "most"),
        [("cifar10", "resnet_narrow", 1e6), ("cifar10", "resnet_small", 4e6), ("cifar100", "resnet_small", 4e6)],
    )
    def test_the_card_belongs_to_the_file_and_holds_what_a_reader_needs(self, dataset, model, most):
        path = SHIPPED_WEIGHTS / f"simclr-{dataset}-{model}.safetensors"
        card = json.loads(path.with_suffix(".json").read_text())
        assert path.stat().st_size < most
        usual = make_pretrain_config(dataset=dataset, model=model, device="cpu", precision="bfloat16")
        assert comparable(usual) == card["config"]
        assert {"data", "epochs", "minutes", "seed", "command", "linear", "knn", "untrained", "sha256"} <= set(
            card
        )
        assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert card["linear"] >= card["untrained"]["linear"] + 0.2
        with safe_open(path, framework="pt") as file:
            assert (file.metadata()["model"], file.metadata()["dataset"]) == (model, dataset)
            assert PretrainConfig(**json.loads(file.metadata()["config"])).epochs == card["epochs"]
        classifier = build_classifier(model, 10, 3, torch.Generator().manual_seed(0))
        load_weights(classifier.features, path)
        assert all(v.isfinite().all() for v in classifier.features.state_dict().values())

    def test_later_parameters_rename_no_earlier_pretraining(self):
        """The card is of a time when every pretraining had two views; its file is still the one that is taken."""
        card = json.loads((SHIPPED_WEIGHTS / f"{self.NAME}.json").read_text())
        config = make_pretrain_config(dataset="cifar10", model="resnet_narrow", device="cpu", precision="bfloat16")
        assert comparable(config) == card["config"]
        assert config.name == "simclr-cifar10-resnet_narrow-seed0-4aa90d52"

    @pytest.mark.slow
    @pytest.mark.cifar10
    def test_neighbours_of_a_part_of_the_data_agree_with_the_card(self):
        """5,000 training images in place of 50,000: still far above the untrained network's."""
        card = json.loads((SHIPPED_WEIGHTS / f"{self.NAME}.json").read_text())
        images = load_dataset("cifar10", download=False)
        features, _ = build_features("resnet_narrow", 3, torch.Generator().manual_seed(0))
        load_weights(features, SHIPPED_WEIGHTS / f"{self.NAME}.safetensors")
        train = embeddings(features, images.train_images[:5000], "cifar10")
        test = embeddings(features, images.test_images[:2000], "cifar10")
        score = knn_probe(train, images.train_labels[:5000], test, images.test_labels[:2000], k=50)
        assert card["untrained"]["knn"] + 0.1 < score < card["knn"] + 0.02
