"""The comparison of meta-gradients, where theory says what must come out."""

import math

import pytest
import torch

from emlc_lib import ConfigError, make_config, prepare
from emlc_lib.data.batches import Batches
from emlc_lib.experiments.gradient_errors import _Observed, gradient_errors, gradient_means
from emlc_lib.methods.emlc import EMLC
from emlc_lib.training.start import initial_networks

DIGITS = {"dataset": "digits", "preset": "smoke", "device": "cpu", "noise": 0.5, "schedule": "none"}


def errors(**changes):
    config = make_config(**DIGITS | changes)
    return gradient_errors(config, prepare(config), updates=2, epochs=1, show=False)


def test_without_momentum_and_with_small_steps_the_papers_weights_are_exact():
    """H_ww only enters with eta: at 1e-4 its part is below 1 %, and the networks compute in float32."""
    mean = gradient_means(errors(k=3, lr=1e-4, momentum=0.0))
    assert mean["relative_error"]["paper"] < 0.01
    assert mean["relative_error"]["momentum-aware"] == pytest.approx(mean["relative_error"]["paper"], abs=1e-6)


def test_with_momentum_and_small_steps_the_length_follows_from_the_weights():
    """For eta -> 0 the exact weights of 3 steps are 1 + mu + mu^2, 1 + mu and 1; the paper's are 1, 1, 1.

    The steps' gradients point nearly the same way here, so lengths are about 3 to 5.61: 0.53.
    """
    mean = gradient_means(errors(k=3, lr=1e-4, momentum=0.9))
    assert mean["relative_error"]["momentum-aware"] < 0.01
    assert mean["scale"]["momentum-aware"] == pytest.approx(1, abs=0.01)
    assert mean["scale"]["paper"] == pytest.approx(3 / (1 + 1.9 + 2.71), abs=0.1)
    assert mean["relative_error"]["paper"] > 0.3


def test_the_released_gradient_is_the_reversed_one_over_k():
    table = errors(k=3).set_index(["step", "kind"])
    for step in table.index.levels[0]:
        reversed_, released = table.loc[(step, "reversed")], table.loc[(step, "released")]
        assert released["scale"] == pytest.approx(reversed_["scale"] / 3, rel=1e-5)  # float32
        assert released["cosine"] == pytest.approx(reversed_["cosine"], abs=1e-5)
    mean = gradient_means(table.reset_index())
    assert mean["cosine"]["reversed"] < mean["cosine"]["paper"]
    assert mean["degrees"]["reversed"] == pytest.approx(math.degrees(math.acos(mean["cosine"]["reversed"])))


def test_looking_does_not_change_the_training():
    config = make_config(**DIGITS, k=2)
    data, ends = prepare(config), []
    for cls in (EMLC, _Observed):
        batches = Batches(config, data)
        method = cls(config, batches, *initial_networks(config, batches, teacher=True))
        for network in method.networks.values():
            network.train()
        for t in range(6):
            method.step(t)
        ends.append(
            [v for net in method.networks.values() for v in net.state_dict().values() if v.is_floating_point()]
        )
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.parametrize("changes", [{"k": 1}, {"k": 2, "teacher_pass": "recomputed"}, {"method": "mlc", "k": 2}])
def test_what_it_cannot_compare(changes):
    with pytest.raises(ValueError, match="gradient_errors needs"):
        errors(**changes)


@pytest.mark.parametrize("changes", [{}, {"k": 2, "meta_term": False}, {"k": 2, "teacher_pass": "recomputed"}])
def test_only_what_has_a_meta_gradient_of_several_steps_is_compared(changes):
    with pytest.raises(ConfigError, match=r"^config: gradient_errors needs method emlc, k > 1, meta_term and "):
        errors(**changes)
