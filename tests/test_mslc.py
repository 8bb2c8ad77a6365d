"""MSLC: its labels and its meta-gradient against loops and autograd, its memory, and what it does on digits.

Tolerances: both sides are the same number in float64 from different sums of products. 1e-9 relative is far above
their rounding (1e-15 times the number of terms) and far below any mistake in the mathematics.
"""

import copy
from types import SimpleNamespace

import pytest
import torch
from problems import FAST, LR, RandomBatches, bits, killed_and_resumed, same_bits, same_training, small, trained
from references import cross_entropy, flat, relative_error, stateless
from torch.func import functional_call
from torch.nn import functional as F

from benchmarks.double_backward import MSLCByDoubleBackward
from emlc_lib import make_config, prepare
from emlc_lib.data.batches import Batches, NoisyBatch
from emlc_lib.methods.look_ahead import LossWeight
from emlc_lib.methods.mslc import MSLC
from emlc_lib.training.trainer import estimate_seconds, train

N = 30


class NumberedBatches(RandomBatches):
    """Batch t of a noisy set of N samples that keep their given labels; 7 of them, no two alike."""

    def __init__(self, **options):
        super().__init__(**options)
        generator = torch.Generator().manual_seed(1)
        self.data = SimpleNamespace(noisy_labels=torch.randint(4, (N,), generator=generator))

    def noisy(self, t):
        index = torch.randperm(N, generator=torch.Generator().manual_seed(t))[:7]
        x, _, true = self.draw(t, 7)
        return NoisyBatch(x, self.data.noisy_labels[index], true, index)


def method(kind="mlp", cls=MSLC, **changes):
    """MSLC on a float64 network, correcting from the first step on unless told otherwise."""
    return small(cls, kind, NumberedBatches, **{"momentum": 0.9, "mslc_plain_share": 0.0} | changes)


