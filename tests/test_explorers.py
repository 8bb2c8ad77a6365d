"""Explorers: what is recorded of single labels, what filters choose, pictures that follow their controls."""

import hashlib
import io
import json

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from problems import FAST, trained

from benchmarks.label_record import main, write_record
from emlc_lib import ConfigError, make_config, prepare
from emlc_lib.core.meta_gradient import clean_gradient
from emlc_lib.data.augment import normalise
from emlc_lib.data.batches import Batches
from emlc_lib.data.datasets import DATASETS
from emlc_lib.data.experiment_data import on_device
from emlc_lib.experiments.explorers import (
    chosen,
    explore_counterfactual,
    explore_labels,
    explore_meta_gradient,
    explore_pairs,
    gates_by_label,
)
from emlc_lib.experiments.label_record import LabelRecord, record_labels, shipped_teacher
from emlc_lib.networks.weights import SHIPPED_WEIGHTS
from emlc_lib.training.correction import soft_labels
from emlc_lib.training.start import initial_networks

mpl.use("agg")


@pytest.fixture(scope="module")
def digits():
    config = make_config(**FAST)
    return config, prepare(config)


@pytest.fixture(scope="module")
def record(digits):
    return record_labels(*digits, n=60, show=False)


@pytest.fixture(scope="module")
def trained_method():
    method = trained().method
    method.train(False)
    return method


