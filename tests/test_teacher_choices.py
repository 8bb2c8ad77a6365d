"""What section 3.6 and appendix D chose, the other way: each against its formula in float64."""

import copy

import pytest
import torch
from problems import FAST, method, same_bits, trained
from torch.func import functional_call, jvp
from torch.nn import functional as F

from emlc_lib import make_config, run

PARTS = {"lr": 0.05, "k": 1, "corruption": "none", "schedule": "none"}


def soft_labels(teacher, h, given, *, label_embedding=True, leave_out_given=False):
    """Equation 31, sample by sample."""
    rows = []
    for x, label in zip(h, given.tolist(), strict=True):
        z = [teacher.label_embedding.weight[label]] if label_embedding else []
        w = teacher.gate(torch.cat([x, *z])).sigmoid()
        p = teacher.classifier.head(x).exp()
        if leave_out_given:
            p = torch.stack([p[c] * (c != label) for c in range(len(p))])
        rows.append(w * torch.eye(len(p), dtype=p.dtype)[label] + (1 - w) * p / p.sum())
    return torch.stack(rows)


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"label_embedding": False}, {"leave_out_given": True}, {"teacher_features": "student"},
        {"teacher_features": "student", "label_embedding": False, "leave_out_given": True},
    ],
)  # fmt: skip
def test_the_step_follows_corollary_3_1(changes):
    """The labels and the teacher's gradient, term by term; 1e-9: the same float64 sums in another order."""
    built = method(**PARTS | changes)
    student, teacher = copy.deepcopy(built.student), copy.deepcopy(built.teacher)
    batch, clean = built.batches.noisy(0), built.batches.clean(0, 6)
    built.step(0)
    shared = changes.get("teacher_features") == "student"
    options = {name: value for name, value in changes.items() if name != "teacher_features"}

    def features(network, x):
        return network.features(x).detach() if shared else teacher.classifier.features(x)

    q = soft_labels(teacher, features(student, batch.x), batch.given, **options)
    # The student's own step, by hand.
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    loss = -(q.detach() * student(batch.x).log_softmax(1)).sum(1).mean()
    gradients = torch.autograd.grad(loss, list(student.parameters()))
    for p, g, new in zip(student.parameters(), gradients, built.student.parameters(), strict=True):
        p.data -= 0.05 * g
        torch.testing.assert_close(new, p, rtol=1e-9, atol=1e-12)
    clean_loss = F.cross_entropy(student(clean.x), clean.labels)
    g_w = dict(zip(before, torch.autograd.grad(clean_loss, list(student.parameters())), strict=True))

    def log_probabilities(params):
        buffers = {name: b.clone() for name, b in student.named_buffers()}
        return functional_call(student, (params, buffers), (batch.x,)).log_softmax(1)

    v = jvp(log_probabilities, (before,), (g_w,))[1]
    logits = teacher.classifier.head(features(student, clean.x))
    total = F.cross_entropy(logits, clean.labels) + 0.05 * (v * q).sum(1).mean()
    names = [n for n, _ in teacher.named_parameters() if not (shared and "classifier.features" in n)]
    parameters, found = dict(teacher.named_parameters()), dict(built.teacher.named_parameters())
    expected = torch.autograd.grad(total, [parameters[n] for n in names])
    for name, gradient in zip(names, expected, strict=True):
        torch.testing.assert_close(found[name].grad, gradient, rtol=1e-9, atol=1e-12)


def test_a_shared_extractor_is_trained_by_the_student_alone():
    """And its running statistics count each noisy batch once."""
    built = method(**PARTS, teacher_features="student")
    alone = method(**PARTS)
    trained = {id(p) for group in built.optimisers["teacher"].param_groups for p in group["params"]}
    assert not trained & {id(p) for p in built.student.parameters()}
    assert len(trained) == len(list(built.teacher.parameters())) - len(list(built.student.features.parameters()))
    built.step(0), alone.step(0)
    for (name, one), (_, other) in zip(built.student.named_buffers(), alone.student.named_buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0, msg=name)


@pytest.mark.parametrize(
    "changes", [{"label_embedding": False}, {"leave_out_given": True}, {"teacher_features": "student"}]
)
def test_a_finished_run_gives_the_same_teacher_back(tmp_path, changes):
    finished = run(make_config(**FAST, **changes), root=tmp_path, show=False)
    teacher = finished.teacher()
    assert (teacher.label_embedding is None) == ("label_embedding" in changes)
    assert teacher.leave_out_given == ("leave_out_given" in changes)
    last = trained(**changes).method
    assert same_bits(teacher.state_dict(), last.teacher.state_dict())
    shared = same_bits(teacher.classifier.features.state_dict(), last.student.features.state_dict())
    assert shared == ("teacher_features" in changes)
    assert run(make_config(**FAST), root=tmp_path, show=False).digest != finished.digest
