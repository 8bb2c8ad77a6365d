"""The estimator repairs labels, ranks suspicion, comes back from its file to the same bits."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.utils import estimator_checks
from torch.utils.data import TensorDataset

from emlc_lib import ConfigError, EMLCClassifier, make_config
from emlc_lib.estimator.checks import warn_of_no_correction
from emlc_lib.estimator.images import InputError
from emlc_lib.methods.emlc import EMLC
from emlc_lib.runtime.checkpoint import CheckpointError, CheckpointWriter, read_checkpoint, save_checkpoint
from emlc_lib.training import trainer

# Trainings of a few steps correct nothing, and say so.
pytestmark = [pytest.mark.filterwarnings(f"ignore:{text}") for text in ("no label was changed", "the gate stayed")]

NAMES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
TINY = {"epochs": 2, "start_steps": 2, "batch_size": 16, "clean_batch_size": 8}


class Digits:
    """scikit-learn's digits with 45 % wrong labels, 100 verified ones and a test set."""

    def __init__(self):
        digits, rng = load_digits(), np.random.default_rng(0)
        images, true = (digits.images * (255 / 16)).round().astype(np.uint8), digits.target
        order = rng.permutation(len(true))
        clean = np.concatenate([order[true[order] == c][:10] for c in range(10)])
        rest = order[~np.isin(order, clean)]
        test, noisy = rest[:300], rest[300:]
        self.wrong = rng.random(len(noisy)) < 0.45
        given = np.where(self.wrong, (true[noisy] + rng.integers(1, 10, len(noisy))) % 10, true[noisy])
        self.true = NAMES[true[noisy]]
        self.noisy, self.clean = (images[noisy], NAMES[given]), (images[clean], NAMES[true[clean]])
        self.test = images[test], NAMES[true[test]]


@pytest.fixture(scope="module")
def digits():
    return Digits()


@pytest.fixture(scope="module")
def fitted(digits):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    estimator = EMLCClassifier(epochs=12, start_steps=100).fit(digits.noisy, digits.clean)
    assert torch.equal(before, torch.get_rng_state())  # no global randomness
    return estimator