class TestRecord:
    def test_it_ends_where_a_training_ends(self, digits, record, trained_method):
        """The same bits: looking must not change the training."""
        _, data = digits
        with torch.no_grad():
            out = trained_method.teacher(
                normalise(data.noisy_images[:60], data.mean, data.std), data.noisy_labels[:60]
            )
        # Recorded in 64 bits and kept in 32.
        np.testing.assert_allclose(record.gates[-1], out.gate, atol=1e-6)
        np.testing.assert_allclose(record.probabilities[-1], out.logits.softmax(1), atol=1e-6)
        np.testing.assert_allclose(record.soft_labels(-1), out.soft_labels, atol=1e-6)
        assert record.steps.tolist() == [0, *(round(record.steps[-1] * i / 8) for i in range(1, 9))]

    def test_wanted_labels_are_the_slope_of_log_probabilities(self, digits, record):
        """Central differences along g_w in float64, at the initial weights; float32 leaves about 1e-6."""
        config, data = digits
        batches = Batches(config, data)
        student, _ = initial_networks(config, batches, teacher=True)
        clean = batches.clean(0, config.clean_batch_size)
        student = student.double().train()
        g_w, _ = clean_gradient(student, clean.x.double(), clean.labels)
        x = normalise(data.noisy_images[:60], data.mean, data.std).double()
        start = {name: p.detach().clone() for name, p in student.named_parameters()}

        def log_probabilities(step):
            with torch.no_grad():
                for name, p in student.named_parameters():
                    p.copy_(start[name] + step * g_w[name])
                return student(x).log_softmax(1)

        h = 1e-6
        slope = (log_probabilities(h) - log_probabilities(-h)) / (2 * h)
        np.testing.assert_allclose(record.wanted[0], slope, rtol=1e-3, atol=1e-4 * slope.abs().max().item())

    def test_gains_are_the_slope_of_the_loss_along_a_move_to_each_class(self, record):
        v, labels, gains = record.wanted[1], record.soft_labels(1), record.gains(1)
        for i in range(len(v)):
            for c in range(v.shape[1]):
                moved = sum(v[i, j] * ((j == c) - labels[i, j]) for j in range(v.shape[1]))
                assert gains[i, c] == pytest.approx(-moved, rel=1e-4, abs=1e-5 * float(np.abs(v).max()))  # float32
        counted = record.fates()
        assert counted.sum().tolist() == [len(v)] * len(record.steps)
        assert counted.loc["kept", 0] == (record.fate(0) == "kept").sum()

    def test_the_file_is_read_back(self, record, tmp_path):
        write_record(record, tmp_path / "labels.npz")
        again = LabelRecord.load(tmp_path / "labels.npz")
        assert np.array_equal(again.images, record.images)  # grey images are kept exactly
        assert again.classes.tolist() == record.classes.tolist()
        assert again.origin == record.origin
        assert np.array_equal(again.given, record.given)
        # Half precision has 11 bits.
        np.testing.assert_allclose(again.gates, record.gates, rtol=2**-10, atol=1e-7)
        colour = (
            np.random.default_rng(0).integers(0, 256, (4, 1, 1, 3), dtype=np.uint8).repeat(32, 1).repeat(32, 2)
        )
        fields = {**vars(record), "images": colour}
        write_record(LabelRecord(**fields), tmp_path / "colour.npz")
        near = LabelRecord.load(tmp_path / "colour.npz").images
        assert near.shape == colour.shape
        # Lossy at the edges of plain squares, not inside them.
        assert np.abs(near[:, 8:24, 8:24].astype(int) - colour[:, 8:24, 8:24]).max() < 12

    def test_the_command_records_a_training(self, digits, record, tmp_path):
        words = [word for name, value in FAST.items() for word in ("-p", name, str(value))]
        main(["--out", str(tmp_path / "labels.npz"), *words])
        again = LabelRecord.load(tmp_path / "labels.npz")
        assert again.given[:60].tolist() == record.given.tolist()
        # Half precision has 11 bits.
        np.testing.assert_allclose(again.gates[:, :60], record.gates, rtol=2**-10, atol=1e-6)
        assert again.origin.startswith("digits, preset smoke, 90 % symmetric noise, EMLC k = 1, seed 0; ")

    def test_a_file_of_another_kind_is_refused(self, tmp_path):
        np.savez(tmp_path / "other.npz", images=np.zeros(3))
        with pytest.raises(ConfigError, match=r"^record: .*other.npz is no recorded training; it has no classes"):
            LabelRecord.load(tmp_path / "other.npz")
        with pytest.raises(ConfigError, match=r"^record: nowhere.npz is neither a file nor one in"):
            LabelRecord.load("nowhere.npz")

    def test_a_training_of_few_steps_has_a_row_per_moment(self, digits):
        short = make_config(**FAST | {"epochs": 1, "k": 7})
        record = record_labels(short, digits[1], n=5, show=False)
        assert sorted({*record.steps.tolist()}) == record.steps.tolist()
        assert len(record.steps) == len(record.gates) == len(record.wanted)

    def test_only_what_has_a_gate_is_recorded(self, digits):
        _, data = digits
        with pytest.raises(ConfigError, match=r"^method: labels are recorded of emlc, not of mlc$"):
            record_labels(make_config(**FAST, method="mlc"), data)


def test_the_fate_of_a_label_by_hand(record):
    for moment in (0, 3):
        for i, fate in enumerate(record.fate(moment)):
            given, true = record.given[i], record.true[i]
            q = (
                record.gates[moment, i] * np.eye(10)[given]
                + (1 - record.gates[moment, i]) * record.probabilities[moment, i]
            )
            corrected = q.argmax()
            if given == true:
                expected = "kept" if corrected == true else "spoilt"
            else:
                expected = "recovered" if corrected == true else "confirmed" if corrected == given else "changed"
            assert fate == expected


def test_filters_choose_what_they_say(record):
    assert len(chosen(record, 3)) == 60
    parts = [chosen(record, 3, fate) for fate in ("kept", "spoilt", "recovered", "confirmed", "changed")]
    assert sorted(np.concatenate(parts)) == list(range(60))
    found = chosen(record, 3, label="7", gate=(0.5, 1))
    expected = [i for i in range(60) if record.true[i] == 7 and record.gates[3, i] >= 0.5]
    assert found.tolist() == expected


def picture(box):
    return np.asarray(Image.open(io.BytesIO(bytes(box.children[-1].value))))


