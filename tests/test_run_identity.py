"""What tells runs apart, and what may change around them: files, paths, threads, options, other seeds."""

import json
import shlex
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from emlc_lib import find_runs, load_dataset, make_config, prepare, run
from emlc_lib.experiments.pretraining import save_pretrained
from emlc_lib.experiments.runs import command
from emlc_lib.experiments.tables import accuracy_table, caption, compare, run_table
from emlc_lib.methods.emlc import EMLC
from emlc_lib.networks.pretrain_config import make_pretrain_config
from emlc_lib.networks.simclr import pretrain
from emlc_lib.runtime.files import clear_temporaries
from emlc_lib.training.evaluation import evaluate
from emlc_lib.training.trainer import CHECKPOINT, train

SHORT = {"dataset": "digits", "device": "cpu", "epochs": 2, "n_noisy": 256, "batch_size": 32}


def made_by(text):
    """The configuration that a papermill command makes, as the notebook does."""
    words, given = shlex.split(text), {}
    for i, word in enumerate(words):
        if word == "-p":
            try:
                given[words[i + 1]] = json.loads(words[i + 2])
            except ValueError:
                given[words[i + 1]] = words[i + 2]
        if word == "-y":
            given |= json.loads(words[i + 1])["options"]
    return make_config(**given, device="cpu")


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": "cifar10", "preset": "quick", "n_noisy": "all"},
        {"dataset": "cifar10", "preset": "quick", "noise_type": "asymmetric", "noise": 0.4, "k": 5},
        {"dataset": "digits", "epochs": 7, "lr": 0.1, "seed": 3, "teacher_momentum": 0.0},
        {"dataset": "digits", "method": "clean_only", "augment": False},
        {"dataset": "clothing1m", "preset": "smoke", "n_clean": 50},
        {"dataset": "clothing1m", "preset": "smoke", "n_noisy": "all", "k": 2},
    ],
)
def test_the_command_makes_the_same_run(changes):
    config = make_config(**changes, device="cpu")
    text = command(config)
    again = made_by(text if config.dataset != "clothing1m" else f"{text} -p dataset clothing1m")
    assert again == config
    assert again.name == config.name


def test_files_of_others_are_left_alone(tmp_path):
    for name in ("thesis.tmp", "a.123.tmp", "checkpoint.safetensors.old.tmp"):
        (tmp_path / name).touch()
    for name in ("checkpoint.safetensors.12.tmp", "result.json.3.tmp", "epochs.csv.4.tmp"):
        (tmp_path / name).touch()
    clear_temporaries(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.123.tmp", "checkpoint.safetensors.old.tmp", "thesis.tmp"
    ]  # fmt: skip


@pytest.fixture
def weights(tmp_path):
    config = make_pretrain_config(dataset="digits", device="cpu", epochs=1)
    path = tmp_path / "weights.safetensors"
    save_pretrained(pretrain(config, load_dataset("digits").train_images, show=False), config, path)
    return path


def test_a_run_is_read_back_without_the_files_that_it_began_with(tmp_path, weights):
    config = make_config(**SHORT, start="simclr", start_weights=str(weights))
    finished, digest = run(config, root=tmp_path / "runs", show=False), config.digest
    weights.unlink()
    (again,) = find_runs(tmp_path / "runs")
    assert again.config == finished.config
    assert run_table([again])["digest"].tolist() == [digest]
    assert torch.equal(again.student().head.weight, finished.student().head.weight)


class Stopped(Exception):
    pass


def begun(config, folder, monkeypatch):
    """A training that ends with an error in its second epoch."""
    step = EMLC.step

    def stopping(self, t):
        if t == 9:
            raise Stopped
        return step(self, t)

    with monkeypatch.context() as patch:
        patch.setattr(EMLC, "step", stopping)
        with pytest.raises(Stopped):
            train(config, prepare(config), folder=folder, show=False)
    assert (folder / CHECKPOINT).is_file()


def test_a_begun_run_goes_on_where_its_files_lie_elsewhere(tmp_path, weights, monkeypatch):
    config = make_config(**SHORT, start="simclr", start_weights=str(weights))
    begun(config, tmp_path / "run", monkeypatch)
    moved = tmp_path / "elsewhere.safetensors"
    shutil.move(weights, moved)
    other = make_config(**SHORT, start="simclr", start_weights=str(moved))
    assert len(train(other, prepare(other), folder=tmp_path / "run", show=False).epochs) == 2


def test_another_number_of_threads_is_said(tmp_path, monkeypatch):
    config, threads = make_config(**SHORT), torch.get_num_threads()
    begun(config, tmp_path, monkeypatch)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    with pytest.warns(UserWarning, match=f"written with {threads} threads and is resumed with {threads + 1}"):
        train(config, prepare(config), folder=tmp_path, show=False)


def test_everything_of_a_training_has_its_precision(monkeypatch):
    """TF32 is on by default for convolutions: also evaluation and warm-up must turn it off."""
    seen = []

    def watched(method, data):
        seen.append(torch.backends.cudnn.allow_tf32)
        return evaluate(method, data)

    monkeypatch.setattr("emlc_lib.training.trainer.evaluate", watched)
    monkeypatch.setattr(
        "emlc_lib.training.start.check_finite", lambda *_, **__: seen.append(torch.backends.cudnn.allow_tf32)
    )
    assert torch.backends.cudnn.allow_tf32
    config = make_config(**SHORT, start_steps=2)
    train(config, prepare(config), show=False)
    assert seen == [False] * 3
    assert torch.backends.cudnn.allow_tf32