def fill(built, seed=5):
    """Puts random distributions into the memory, so that z is neither y nor p."""
    logits = torch.randn(N, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    built.memory.labels.copy_((2 * logits).softmax(1))


def labels_by_loop(corrector, memory, batch, probs):
    """Eq. 8 sample by sample: what is trained on, and what is kept; differentiable in the corrector."""
    trained, kept = [], []
    for i, y, p in zip(batch.index.tolist(), batch.given.tolist(), probs, strict=True):
        z = memory[i]
        given = torch.eye(4, dtype=p.dtype)[y]
        old, now = (torch.eye(4, dtype=p.dtype)[v.argmax()] for v in (z, p))
        a = corrector.given(-p[y].log().reshape(1, 1))[0]
        b = corrector.previous(-(old * p.log()).sum().reshape(1, 1))[0]
        trained.append(a * given + (1 - a) * (b * old + (1 - b) * now))
        kept.append(a * given + (1 - a) * (b * z + (1 - b) * p))
    return torch.stack(trained), torch.stack(kept)


def through_the_virtual_step(built, t):
    """d(clean loss after a plain SGD step)/d(theta), by autograd through that step."""
    student, batch, clean = stateless(built.student), built.batches.noisy(t), built.batches.clean(t, 6)
    w = {n: p.detach().clone().requires_grad_() for n, p in student.named_parameters()}
    logits = functional_call(student, w, (batch.x,))
    q, _ = labels_by_loop(built.corrector, built.memory.labels, batch, logits.detach().softmax(1))
    grads = torch.autograd.grad(cross_entropy(q, logits), list(w.values()), create_graph=True)
    new = {n: p - LR * g for (n, p), g in zip(w.items(), grads, strict=True)}
    loss = F.cross_entropy(functional_call(student, new, (clean.x,)), clean.labels)
    return flat(torch.autograd.grad(loss, list(built.corrector.parameters()))), loss.item()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_the_meta_gradient_is_exact(kind, shared):
    """Momentum is in the student's real steps and not in the virtual ones, so the second step tells them apart."""
    built = method(kind, share_primal=shared)
    fill(built)
    assert (built.recorded(built.batches.noisy(0).x)[1] is not None) == shared
    for t in range(3):
        expected, loss = through_the_virtual_step(built, t)
        log = built.step(t)
        value = flat([p.grad for p in built.corrector.parameters()])
        assert relative_error(value, expected) < 1e-9
        assert log["meta_loss"].item() == pytest.approx(loss, rel=1e-9)


def test_the_real_step_and_the_memory_have_the_labels_of_the_updated_corrector():
    built = method(mslc_lr=0.1)
    fill(built)
    student, memory = copy.deepcopy(built.student), built.memory.labels.clone()
    stale = copy.deepcopy(built.corrector)
    batch = built.batches.noisy(0)
    log = built.step(0)
    logits = student(batch.x)
    q, kept = labels_by_loop(built.corrector, memory, batch, logits.detach().softmax(1))
    loss = cross_entropy(q.detach(), logits)
    grads = torch.autograd.grad(loss, list(student.parameters()))
    for p, g, new in zip(student.parameters(), grads, built.student.parameters(), strict=True):
        torch.testing.assert_close(new, p - LR * g, rtol=1e-9, atol=1e-12)
    assert log["student_loss"].item() == pytest.approx(loss.item(), rel=1e-12)
    # Only this batch's rows have changed, and to these labels.
    torch.testing.assert_close(built.memory.labels[batch.index], kept, rtol=1e-9, atol=1e-12)
    others = [i for i in range(N) if i not in batch.index.tolist()]
    assert torch.equal(built.memory.labels[others], memory[others])
    # With the labels of the corrector before its update these would be other numbers.
    before, _ = labels_by_loop(stale, memory, batch, logits.detach().softmax(1))
    assert abs(cross_entropy(before, logits).item() - loss.item()) > 1e-4
    # The logged gate is a, of the same labels: sums over right and wrong ones.
    a = built.corrector.given(F.cross_entropy(logits, batch.given, reduction="none").unsqueeze(1))
    assert log["correction"][5:].sum().item() == pytest.approx(a.sum().item(), rel=1e-9)


def test_a_prediction_as_its_own_soft_label_has_no_gradient():
    """Why eq. 8 is not followed with probabilities: p's part of the label teaches the student nothing."""
    student, x = (
        method().student,
        torch.randn(7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
    )
    logits = student(x)
    soft = torch.autograd.grad(
        cross_entropy(logits.detach().softmax(1), logits), list(student.parameters()), retain_graph=True
    )
    assert flat(soft).norm() < 1e-14  # rounding of float64
    hard = F.one_hot(logits.argmax(1), 4).double()
    assert flat(torch.autograd.grad(cross_entropy(hard, logits), list(student.parameters()))).norm() > 0.1


def test_the_first_part_is_cross_entropy_and_remembers_predictions():
    built = method(mslc_plain_share=0.5, epochs=2)  # the stand-in has 60 steps per epoch
    student, corrector = copy.deepcopy(built.student), copy.deepcopy(built.corrector)
    # Before it was seen, a sample's corrected label is its given one.
    assert torch.equal(built.memory.labels.argmax(1), built.batches.data.noisy_labels)
    batch = built.batches.noisy(0)
    logits = student(batch.x)
    grads = torch.autograd.grad(F.cross_entropy(logits, batch.given), list(student.parameters()))
    log = built.step(0)
    for p, g, new in zip(student.parameters(), grads, built.student.parameters(), strict=True):
        torch.testing.assert_close(new, p - LR * g, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(built.memory.labels[batch.index], logits.softmax(1), rtol=1e-12, atol=1e-14)
    assert same_bits(built.corrector.state_dict(), corrector.state_dict())
    assert "meta_loss" not in log
    # The labels it trains on are the given ones, with all of the weight.
    right = (batch.given == batch.true).sum().item()
    assert log["correction"].tolist() == [7, 7 - right, right, 0, 7 - right, 0, 0, right, 7 - right, 0]
    assert "meta_loss" not in built.step(59)
    assert "meta_loss" in built.step(60)


def test_both_passes_train_to_the_same_networks():
    """6 steps in float64; 1e-6 since Adam divides small gradients by themselves, and steps amplify."""
    runs = [method("conv", cls) for cls in (MSLCByDoubleBackward, MSLC)]
    for t in range(6):
        for built in runs:
            built.step(t)
    for name in ("student", "corrector", "memory"):
        a, b = (built.networks[name].state_dict() for built in runs)
        for key in a:
            torch.testing.assert_close(a[key], b[key], rtol=1e-6, atol=1e-9)
    # One training pass per step counts for the running statistics.
    assert runs[0].student.features[1].num_batches_tracked == 6


def test_a_coefficient_is_no_linear_function_of_the_loss():
    net = LossWeight(torch.Generator().manual_seed(0)).double()
    losses = torch.linspace(0, 6, 61, dtype=torch.float64).unsqueeze(1)
    logits = torch.logit(net(losses)).squeeze(1)
    assert logits.diff().diff().abs().max() > 1e-4


def test_batches_say_which_samples_they_are():
    config = make_config(**FAST, method="mslc")
    data = prepare(config)
    batches = Batches(config, data)
    seen = [batches.noisy(t) for t in range(batches.steps_per_epoch)]
    index = torch.cat([batch.index for batch in seen])
    assert index.dtype == torch.int64
    assert len(index.unique()) == len(index)
    assert torch.equal(torch.cat([batch.given for batch in seen]), data.noisy_labels[index])
    assert torch.equal(torch.cat([batch.true for batch in seen]), data.true_labels[index])


def test_resuming_gives_the_same_bits(tmp_path):
    """Over the change from given to corrected labels: the memory and Adam's moments are in the checkpoint."""
    config = make_config(**(FAST | {"epochs": 4}), method="mslc", mslc_plain_share=0.25)
    undisturbed, resumed = killed_and_resumed(config, prepare(config), tmp_path)
    assert same_training(undisturbed, resumed)
    memory = resumed.method.memory.labels
    assert not torch.equal(memory, F.one_hot(memory.argmax(1), 10).float())
    assert undisturbed.epochs["meta_loss"].isna().tolist() == [True, False, False, False]


def test_a_resumed_run_without_its_memory_would_differ():
    """That the memory matters: with another one the next corrected labels are others."""
    built, other = (method() for _ in range(2))
    fill(built), fill(other, seed=6)
    built.step(0), other.step(0)
    assert not same_bits(built.student.state_dict(), other.student.state_dict())


def test_weights_come_from_the_seed_alone():
    first = trained(method="mslc")
    torch.manual_seed(99)
    assert same_bits(bits(first), bits(trained(method="mslc")))
    assert not same_bits(method().corrector.state_dict(), method(seed=1).corrector.state_dict())


def test_the_estimate_counts_both_parts_of_the_training(monkeypatch):
    """A third of its steps correct labels, and the estimate looks at such steps too."""
    config = make_config(**(FAST | {"epochs": 6}), method="mslc", mslc_plain_share=2 / 3)
    seen, step = [], MSLC.step

    def spy(self, t):
        log = step(self, t)
        seen.append("meta_loss" in log)
        return log

    monkeypatch.setattr(MSLC, "step", spy)
    assert estimate_seconds(config, prepare(config)) > 0
    assert seen[-3:] == [False, False, True]


@pytest.mark.slow
def test_mslc_recovers_labels_on_digits():
    """Its claims at the smallest scale: at 50 % noise most wrong labels come out right, and a tells them apart."""
    config = make_config(dataset="digits", noise=0.5, method="mslc", device="cpu")
    data = prepare(config)
    last = train(config, data, show=False).epochs.iloc[-1]
    assert last["recovery_all"] > 1 - data.corruption.wrong.mean() + 0.2
    assert last["recovery_wrong"] > 0.6
    assert last["gate_right"] > last["gate_wrong"] + 0.15
