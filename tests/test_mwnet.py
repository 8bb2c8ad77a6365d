"""Meta-Weight-Net: its meta-gradient, the order of Algorithm 1, and what its weights come to."""

import copy

import pytest
import torch
from problems import RandomBatches, method
from references import flat, relative_error, stateless
from torch.func import functional_call
from torch.nn import functional as F

from emlc_lib import make_config, prepare
from emlc_lib.methods.look_ahead import LossWeight
from emlc_lib.methods.mwnet import MWNet
from emlc_lib.runtime.randomness import torch_generator
from emlc_lib.training.trainer import train


def built(**changes):
    return method(cls=MWNet, **{"method": "mwnet", "schedule": "none"} | changes)


def unrolled_clean_loss(student, weight_net, batch, clean, lr):
    """The clean loss after the virtual step, differentiable with respect to the weight net; nothing is shared
    with the library but the networks."""
    student = stateless(student)
    w = {n: p.detach().clone().requires_grad_() for n, p in student.named_parameters()}
    losses = F.cross_entropy(functional_call(student, w, (batch.x,)), batch.given, reduction="none")
    loss = (weight_net(losses.detach().unsqueeze(1)).squeeze(1) * losses).sum() / len(losses)
    gradients = torch.autograd.grad(loss, list(w.values()), create_graph=True)
    w = {n: p - lr * g for (n, p), g in zip(w.items(), gradients, strict=True)}
    return F.cross_entropy(functional_call(student, w, (clean.x,)), clean.labels)


@pytest.mark.parametrize("model", ["small_cnn", "resnet_narrow"])
@pytest.mark.parametrize("share_primal", [True, False])
def test_the_meta_gradient_is_that_of_autograd_through_the_virtual_step(model, share_primal):
    """Also at the third step, where momentum is pending, and with weight decay: the virtual step leaves out both.
    The two sides are the same sum in float64 in another order: rounding leaves 1e-12 or
    less, and 1e-9 is far below any mistake in the formula."""
    own = built(model=model, share_primal=share_primal, weight_decay=1e-2)
    for t in range(3):
        batch, clean = own.batches.noisy(t), own.batches.clean(t, 6)
        student, weight_net = copy.deepcopy(own.student), copy.deepcopy(own.weight_net)
        expected_loss = unrolled_clean_loss(student, weight_net, batch, clean, lr=0.05)
        expected = flat(torch.autograd.grad(expected_loss, list(weight_net.parameters())))
        log = own.step(t)
        value = flat([p.grad for p in own.weight_net.parameters()])
        assert expected.norm() > 0
        assert relative_error(value, expected) < 1e-9
        assert relative_error(log["meta_loss"], expected_loss) < 1e-9


def test_the_look_ahead_takes_the_scheduled_rate():
    """Half way through a cosine the rate is half: the meta-gradient is that of the smaller step."""
    own = built(schedule="cosine", epochs=1)
    t = 30  # of the 60 steps of RandomBatches' epoch
    batch, clean = own.batches.noisy(t), own.batches.clean(t, 6)
    net = copy.deepcopy(own.weight_net)
    loss = unrolled_clean_loss(own.student, net, batch, clean, lr=0.025)
    expected = flat(torch.autograd.grad(loss, list(net.parameters())))
    own.step(t)
    # 1e-9: float64 rounding, as above.
    assert relative_error(flat([p.grad for p in own.weight_net.parameters()]), expected) < 1e-9


def test_the_student_steps_last_with_the_new_weights_and_counts_each_batch_once():
    """The whole second step against an independent one: Adam on theta, then SGD with momentum on w, whose
    weights come from the new theta. 1e-9: float64 rounding, which Adam's division may enlarge."""
    own = built(weight_decay=1e-2)
    own.step(0)
    batch, clean = own.batches.noisy(1), own.batches.clean(1, 6)
    student, weight_net = copy.deepcopy(own.student), copy.deepcopy(own.weight_net)
    sgd = torch.optim.SGD(student.parameters(), 0.05, momentum=0.9, weight_decay=1e-2)
    sgd.load_state_dict(copy.deepcopy(own.optimisers["student"].state_dict()))
    adam = torch.optim.Adam(weight_net.parameters(), 1e-3, weight_decay=1e-4)
    adam.load_state_dict(copy.deepcopy(own.optimisers["weight_net"].state_dict()))
    adam.zero_grad()
    unrolled_clean_loss(student, weight_net, batch, clean, lr=0.05).backward()
    adam.step()
    losses = F.cross_entropy(student(batch.x), batch.given, reduction="none")
    sgd.zero_grad()
    (weight_net(losses.unsqueeze(1)).squeeze(1).detach() * losses).mean().backward()
    sgd.step()
    own.step(1)
    for network, reference in ((own.student, student), (own.weight_net, weight_net)):
        for (name, value), expected in zip(
            network.state_dict().items(), reference.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9, msg=name)
    # The virtual step and the clean pass leave running statistics alone: two batches, two updates.
    assert own.student.features[1].num_batches_tracked == 2


def test_the_mean_weights_are_those_of_right_and_wrong_labels():
    class SomeRight(RandomBatches):
        def noisy(self, t):
            batch = super().noisy(t)
            return batch._replace(true=torch.cat([batch.given[:4], (batch.given[4:] + 1) % 10]))

    own = built(batches=SomeRight(torch.float64))
    batch = own.batches.noisy(0)
    losses = F.cross_entropy(copy.deepcopy(own.student)(batch.x), batch.given, reduction="none").detach()
    log = own.step(0)
    weights = own.weights(losses)  # theta has moved, and moves once a step
    # The same few numbers summed in another order.
    assert log["weight_right"].item() == pytest.approx(weights[:4].mean().item(), rel=1e-12)
    assert log["weight_wrong"].item() == pytest.approx(weights[4:].mean().item(), rel=1e-12)


DIGITS = {"dataset": "digits", "preset": "smoke", "device": "cpu", "method": "mwnet"}


@pytest.mark.parametrize("seed", [2, 4])
def test_wrong_labels_come_to_count_less_than_right_ones(seed):
    """At 40 % symmetric noise and from a student warmed up on the clean set. In both seeds the untrained weight
    net prefers *large* losses, which are those of wrong labels, so that the preference had to be unlearned.

    From a random start the net learns the opposite on digits: while losses do not tell right from wrong yet, more
    weight for everything helps, the more the larger the loss, and the sigmoid saturates."""
    losses = torch.tensor([0.0, 1.0, 2.0, 4.0, 6.0])
    untrained = LossWeight(torch_generator(seed, MWNet.stream))(losses.unsqueeze(1)).squeeze(1)
    assert (untrained.diff() > 0).all()
    config = make_config(**DIGITS, noise=0.4, seed=seed, start_steps=100, epochs=15)
    result = train(config, prepare(config), show=False)
    assert (result.method.weights(losses).diff() < 0).all()
    last = result.epochs.iloc[-1]
    assert last["weight_right"] > 3 * last["weight_wrong"]
    assert last["student_test_accuracy"] > 0.9
    assert "recovery_all" not in last