def test_a_warm_up_that_diverges_is_blamed_on_its_rate(monkeypatch):
    def spoil(parameters):
        next(iter(parameters)).grad.fill_(float("nan"))

    monkeypatch.setattr("emlc_lib.training.start.average_gradients", spoil)
    config = make_config(**SHORT, start_steps=300, start_lr=10.0)
    with pytest.raises(FloatingPointError, match=r"warm-up .* at step 1\. .* a smaller start_lr \(now 10\)"):
        train(config, prepare(config), show=False)


def test_the_number_of_steps_ahead_counts_for_those_that_look_ahead_only():
    for method, shares in (("emlc", False), ("mlc", False), ("mwnet", True), ("mslc", True)):
        config = make_config(**SHORT, method=method, k=None if shares else 5)
        assert config.shares_primal == shares
        assert (config.digest == make_config(**SHORT, method=method).digest) == shares


def test_what_the_result_does_not_depend_on_renames_no_run(tmp_path):
    labels = tmp_path / "labels.npz"
    np.savez(labels, worse_label=np.zeros(3, int))
    usual = make_config(**SHORT)
    assert make_config(**SHORT, human_key="aggre_label", human_labels=labels).name == usual.name
    assert len({make_config(**SHORT, method="clean_only", noise=noise).name for noise in (0.2, 0.9)}) == 1


@pytest.mark.parametrize("method", ["clean_only", "fixmatch", "distilled"])
def test_a_run_that_sees_no_noisy_label_serves_all_noise(method, tmp_path):
    """To the same bits; it is found by the noise that is asked for."""
    changes = ({"noise": 0.2}, {"noise": 0.9}, {"noise_type": "asymmetric", "noise": 0.4})
    configs = [make_config(**SHORT, method=method, **change) for change in changes]
    students = [train(config, prepare(config), show=False).method.student.state_dict() for config in configs]
    for name, value in students[0].items():
        assert all(torch.equal(other[name], value) for other in students[1:])
    first = run(configs[0], root=tmp_path, show=False)
    assert run(configs[1], root=tmp_path, show=False).folder == first.folder
    assert [r.folder for r in find_runs(tmp_path, noise=0.9, method=method)] == [first.folder]
    assert accuracy_table([first])["noise"].tolist() == ["any"]


def test_a_damaged_run_of_another_setting_is_said_and_left_out(tmp_path):
    run(make_config(**SHORT), root=tmp_path, show=False)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "result.json").write_text("{")
    with pytest.warns(UserWarning, match=r"other holds a run that cannot be read"):
        assert len(find_runs(tmp_path)) == 1


def table(*rows):
    usual = {
        "dataset": "cifar10", "preset": "paper", "noise_type": "symmetric", "noise": 0.9, "method": "emlc", "k": 1,
        "seed": 0, "test_accuracy": 0.5, "last_test_accuracy": 0.5, "last_teacher_test_accuracy": 0.5,
        "last_recovery_all": 0.5, "seconds": 1.0, "command": "papermill n.ipynb out.ipynb -p seed 0",
        "hardware": "a machine", "torch": "2.0",
    }  # fmt: skip
    return pd.DataFrame([usual | row for row in rows])


class TestTables:
    def test_other_options_have_other_rows(self):
        other = """papermill n.ipynb out.ipynb -p seed 0 -p epochs 3 -y '{"options": {"lr": 0.1}}'"""
        found = accuracy_table(
            table({}, {"seed": 1, "test_accuracy": 0.7}, {"command": other, "test_accuracy": 0.1})
        )
        assert found["options"].tolist() == ["", "epochs 3, lr 0.1"]
        assert found["n"].tolist() == [2, 1]
        assert found["mean"].tolist() == [60.0, 10.0]
        assert found["comparable"].tolist() == [True, False]
        assert found["paper"].tolist() == [90.71, 90.71]

    def test_without_options_there_is_no_such_column(self):
        assert "options" not in accuracy_table(table({}, {"seed": 1}))

    def test_human_labels_are_kept_apart_by_their_key(self):
        text = "papermill n.ipynb out.ipynb -p seed 0 -p human_labels FILE.npz -p human_key"
        rows = [{"noise_type": "human", "command": f"{text} {key}"} for key in ("worse_label", "aggre_label")]
        assert accuracy_table(table(*rows))["noise"].tolist() == ["human worse_label", "human aggre_label"]
        assert "human noise" in caption(table(rows[0]))
        assert "%" not in caption(table(rows[0]))

    def test_two_runs_of_one_seed_are_no_two_seeds(self):
        with pytest.raises(ValueError, match=r"^runs: two of them are of .*method emlc k=1.*seed 0"):
            accuracy_table(table({}, {"test_accuracy": 0.9}))
        with pytest.raises(ValueError, match=r"^runs: two of them are of method emlc"):
            compare(table({}, {"test_accuracy": 0.9}, {"method": "cross_entropy"}, {"method": "clean_only"}))

    def test_runs_that_differ_in_what_no_column_shows_are_told_apart(self):
        rows = [{"digest": "a"}, {"digest": "b", "hardware": "a GPU"}, {"digest": "c", "seed": 1}, {"digest": "a"}]
        found = accuracy_table(table(*rows))
        assert found["options"].tolist() == ["on a machine", "on a GPU"]
        assert found["n"].tolist() == [2, 1]
        assert found["comparable"].all()
        found = accuracy_table(table({"digest": "a"}, {"digest": "b"}))
        assert found["options"].tolist() == ["run a", "run b"]

    def test_real_runs_of_two_options(self, tmp_path):
        for changes in ({}, {"lr": 0.2}, {"seed": 1}):
            run(make_config(**SHORT | changes, method="cross_entropy"), root=tmp_path, show=False)
        found = accuracy_table(find_runs(tmp_path)).set_index("options")
        assert sorted(found["n"]) == [1, 2]
        assert np.isfinite(found["mean"]).all()