def small(n=32, *, size=8, classes=2, seed=0, channels=()):
    """Random images with labels."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, size, size, *channels), dtype=np.uint8), np.arange(n) % classes


GOOD, CLEAN = small(), small(8, seed=1)


class TestDigits:
    def test_most_wrong_labels_are_repaired_and_few_right_ones_spoilt(self, digits, fitted):
        corrected = fitted.correct_labels()["corrected_label"].to_numpy()
        assert (corrected == digits.true)[digits.wrong].mean() > 0.8
        assert (corrected != digits.true)[~digits.wrong].mean() < 0.1

    def test_the_rank_of_suspicion_finds_wrong_labels(self, digits, fitted):
        table = fitted.correct_labels()
        assert roc_auc_score(digits.wrong, -table["rank"]) > 0.95
        assert sorted(table["rank"]) == list(range(1, len(table) + 1))

    def test_a_consistent_teacher_finds_wrong_labels_too(self, digits, tmp_path):
        """And comes back from its file; a bound far from what is usual, .98, and from chance."""
        estimator = EMLCClassifier(method="emlc_consistent", epochs=6, start_steps=100)
        estimator.fit(digits.noisy, digits.clean)
        assert estimator.config_.method == "emlc_consistent"
        assert roc_auc_score(digits.wrong, -estimator.correct_labels()["rank"]) > 0.9
        estimator.save(tmp_path / "saved")
        again = EMLCClassifier.load(tmp_path / "saved")
        assert again.config_ == estimator.config_
        assert np.array_equal(again.predict_proba(digits.test), estimator.predict_proba(digits.test))

    def test_the_frame(self, digits, fitted):
        table = fitted.correct_labels()
        assert list(table) == ["index", "given_label", "corrected_label", "probability", "gate", "rank"]
        assert (table["given_label"] == digits.noisy[1]).all()
        assert table["probability"].between(0.1, 1).all()
        assert table["gate"].between(0, 1).all()
        pd.testing.assert_frame_equal(table, fitted.correct_labels(digits.noisy))

    def test_label_issues_say_the_same(self, digits, fitted):
        table, issues = fitted.correct_labels(), fitted.label_issues()
        assert (issues["is_label_issue"] == (table["corrected_label"] != table["given_label"])).all()
        assert (issues["given_label"] == table["given_label"]).all()
        assert (issues["predicted_label"] == table["corrected_label"]).all()
        assert issues["label_quality"].between(0, 1).all()
        assert (issues["label_quality"].rank(method="first") == table["rank"]).all()
        of_student = fitted.predict_proba(digits.noisy[0])
        place = [list(fitted.classes_).index(label) for label in digits.noisy[1]]
        of_both = issues["label_quality"] * 2  # what is left is the teacher's, a probability too
        assert (of_both - of_student[range(len(place)), place]).between(-1e-6, 1 + 1e-6).all()
        pd.testing.assert_frame_equal(issues, fitted.label_issues(digits.noisy))

    def test_label_issues_are_those_of_cleanlab(self, digits, fitted):
        """Its own table beside this one, and its training on what this one leaves."""
        CleanLearning = pytest.importorskip("cleanlab.classification").CleanLearning
        codes = np.searchsorted(fitted.classes_, digits.noisy[1])
        x = digits.noisy[0].reshape(len(codes), -1) / 255
        theirs = CleanLearning(LogisticRegression(max_iter=1000))
        theirs.find_label_issues(x, codes)
        issues = fitted.label_issues()
        assert list(issues) == list(theirs.get_label_issues())
        assert issues.index.equals(theirs.get_label_issues().index)
        numbered = issues.assign(**{n: np.searchsorted(fitted.classes_, issues[n]) for n in list(issues)[2:]})
        trained = CleanLearning(LogisticRegression(max_iter=1000)).fit(x, codes, label_issues=numbered)
        images, true = digits.test
        right = fitted.classes_[trained.predict(images.reshape(len(true), -1) / 255)] == true
        plain = LogisticRegression(max_iter=1000).fit(x, codes)
        before = fitted.classes_[plain.predict(images.reshape(len(true), -1) / 255)] == true
        assert right.mean() > before.mean() + 0.02  # .94 after .89

    @pytest.mark.slow
    def test_several_look_ahead_steps_repair_labels_too(self, digits):
        estimator = EMLCClassifier(k=3, epochs=24, start_steps=100).fit(digits.noisy, digits.clean)
        corrected = estimator.correct_labels()["corrected_label"].to_numpy()
        assert (corrected == digits.true)[digits.wrong].mean() > 0.8
        assert (corrected != digits.true)[~digits.wrong].mean() < 0.1
        assert estimator.config_.k == 3

    def test_predictions(self, digits, fitted):
        images, true = digits.test
        probabilities = fitted.predict_proba(images)
        assert probabilities.shape == (300, 10)
        assert np.abs(probabilities.sum(1) - 1).max() < 1e-12
        assert list(fitted.classes_) == sorted(NAMES)
        assert (fitted.predict(images) == fitted.classes_[probabilities.argmax(1)]).all()
        assert fitted.score(images, true) > 0.85

    def test_the_history_says_nothing_of_labels_that_nobody_knows(self, fitted):
        assert len(fitted.history_) == 12
        assert {"epoch", "student_loss", "student_clean_accuracy", "kept", "gate"} <= set(fitted.history_)
        assert not any("test" in name or "wrong" in name for name in fitted.history_)
        assert not fitted.history_.isna().any(axis=None)

    def test_it_comes_back_from_its_file_to_the_same_bits(self, digits, fitted, tmp_path):
        fitted.save(tmp_path / "digits.safetensors")
        back = EMLCClassifier.load(tmp_path / "digits.safetensors")
        assert np.array_equal(back.predict_proba(digits.test[0]), fitted.predict_proba(digits.test[0]))
        assert np.array_equal(back.predict(digits.test[0]), fitted.predict(digits.test[0]))
        pd.testing.assert_frame_equal(back.correct_labels(), fitted.correct_labels())
        ranks = fitted.correct_labels()["rank"].to_numpy()[fitted.suspects()]
        assert ranks.tolist() == list(range(1, len(ranks) + 1))
        pd.testing.assert_frame_equal(back.correct_labels(digits.test), fitted.correct_labels(digits.test))
        pd.testing.assert_frame_equal(back.history_, fitted.history_)
        assert back.get_params() == fitted.get_params()
        assert (back.config_, back.best_epoch_) == (fitted.config_, fitted.best_epoch_)
        assert back.predict_proba(digits.test[0]).dtype == np.float64

    @pytest.mark.parametrize(
        "options",
        [{"leave_out_given": True}, {"label_embedding": False}, {"teacher_features": "student"},
         {"weight_decay": np.float32(0.5), "label_embedding": np.bool_(True), "momentum": np.float64(0.5)}],
        ids=lambda options: next(iter(options)),
    )  # fmt: skip
    def test_options_come_back_too(self, digits, options, tmp_path):
        """Of the teacher, and as NumPy's numbers, which JSON has no words for."""
        some = [(images[:200], labels[:200]) for images, labels in (digits.noisy, digits.clean)]
        fitted = EMLCClassifier(**TINY, options=options).fit(*some)
        fitted.save(tmp_path / "digits.safetensors")
        back = EMLCClassifier.load(tmp_path / "digits.safetensors")
        assert back.get_params() == fitted.get_params()
        pd.testing.assert_frame_equal(back.correct_labels(digits.test), fitted.correct_labels(digits.test))
        assert np.array_equal(back.predict_proba(digits.test[0]), fitted.predict_proba(digits.test[0]))

    def test_the_seed_decides(self, digits):
        some = [(images[:200], labels[:200]) for images, labels in (digits.noisy, digits.clean)]
        first, again, other = (EMLCClassifier(**TINY, seed=seed).fit(*some) for seed in (0, 0, 1))
        x = digits.test[0]
        assert np.array_equal(first.predict_proba(x), again.predict_proba(x))
        assert not np.array_equal(first.predict_proba(x), other.predict_proba(x))


