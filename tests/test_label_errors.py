"""Rankings of suspicion, their measures, and out-of-fold probabilities."""

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.label_errors import out_of_fold, suspicions
from emlc_lib import make_config, prepare
from emlc_lib.experiments.label_errors import (
    by_gate,
    correction_quality,
    gaps,
    ranking_quality,
    some_right_and_wrong,
)
from emlc_lib.training.evaluation import predict
from emlc_lib.training.trainer import train


class TestQuality:
    def test_auc_is_the_share_of_pairs_in_order(self):
        draws = np.random.default_rng(0)
        suspicion, wrong = draws.integers(0, 8, 60), draws.random(60) < 0.3
        pairs = [np.sign(a - b) for a in suspicion[wrong] for b in suspicion[~wrong]]
        # Rounding alone: both are sums of halves over the same count.
        assert ranking_quality(suspicion, wrong)["auc"] == pytest.approx((np.mean(pairs) + 1) / 2, abs=1e-12)

    def test_precision_at_the_true_number(self):
        suspicion = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
        wrong = np.array([True, False, True, True, False])
        assert ranking_quality(suspicion, wrong)["precision"] == 2 / 3

    @pytest.mark.parametrize("wrong", [np.zeros(3, bool), np.ones(3, bool)])
    def test_needs_both_kinds(self, wrong):
        with pytest.raises(ValueError, match="wrong: there must be"):
            ranking_quality(np.arange(3), wrong)

    def test_refuses_scores_that_are_no_numbers(self):
        with pytest.raises(ValueError, match="suspicion: must be finite"):
            ranking_quality(np.array([0.1, np.nan]), np.array([True, False]))

    def test_corrections_of_four_labels(self):
        """Of two wrong labels one is repaired, of two right ones one spoilt; the suspicion is right about both."""
        given, true = np.array(list("abcd")), np.array(list("abdc"))
        found = correction_quality(given, np.array(list("acdd")), true, np.array([0, 1, 2, 3]))
        assert found == {"right before": 0.5, "right after": 0.5, "repaired": 0.5, "spoilt": 0.5, "AUC": 1.0}

    def test_without_wrong_labels_there_is_nothing_to_find(self):
        labels = np.array(list("aab"))
        found = correction_quality(labels, np.array(list("aaa")), labels, np.arange(3))
        assert (found["right before"], found["right after"], found["spoilt"]) == (1, 2 / 3, 1 / 3)
        assert np.isnan([found["repaired"], found["AUC"]]).all()

    def test_some_right_and_wrong(self):
        wrong = np.array([True, False, True, True, False])
        chosen = some_right_and_wrong(wrong, 3, np.random.default_rng(0))
        assert wrong[chosen].tolist() == [False, False, True, True, True]
        assert len(set(chosen)) == 5

    def test_bands_of_the_gate(self):
        gate = np.array([0.0, 0.1, 0.6, 1.0, 0.95])
        table = by_gate(gate, changed=np.array([True, False, True, False, False]))
        assert table["samples"].tolist() == [2, 1, 2]
        assert table["gate"].tolist() == pytest.approx([0.05, 0.6, 0.975])
        assert table["changed"].tolist() == [0.5, 1, 0]

    def test_gaps_are_paired_by_seed_within_a_set_of_labels(self):
        rows = [("x", "a", 0, 0.5), ("x", "b", 0, 0.4), ("x", "a", 1, 0.7), ("x", "b", 1, 0.5), ("y", "a", 0, 0.1)]
        table = pd.DataFrame(rows, columns=["labels", "what", "seed", "auc"])
        found = gaps(table, "auc", "a", "b")
        assert (found["x"].mean, found["x"].n, found["y"].n) == (pytest.approx(15), 2, 0)


@pytest.fixture(scope="module")
def config():
    return make_config(dataset="digits", method="cross_entropy", noise=0.3, epochs=2)


@pytest.fixture(scope="module")
def data(config):
    return prepare(config)


