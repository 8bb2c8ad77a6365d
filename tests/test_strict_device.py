"""Whole trainings on a device without values; see :mod:`strict_device` for what that can see and what not."""

import numpy as np
import pytest
import torch
from problems import interrupted
from strict_device import DeviceMismatch, StrictDevice

from emlc_lib import EMLCClassifier, make_config, prepare
from emlc_lib.data.datasets import load_dataset
from emlc_lib.methods import METHODS
from emlc_lib.networks.pretrain_config import make_pretrain_config
from emlc_lib.networks.simclr import pretrain
from emlc_lib.runtime.checkpoint import CheckpointWriter
from emlc_lib.training.trainer import train

# Long enough for checks, logs, evaluation, best epoch and checkpoint to happen twice, and to be taken up again.
SHORT = {"dataset": "digits", "preset": "smoke", "epochs": 2, "n_noisy": 180, "batch_size": 60}

LIGHT = {"mslc": {"mslc_plain_share": 0.5}, "mlnt": {"mlnt_sets": 2}}


@pytest.fixture(autouse=True)
def meta_allowed(monkeypatch):
    """Configurations take the device ``meta``, which users have no use for."""
    for place in (
        "data.parameters.known_device",
        "training.presets.check_device",
        "networks.pretrain_config.check_device",
    ):
        monkeypatch.setattr(f"emlc_lib.{place}", lambda device: device)


def watched(**changes) -> StrictDevice:
    """The trace of a whole training, evaluation and checkpoints included."""
    config = make_config(**SHORT | changes, device="meta")
    with StrictDevice() as device:
        train(config, prepare(config), show=False)
    return device


@pytest.mark.parametrize("method", METHODS)
def test_a_whole_training(method):
    assert watched(method=method, **LIGHT.get(method, {})).copies > 0


@pytest.mark.parametrize("method", METHODS)
def test_no_method_waits_for_the_device_in_a_step(method):
    """A training of twice as many steps waits as often: at the ends of epochs, and there at every check."""
    few, many = (
        sum(watched(method=method, batch_size=size, **LIGHT.get(method, {})).waits.values()) for size in (60, 30)
    )
    assert many == few


@pytest.mark.parametrize("pass_", ["kept", "recomputed"])
@pytest.mark.parametrize("weights", ["paper", "momentum", "exact"])
@pytest.mark.parametrize("k", [1, 3])
def test_every_kind_of_meta_gradient(k, weights, pass_):
    device = watched(k=k, meta_weights=weights, teacher_pass=pass_)
    assert not device.waits["a mask picks elements"]


@pytest.mark.parametrize(
    "changes",
    [
        {"corruption": "random", "share_primal": False},
        {"corruption": "none", "splits": "released", "step_order": "reversed", "step_mean": True, "k": 2},
        {"meta_term": False, "weight_decay": 1e-4, "start_steps": 3},
        {"teacher_features": "student", "label_embedding": False, "leave_out_given": True},
        {"method": "mlc", "k": 3},
    ],
)  # fmt: skip
def test_options(changes):
    device = watched(**changes)
    assert not device.waits["a mask picks elements"]


RESUMES_NOTHING = pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter:UserWarning")


@RESUMES_NOTHING
@pytest.mark.parametrize("method", ["emlc", "mlc", "mwnet", "fasten", "mlnt"])
def test_a_training_is_taken_up_again(method, tmp_path):
    config = make_config(**SHORT, method=method, device="meta", **LIGHT.get(method, {}))

    with StrictDevice():
        data = prepare(config)
        interrupted(config, data, tmp_path)
        assert len(train(config, data, folder=tmp_path, show=False).epochs) == 2


def pretraining(steps: int, epochs: int = 1):
    """A configuration of so many steps an epoch, and its images."""
    drawn = np.random.default_rng(0).integers(0, 256, (20 * steps, 3, 16, 16), dtype=np.uint8)
    options = dict(dataset="cifar10", model="resnet_narrow", view_size=12, batch_size=20, precision="float32")
    return make_pretrain_config(**options, epochs=epochs, device="meta"), torch.from_numpy(drawn)


def test_simclr_does_not_wait_in_a_step():
    def waits(steps: int) -> int:
        with StrictDevice() as device:
            pretrain(*pretraining(steps), show=False)
        assert device.copies == steps
        return sum(device.waits.values())

    assert waits(4) == waits(2)


@RESUMES_NOTHING
def test_simclr_is_taken_up_again(monkeypatch, tmp_path):
    save = CheckpointWriter.save

    def stop(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    config, images = pretraining(2, epochs=2)
    with StrictDevice():
        monkeypatch.setattr(CheckpointWriter, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            pretrain(config, images, folder=tmp_path, show=False)
        monkeypatch.setattr(CheckpointWriter, "save", save)
        assert len(pretrain(config, images, folder=tmp_path, show=False).epochs) == 2


def test_the_estimator():
    images = load_dataset("digits")
    x, y = images.train_images[:200], images.train_labels[:200]
    with StrictDevice():
        fitted = EMLCClassifier(device="meta", epochs=2, start="random").fit((x[50:], y[50:]), (x[:50], y[:50]))
        assert fitted.predict(x).shape == (200,)
        assert len(fitted.correct_labels()) == 150


class TestTheDeviceItself:
    """What CUDA refuses is refused, and what it allows is not."""

    @pytest.mark.parametrize(
        "mixed",
        [
            lambda host, there: torch.stack([host[0], there[0]]),
            lambda host, there: torch.cat([host, there]),
            lambda host, there: host + there,
            lambda host, there: there @ host,
            lambda host, there: host[there.long()],
            lambda host, there: there.scatter(0, host.long(), 1.0),
            lambda host, there: torch._foreach_add([there], [host]),
        ],
    )  # fmt: skip
    def test_mixed_operations_fail(self, mixed):
        host, there = torch.ones(3), torch.ones(3, device="meta")
        with StrictDevice(), pytest.raises((DeviceMismatch, RuntimeError)):
            mixed(host, there)

    def test_numbers_and_copies_may_mix(self):
        host, there = torch.ones(3), torch.ones(3, device="meta")
        with StrictDevice() as device:
            assert (there * torch.tensor(2.0)).is_meta
            assert there[torch.tensor([0, 1])].is_meta
            there.copy_(host)
        assert sum(device.waits.values()) == 2  # the indices and the copy

    @pytest.mark.parametrize(
        "asks",
        [
            lambda t: bool(t.isfinite().all()),
            lambda t: t.sum().item(),
            lambda t: t.tolist(),
            lambda t: t.cpu(),
            lambda t: t.index_put_((t > 0,), torch.zeros((), device="meta")),
        ],
    )  # fmt: skip
    def test_waits_are_counted(self, asks):
        there = torch.ones(3, device="meta")
        with StrictDevice() as device:
            asks(there)
        assert sum(device.waits.values()) == 1

    def test_what_came_from_the_host_is_read_back(self):
        with StrictDevice():
            there = torch.arange(4).to("meta")
            assert there.cpu().tolist() == [0, 1, 2, 3]
            there.add_(1)
            assert there.cpu().tolist() == [1, 1, 1, 1]