class Stopped(Exception):
    pass


class TestCheckpoint:
    @pytest.fixture
    def stop_after(self, monkeypatch):
        """Makes trainings stop once so many of their checkpoints are written; 0 lets them go on."""

        def stop_after(epochs):
            written = []

            class Stopping(CheckpointWriter):
                def save(self, *arguments):
                    super().save(*arguments)
                    written.append(arguments)
                    if len(written) == epochs:
                        raise Stopped

            monkeypatch.setattr(trainer, "CheckpointWriter", Stopping)

        return stop_after

    @pytest.mark.parametrize("start", ["random", "pretrain"])
    def test_an_interrupted_fit_goes_on_to_the_same_bits(self, start, stop_after, monkeypatch, tmp_path):
        params = TINY | {"epochs": 3, "start": start, "pretrain_epochs": 1, "k": 2}
        whole = EMLCClassifier(**params).fit(GOOD, CLEAN)
        stop_after(2)
        with pytest.raises(Stopped):
            EMLCClassifier(**params, checkpoint=tmp_path / "c").fit(GOOD, CLEAN)
        stop_after(0)
        steps = []
        step = EMLC.step
        monkeypatch.setattr(EMLC, "step", lambda self, t: steps.append(t) or step(self, t))
        resumed = EMLCClassifier(**params, checkpoint=tmp_path / "c").fit(GOOD, CLEAN)
        assert steps == [4, 5]  # of the third epoch alone
        assert np.array_equal(resumed.predict_proba(GOOD[0]), whole.predict_proba(GOOD[0]))
        pd.testing.assert_frame_equal(resumed.correct_labels(), whole.correct_labels())
        pd.testing.assert_frame_equal(resumed.history_, whole.history_)
        again = EMLCClassifier(**params, checkpoint=tmp_path / "c", patience=9).fit(GOOD, CLEAN)
        assert len(steps) == 2  # nothing is left to do, and patience changes no finished epoch
        assert np.array_equal(again.predict_proba(GOOD[0]), whole.predict_proba(GOOD[0]))
        resumed.save(tmp_path / "e")
        assert EMLCClassifier.load(tmp_path / "e").checkpoint == str(tmp_path / "c")

    @pytest.mark.parametrize(
        ("message", "params", "noisy", "clean"),
        [
            ("differs in lr", {"lr": 0.03}, GOOD, CLEAN),
            ("differs in flip", {"flip": True}, GOOD, CLEAN),
            ("differs in noisy labels", {}, (GOOD[0], 1 - GOOD[1]), CLEAN),
            ("differs in clean images", {}, GOOD, (255 - CLEAN[0], CLEAN[1])),
            (
                "differs in noisy labels, clean labels, classes",
                {},
                (GOOD[0], 6 - GOOD[1]),
                (CLEAN[0], 6 - CLEAN[1]),
            ),
        ],
    )
    def test_a_folder_of_another_fit_is_one_error(self, tmp_path, message, params, noisy, clean):
        EMLCClassifier(**TINY, checkpoint=tmp_path).fit(GOOD, CLEAN)
        with pytest.raises(CheckpointError, match=f"^checkpoint: .* belongs to another fit .*{message}"):
            EMLCClassifier(**TINY | params, checkpoint=tmp_path).fit(noisy, clean)

    def test_checkpoints_without_their_identity_and_damaged_ones(self, tmp_path):
        EMLCClassifier(**TINY, checkpoint=tmp_path).fit(GOOD, CLEAN)
        (tmp_path / "fit.json").write_text("{")
        with pytest.raises(CheckpointError, match=r"^checkpoint: .*fit.json cannot be read"):
            EMLCClassifier(**TINY, checkpoint=tmp_path).fit(GOOD, CLEAN)
        (tmp_path / "fit.json").unlink()
        with pytest.raises(CheckpointError, match=r"^checkpoint: .* of another kind of training"):
            EMLCClassifier(**TINY, checkpoint=tmp_path).fit(GOOD, CLEAN)