class TestOutOfFold:
    @pytest.fixture(scope="class")
    @classmethod
    def probabilities(cls, config, data):
        return out_of_fold(config, data, folds=2)

    def test_rows_are_probabilities_of_every_noisy_image(self, probabilities, data):
        assert probabilities.shape == (len(data.noisy_labels), 10)
        assert np.allclose(probabilities.sum(1), 1, rtol=0, atol=1e-12)  # a softmax in float64

    def test_no_training_sees_what_it_predicts(self, config, data, monkeypatch):
        seen = []
        monkeypatch.setattr("benchmarks.label_errors.train", lambda c, part, **_: seen.append(part) or _Constant())
        monkeypatch.setattr("benchmarks.label_errors.class_probabilities", lambda _, part: _mark(part))
        marks = out_of_fold(config, data, folds=3)[:, 0]
        whole = {image.numpy().tobytes() for image in data.noisy_images}
        hidden = [whole - {image.numpy().tobytes() for image in part.noisy_images} for part in seen]
        predicted = [
            {data.noisy_images[i].numpy().tobytes() for i in np.flatnonzero(marks == f)} for f in set(marks)
        ]
        assert len(hidden) == 3
        # Digits repeats no image, so that images stand for their indices.
        assert sorted(map(len, hidden)) == sorted(map(len, predicted))
        assert all(part in hidden for part in predicted)

    def test_folds_have_the_same_shares_of_given_labels(self, config, data, monkeypatch):
        seen = []
        monkeypatch.setattr("benchmarks.label_errors.train", lambda c, part, **_: seen.append(part) or _Constant())
        monkeypatch.setattr("benchmarks.label_errors.class_probabilities", lambda _, part: _mark(part))
        out_of_fold(config, data, folds=3)
        counts = np.stack([part.noisy_labels.bincount(minlength=10).numpy() for part in seen])
        assert (np.ptp(counts, axis=0) <= 1).all()

    def test_a_begun_series_goes_on(self, config, data, probabilities, tmp_path, monkeypatch):
        file = tmp_path / "folds.npz"
        calls = []

        def stops_at_the_second(*args, **options):
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return train(*args, **options)

        monkeypatch.setattr("benchmarks.label_errors.train", stops_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            out_of_fold(config, data, folds=2, file=file)
        assert np.array_equal(out_of_fold(config, data, folds=2, file=file), probabilities)
        assert len(calls) == 3


class _Constant:
    method = type("M", (), {"reported": None})()


def _mark(part):
    """Probabilities that name the fold by its size and its first image."""
    return np.full((len(part.noisy_images), 10), float(part.noisy_images[0].double().sum()))


class TestSuspicions:
    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls):
        config = make_config(dataset="digits", noise=0.45, epochs=12, seed=0)
        data = prepare(config)
        return train(config, data, show=False).method, data

    @pytest.fixture(scope="class")
    @classmethod
    def scores(cls, trained):
        method, data = trained
        return suspicions(method.student, method.teacher, data)

    def test_are_the_probabilities_of_the_given_labels(self, trained, scores):
        method, data = trained
        of_given = []
        for network in (method.student, method.teacher.classifier):
            probabilities = predict(network, data.noisy_images, data).double().softmax(1)
            of_given.append(probabilities[torch.arange(len(probabilities)), data.noisy_labels].numpy())
        # The networks' passes are in float32, the scores in float64.
        close = dict(rtol=0, atol=1e-6)
        assert np.allclose(scores["student"], 1 - of_given[0], **close)
        assert np.allclose(scores["teacher"], 1 - of_given[1], **close)
        assert np.allclose(scores["both"], 1 - np.mean(of_given, axis=0), **close)
        gate = 1 - scores["gate"]
        assert np.allclose(scores["corrected"], 1 - (gate + (1 - gate) * of_given[1]), **close)

    def test_find_wrong_labels(self, trained, scores):
        _, data = trained
        wrong = (data.noisy_labels != data.true_labels).numpy()
        # 0.5 and the share of wrong labels, 0.4, by chance.
        quality = ranking_quality(scores["both"], wrong)
        assert quality["auc"] > 0.95
        assert quality["precision"] > 0.9