def changes(box, control, value):
    """Whether the picture is another one once this control has this value."""
    before = picture(box)
    widget = next(child for child in box.children if getattr(child, "description", "") == control)
    widget.value = value
    after = picture(box)
    return before.shape != after.shape or bool((before != after).any())


class TestWidgets:
    def test_labels(self, record):
        box = explore_labels(record)
        assert changes(box, "after", 0)
        assert changes(box, "true class", "3")
        assert changes(box, "gate", (0.0, 0.05))  # perhaps no image: it says so
        assert changes(box, "gate", (0.0, 1.0))
        assert changes(box, "true class", "all")
        assert changes(box, "page", 2)
        page = next(child for child in box.children if getattr(child, "description", "") == "page")
        assert page.max == 8  # 60 images, eight a page
        assert changes(box, "labels", "kept")
        assert page.max == -(-len(chosen(record, 0, "kept")) // 8)

    def test_counterfactual(self, digits, record, trained_method):
        _, data = digits
        teacher = trained_method.teacher
        box = explore_counterfactual(teacher, record, data)
        given = data.noisy_labels[:5].tolist()
        assert changes(box, "given", (given[0] + 1) % 10)
        assert changes(box, "image", 3)
        label = next(child for child in box.children if getattr(child, "description", "") == "given")
        assert label.value == given[3]
        probabilities, gates = gates_by_label(teacher, data.noisy_images[3], data)
        x = normalise(data.noisy_images[3:4], data.mean, data.std)
        with torch.no_grad():
            for c in range(10):
                assert gates[c] == pytest.approx(teacher(x, torch.tensor([c])).gate.item(), rel=1e-5)
            expected = teacher(x, torch.tensor([0])).logits.softmax(1)[0]
        np.testing.assert_allclose(probabilities, expected, rtol=1e-4, atol=1e-7)

    def test_meta_gradient(self):
        box = explore_meta_gradient()
        assert changes(box, "k", 2)
        assert changes(box, "c", 0.0)
        assert changes(box, "mu", 0.0)
        assert changes(box, "eta", 0.1)

    def test_pairs(self):
        rows = [(m, k, n, s) for m, k in (("emlc", 1), ("mlc", 1)) for n in (0.5, 0.9) for s in (0, 1)]
        rows += [("clean_only", 1, 0.9, s) for s in (0, 1)]
        table = pd.DataFrame(rows, columns=["method", "k", "noise", "seed"])
        table = table.assign(noise_type="symmetric", dataset="digits", preset="smoke")
        table["test_accuracy"] = np.random.default_rng(0).random(len(table))
        box = explore_pairs(table)
        assert changes(box, "noise", "symmetric 0.5")
        assert changes(box, "second", "clean labels only")  # whose runs at 90 % serve 50 % as well
        assert changes(box, "first", "MLC")


def test_the_shipped_teacher_is_of_the_recorded_kind():
    """Another run of the same configuration, whose sums were in another order, asked about images in WebP."""
    record = LabelRecord.load("labels_small_cifar10.npz")
    pixels = torch.from_numpy(record.images.copy()).permute(0, 3, 1, 2)
    scale = on_device(DATASETS["cifar10"].constants, "cpu")
    corrected, gates, _ = soft_labels(shipped_teacher(), pixels, torch.from_numpy(record.given), scale)
    right = record.given == record.true
    assert gates.numpy()[right].mean() > 0.6 > 0.15 > gates.numpy()[~right].mean()
    # Two such runs disagree about one image in ten.
    assert (corrected.argmax(1).numpy() == record.soft_labels(-1).argmax(1)).mean() > 0.85
    card = json.loads((SHIPPED_WEIGHTS / "emlc-cifar10-resnet_small.json").read_text())
    weights = (SHIPPED_WEIGHTS / "emlc-cifar10-resnet_small.safetensors").read_bytes()
    assert card["sha256"] == hashlib.sha256(weights).hexdigest()
    assert (card["config"]["preset"], card["config"]["noise"], card["config"]["seed"]) == ("small", 0.5, 0)