class TestFilesOfAnotherVersion:
    def test_what_is_not_allowed_here_is_said(self, tmp_path):
        fitted = EMLCClassifier(**TINY).fit(GOOD, CLEAN)
        fitted.save(tmp_path / "new")
        _, saved = read_checkpoint(tmp_path / "new")
        networks = {"student": fitted.student_, "teacher": fitted.teacher_}
        save_checkpoint(tmp_path / "odd", networks, {}, {}, saved | {"config": saved["config"] | {"lr": -1}})
        with pytest.raises(CheckpointError, match=r"odd was written by another version: lr: .*greater than 0"):
            EMLCClassifier.load(tmp_path / "odd")


class TestWarnings:
    def test_gates_that_stay_near_one_half(self):
        with pytest.warns(UserWarning, match=r"^the gate stayed near one half for 100% .*more epochs"):
            EMLCClassifier(**TINY | {"teacher_lr": 1e-9}).fit(GOOD, CLEAN)

    @pytest.mark.parametrize(("corrected", "warned"), [([0, 1], 1), ([1, 1], 0)])
    def test_no_changed_label(self, corrected, warned):
        correction = {"gate": torch.tensor([0.9, 0.1]), "given": torch.tensor([0, 1])}
        with warnings.catch_warnings(record=True, action="always") as caught:
            warn_of_no_correction(correction | {"corrected": torch.tensor(corrected)})
        assert [str(w.message)[:20] for w in caught] == ["no label was changed"] * warned

    @pytest.mark.slow
    def test_a_training_that_corrects_is_silent(self, digits):
        with warnings.catch_warnings(record=True, action="always") as caught:
            EMLCClassifier(epochs=6, start_steps=100).fit(digits.noisy, digits.clean)
        assert caught == []

    def test_images_of_both_sets_are_counted_and_stay(self):
        noisy = np.concatenate([CLEAN[0][2:4], GOOD[0]]), np.concatenate([CLEAN[1][2:4], GOOD[1]])
        with pytest.warns(
            UserWarning, match=r"^noisy: images that are in the clean set, too: 2 \(first 0, there 2\)"
        ):
            estimator = EMLCClassifier(**TINY).fit(noisy, CLEAN)
        assert list(estimator.correct_labels()["index"]) == list(range(34))


class TestSources:
    def test_arrays_tensors_and_data_sets_are_the_same_to_it(self):
        (x, y), clean = small(), small(8, seed=1)
        grey = EMLCClassifier(**TINY).fit((x, y), clean)
        tensor = torch.from_numpy(x)[:, None]
        others = [
            (tensor, y),
            (x / 255, y),
            (x[..., None], torch.from_numpy(y)),
            TensorDataset(tensor, torch.from_numpy(y)),
        ]
        for noisy in others:
            other = EMLCClassifier(**TINY).fit(noisy, clean)
            assert np.array_equal(other.predict_proba(x), grey.predict_proba(x))
        assert (grey.image_size_, grey.channels_) == (8, 1)

    def test_images_of_other_sizes_and_colours_are_converted(self):
        estimator = EMLCClassifier(**TINY).fit(small(channels=(3,)), small(8, size=12, seed=1))
        assert (estimator.image_size_, estimator.channels_) == (32, 3)
        assert estimator.predict_proba(small(5, size=10)[0]).shape == (5, 2)

    def test_a_users_images_are_no_benchmark(self):
        config = EMLCClassifier(**TINY).fit(GOOD, CLEAN).config_
        assert (config.dataset, config.preset, config.noise_type) == ("own", None, "real")
        with pytest.raises(ConfigError, match=r"^dataset: 'own' is not one of digits, "):
            make_config(dataset="own")

    def test_integer_labels_come_back_as_integers(self, tmp_path):
        (x, y), (clean, verified) = small(), small(8, seed=1)
        estimator = EMLCClassifier(**TINY).fit((x, 3 - 2 * y), (clean, 3 - 2 * verified))
        assert list(estimator.classes_) == [1, 3]
        estimator.save(tmp_path / "e.safetensors")
        back = EMLCClassifier.load(tmp_path / "e.safetensors")
        assert back.predict(x).dtype == estimator.predict(x).dtype == y.dtype

    def test_what_a_gpu_has_trained_is_loaded_without_one(self, tmp_path):
        estimator = EMLCClassifier(**TINY, device="cpu").fit(GOOD, CLEAN)
        before = estimator.predict_proba(GOOD[0])
        on_gpu = {"device": "cuda", "precision": "tf32", "cuda_graph": True}
        estimator.config_ = estimator.config_.model_copy(update=on_gpu)
        estimator.save(tmp_path / "e.safetensors")
        back = EMLCClassifier.load(tmp_path / "e.safetensors", device="cpu")
        back.save(tmp_path / "again.safetensors")
        for other in (back, EMLCClassifier.load(tmp_path / "again.safetensors"), pickle.loads(pickle.dumps(back))):
            assert (other.config_.device, other.config_.precision) == ("cpu", "float32")
            assert np.array_equal(other.predict_proba(GOOD[0]), before)

    def test_tiny_sets_get_smaller_batches_and_more_epochs(self):
        estimator = EMLCClassifier(start_steps=1, patience=1, lr=1e-6).fit(small(6), small(4, seed=1))
        assert (estimator.config_.batch_size, estimator.config_.clean_batch_size) == (6, 4)
        assert estimator.config_.epochs == 600


