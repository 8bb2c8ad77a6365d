"""A training whose numbers are no longer finite stops: with the step, the last good checkpoint and what helps."""

import pytest
import torch
from torch import nn

from emlc_lib import make_config, prepare
from emlc_lib.methods import METHODS
from emlc_lib.methods.emlc import EMLC
from emlc_lib.runtime.checkpoint import CheckpointWriter
from emlc_lib.runtime.divergence import CHECK_EVERY, check_finite, smaller_rates, what_is_kept
from emlc_lib.training.log import epoch_means
from emlc_lib.training.trainer import CHECKPOINT, train

# Digits: 8 steps an epoch.
SHORT = {"dataset": "digits", "device": "cpu", "epochs": 3, "n_noisy": 256, "batch_size": 32, "lr": 0.1}
NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture(scope="module")
def data():
    return prepare(make_config(**SHORT))


def spoilt(monkeypatch, at, change):
    """``change(method, log)`` after step ``at`` of EMLC."""
    step, made = EMLC.step, []

    def stepped(self, t):
        made.append(t)
        log = step(self, t)
        if t == at:
            change(self, log)
        return log

    monkeypatch.setattr(EMLC, "step", stepped)
    return made


def nan_gradient(name):
    """The update that a gradient with one NaN makes."""

    def change(method, log):
        weight = next(method.networks[name].parameters())
        weight.data.flatten()[0] += NAN

    return change


def spoilt_loss(method, log):
    log["meta_loss"] = torch.tensor(INFINITY)


def spoilt_statistics(method, log):
    norm = next(m for m in method.student.modules() if isinstance(m, nn.BatchNorm2d))
    norm.running_var[0] = INFINITY


def spoilt_momentum(method, log):
    next(iter(method.optimisers["teacher"].state.values()))["momentum_buffer"].flatten()[0] = NAN


@pytest.mark.parametrize(
    ("change", "at", "words"),
    [
        # In the middle of an epoch the next step's loss shows it, at its end nothing but the weights does.
        (nan_gradient("student"), 11, "student_loss is not finite at step 12"),
        (nan_gradient("student"), 15, "the student's .* after the gradient .* is not finite at step 15"),
        (nan_gradient("teacher"), 11, "student_loss is not finite at step 12"),
        (nan_gradient("teacher"), 15, "the teacher's .* after the gradient .* is not finite at step 15"),
        (spoilt_loss, 10, "meta_loss is not finite at step 10"),
        (spoilt_statistics, 15, "the student's .*running_var, .* is not finite at step 15"),
        (spoilt_momentum, 15, "momentum_buffer 0 of the optimiser teacher, .* is not finite at step 15"),
    ],
)
def test_it_stops_and_the_last_good_checkpoint_stays(data, tmp_path, monkeypatch, change, at, words):
    config = make_config(**SHORT)
    after = []

    class Noted(CheckpointWriter):
        def save(self, path, *what):
            super().save(path, *what)
            self.wait()
            after.append(path.read_bytes())

    with monkeypatch.context() as patch:
        spoilt(patch, at, change)
        patch.setattr("emlc_lib.training.trainer.CheckpointWriter", Noted)
        with pytest.raises(FloatingPointError, match=words) as error:
            train(config, data, folder=tmp_path, show=False)
    said = str(error.value)
    assert f"The checkpoint of epoch 1 is kept as it was: {tmp_path / CHECKPOINT}" in said
    assert "What helps: a smaller lr (now 0.1) or a smaller teacher_lr (now " in said
    assert [(tmp_path / CHECKPOINT).read_bytes()] == after
    # The rest of the run, from that checkpoint, is as if nothing had happened.
    resumed, whole = train(config, data, folder=tmp_path, show=False), train(config, data, show=False)
    for name, network in whole.method.networks.items():
        for key, value in network.state_dict().items():
            assert torch.equal(value, resumed.method.networks[name].state_dict()[key])


def test_a_real_divergence_is_one(data):
    wild = {"lr": 10.0, "momentum": 0.99, "weight_decay": 1.0, "schedule": "none", "epochs": 200}
    config = make_config(**SHORT | wild, method="cross_entropy")
    with pytest.raises(FloatingPointError, match=r"not finite at step \d+\. .* smaller lr \(now 10\)"):
        train(config, data, show=False)


def test_what_is_wrong_from_the_start_is_not_blamed_on_the_rates(data):
    broken = data.__class__(**(vars(data) | {"mean": torch.full_like(data.mean, NAN)}))
    with pytest.raises(FloatingPointError, match=r"at step 0\. .* look at the images") as error:
        train(make_config(**SHORT, method="cross_entropy"), broken, show=False)
    assert "smaller" not in str(error.value)


def test_a_long_epoch_does_not_run_to_its_end(monkeypatch):
    config = make_config(**(SHORT | {"n_noisy": 1200, "batch_size": 10, "epochs": 1}))
    made = spoilt(monkeypatch, 20, nan_gradient("student"))
    with pytest.raises(FloatingPointError, match=r"student_loss .* at step 21\. No checkpoints are kept"):
        train(config, prepare(config), show=False)
    assert len(made) == CHECK_EVERY < 1200 // 10


def test_means_over_no_sample_are_no_divergence():
    """MW-Net logs the mean weight of wrong labels: there are none. The epoch's mean leaves out such steps."""
    config = make_config(**SHORT, method="mwnet", noise=0.0)
    trained = train(config, prepare(config), show=False)
    assert trained.steps["weight_wrong"].isna().all()
    assert trained.epochs["weight_right"].between(0, 1).all()
    row = epoch_means([{"a": torch.tensor(x)} for x in (1.0, NAN, 3.0)])
    assert row == {"a": 2.0}


def test_evaluation_counts_too(data, monkeypatch):
    monkeypatch.setattr("emlc_lib.training.trainer.evaluate", lambda *_: {"student_clean_loss": NAN})
    with pytest.raises(FloatingPointError, match="student_clean_loss is not finite at step 7"):
        train(make_config(**SHORT), data, show=False)


def test_finite_numbers_pass():
    log = [{"loss": torch.tensor(1e30), "counts": torch.tensor([3])}, {}]
    network = nn.Linear(2, 2)
    assert check_finite(log, {"n": network}, {}, last_step=1, kept="", cure="") is None
    assert "precision float32" in smaller_rates({"lr": 0.1}, "bfloat16")
    assert "precision" not in smaller_rates({"lr": 0.1}, "float32")


def test_what_is_kept_is_said_as_it_is(tmp_path):
    assert "no checkpoint" in what_is_kept(tmp_path / "none", 0)
    assert "No checkpoints" in what_is_kept(None, 3)
    (tmp_path / "some").touch()
    assert f"epoch 3 is kept as it was: {tmp_path / 'some'}" in what_is_kept(tmp_path / "some", 3)


@pytest.mark.parametrize("name", METHODS)
def test_the_second_rate_is_a_parameter(name):
    config = make_config(**SHORT, method=name)
    rate = METHODS[name].second_rate
    assert rate is None or getattr(config, rate) > 0
    # One network trains at a time, or both at one rate.
    alone = ("cross_entropy", "clean_only", "fasten", "fixmatch", "distilled", "dividemix")
    assert (rate is None) == (name in alone)