class TestStopping:
    def test_patience_stops_once_the_clean_loss_stays_above_its_lowest(self):
        estimator = EMLCClassifier(epochs=40, start_steps=0, patience=2, lr=0.3, batch_size=16)
        losses = estimator.fit(small(), small(16, seed=1)).history_["student_clean_loss"].to_numpy()
        assert len(losses) < 40
        assert losses.argmin() == len(losses) - 3

    def test_without_patience_it_runs_to_the_end(self):
        assert len(EMLCClassifier(**TINY).fit(small(), small(8, seed=1)).history_) == 2


def test_other_calls_check_their_input(fitted, tmp_path):
    with pytest.raises(InputError, match=r"^X: "):
        fitted.predict(np.zeros((3, 64)))
    with pytest.raises(InputError, match=r"^noisy: label 'ten'"):
        fitted.correct_labels((np.zeros((1, 8, 8), np.uint8), ["ten"]))
    with pytest.raises(FileNotFoundError):
        EMLCClassifier.load(tmp_path / "nothing.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(CheckpointError):
        EMLCClassifier.load(tmp_path / "junk.safetensors")


class TestScikitLearn:
    @pytest.mark.parametrize(
        "check",
        [
            "check_do_not_raise_errors_in_init_or_set_params",
            "check_estimator_cloneable",
            "check_estimator_repr",
            "check_estimator_tags_renamed",
            "check_estimators_unfitted",
            "check_get_params_invariance",
            "check_mixin_order",
            "check_no_attributes_set_in_init",
            "check_parameters_default_constructible",
            "check_set_params",
            "check_valid_tag_types",
        ],
    )
    def test_the_checks_that_need_no_fit_of_x_and_y(self, check):
        getattr(estimator_checks, check)("EMLCClassifier", EMLCClassifier())

    def test_those_that_fit_with_x_and_y_hold_for_two_sets(self, digits, fitted):
        """check_estimators_pickle, check_methods_subset_invariance, check_methods_sample_order_invariance."""
        x, whole = digits.test[0], fitted.predict_proba(digits.test[0])
        assert np.array_equal(pickle.loads(pickle.dumps(fitted)).predict_proba(x), whole)
        # Other batch sizes sum in another order, in 32 bits.
        parts = np.concatenate([fitted.predict_proba(part) for part in np.split(x, [1, 7, 150])])
        np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-5)
        np.testing.assert_allclose(fitted.predict_proba(x[::-1])[::-1], whole, rtol=0, atol=1e-5)

    def test_fit_returns_itself_changes_no_parameter_and_no_input_and_can_be_repeated(self):
        estimator = EMLCClassifier(**TINY)
        before, copy = estimator.get_params(), [array.copy() for array in (*GOOD, *CLEAN)]
        assert estimator.fit(GOOD, CLEAN) is estimator
        first = estimator.predict_proba(GOOD[0])
        assert estimator.get_params() == before
        assert all(np.array_equal(a, b) for a, b in zip(copy, (*GOOD, *CLEAN), strict=True))
        assert np.array_equal(estimator.fit(GOOD, CLEAN).predict_proba(GOOD[0]), first)
        assert np.array_equal(clone(estimator).fit(GOOD, CLEAN).predict_proba(GOOD[0]), first)
