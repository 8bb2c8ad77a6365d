"""The extension's objective against its formula, EMLC's own where nothing is sure, and the student's average."""

import copy

import pytest
import torch
from problems import FAST, RandomBatches, bits, killed_and_resumed, method, same_bits, same_training, trained
from references import unrolled_clean_loss
from torch.nn import functional as F

from emlc_lib import make_config, prepare, run
from emlc_lib.core.metrics import accuracy
from emlc_lib.methods.emlc import EMLC
from emlc_lib.methods.emlc_consistent import EMLCConsistent
from emlc_lib.training.evaluation import predict
from emlc_lib.training.trainer import train

SOME = 0.12  # which some of ten images reach, with new weights
PLAIN = {"lr": 0.05, "corruption": "none", "schedule": "none"}


class Views(RandomBatches):
    def strong(self, batch, t):
        generator = torch.Generator().manual_seed(100 + t)
        return batch.x + torch.randn(batch.x.shape, generator=generator, dtype=batch.x.dtype)

    def two_views(self, t):
        batch = self.noisy(t)
        return batch, self.strong(batch, t)


def both(k, threshold, weight=0.7, **options):
    values = {**PLAIN, "k": k}
    changes = {"consistency_threshold": threshold, "consistency_weight": weight} | options
    return method(cls=EMLC, batches=Views(), **values), method(
        cls=EMLCConsistent, batches=Views(), **values, **changes
    )


@pytest.mark.parametrize("k", [1, 3])
def test_the_teachers_gradient_is_emlcs_and_fixmatchs(k):
    """Image by image in float64; 1e-9: the same sums in another order."""
    plain, consistent = both(k, threshold=SOME)
    teacher = copy.deepcopy(plain.teacher)
    for t in range(k):
        plain.step(t)
        log = consistent.step(t)
    batch, strong = consistent.batches.two_views(k - 1)
    p = teacher.classifier(batch.x).softmax(1).detach()  # in training mode, as in the step
    further = teacher.classifier(strong).log_softmax(1)
    total, sure = 0.0, 0
    for i in range(len(p)):
        if p[i].max() >= SOME:
            sure += 1
            total = total - 0.7 * further[i, p[i].argmax()] / len(p)
    assert 0 < sure < len(p)
    assert log["confident"].item() == pytest.approx(sure / len(p))
    assert log["consistency_loss"].item() == pytest.approx(total.item() / 0.7, rel=1e-9)
    expected = torch.autograd.grad(total, list(teacher.parameters()), materialize_grads=True)
    for a, b, g in zip(consistent.teacher.parameters(), plain.teacher.parameters(), expected, strict=True):
        torch.testing.assert_close(a.grad, b.grad + g, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"student_view": "strong"}, {"sure_labels": True}, {"student_view": "strong", "sure_labels": True}],
    ids=str,
)
def test_the_gradient_is_that_through_the_students_steps(k, options):
    """Autograd through hand-written SGD with momentum, in float64; 1e-9 as above."""
    built = both(k, threshold=SOME, **options)[1]
    built.config = built.config.model_copy(update={"meta_weights": "exact"})
    student, teacher = copy.deepcopy(built.student), copy.deepcopy(built.teacher)
    for t in range(k):
        log = built.step(t)
    views, clean = [built.batches.two_views(t) for t in range(k)], built.batches.clean(0, 6)

    def taught(_, t):
        weak = views[t][0]
        output = teacher(weak.x, weak.given)
        if "sure_labels" not in options:
            return output
        rows = [
            p if p.max() >= SOME else q for p, q in zip(output.logits.softmax(1), output.soft_labels, strict=True)
        ]
        return output._replace(soft_labels=torch.stack(rows))

    seen = [(strong if "student_view" in options else weak.x, t) for t, (weak, strong) in enumerate(views)]
    meta = unrolled_clean_loss(student, taught, seen, clean, lr=0.05, momentum=0.9)
    weak, strong = views[-1]
    confidence, classes = teacher.classifier(weak.x).softmax(1).max(1)
    further = F.cross_entropy(teacher.classifier(strong), classes, reduction="none")
    objective = meta + F.cross_entropy(teacher.classifier(clean.x), clean.labels)
    objective = objective + 0.7 * further[confidence >= SOME].sum() / 10
    expected = torch.autograd.grad(objective, list(teacher.parameters()), materialize_grads=True)
    assert 0 < log["confident"] < 1
    for p, g in zip(built.teacher.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-9, atol=1e-12)


def test_where_no_image_is_sure_it_is_emlc():
    plain, consistent = both(2, threshold=1.0)
    for t in range(4):
        plain.step(t), consistent.step(t)
    for name in ("student", "teacher"):
        assert same_bits(plain.networks[name].state_dict(), consistent.networks[name].state_dict())


def test_labels_still_decide_the_students_steps():
    """Its first step, before any update of the teacher, is EMLC's."""
    plain, consistent = both(2, threshold=0.0)
    plain.step(0), consistent.step(0)
    assert same_bits(plain.student.state_dict(), consistent.student.state_dict())
    assert F.mse_loss(plain.teacher.gate[0].weight, consistent.teacher.gate[0].weight) == 0


AVERAGED = {"method": "emlc_consistent", "student_average": 0.9, "consistency_threshold": 0.5}


@pytest.mark.parametrize("k", [1, 3])
def test_the_average_is_of_all_the_students_steps(k):
    """Its closed form in float64, of weights and running statistics; 1e-12: the same sum in another order."""
    built = method(
        cls=EMLCConsistent, batches=Views(), model="resnet_narrow", **PLAIN, k=k, student_average=0.8,
        meta_weights="momentum",
    )  # fmt: skip
    assert built.reported is built.networks["average"]
    path = [copy.deepcopy(built.student.state_dict())]
    for t in range(6):
        built.step(t)
        path.append(copy.deepcopy(built.student.state_dict()))
    counted = 0
    for name, value in built.reported.state_dict().items():
        if value.is_floating_point():
            expected = 0.8**6 * path[0][name] + sum(0.2 * 0.8 ** (6 - t) * path[t][name] for t in range(1, 7))
            torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
            assert not torch.equal(value, path[-1][name])
        else:
            counted += 1
            assert value == 6
    assert counted
    assert all(p.grad is None and not p.requires_grad for p in built.reported.parameters())


def test_the_average_changes_nothing_that_trains():
    plain, averaged = (trained(**AVERAGED | {"student_average": a, "k": 2}) for a in (0.0, 0.9))
    assert "average" not in plain.method.networks
    assert plain.method.reported is plain.method.student
    without = {name: value for name, value in averaged.method.networks.items() if name != "average"}
    averaged.method.networks = without
    assert same_bits(bits(plain), bits(averaged))
    assert plain.steps.equals(averaged.steps)


def test_the_average_is_what_is_evaluated_and_stored(tmp_path):
    config = make_config(**FAST | AVERAGED | {"epochs": 1})
    data = prepare(config)
    networks = train(config, data, show=False).method.networks  # the same bits again
    finished = run(config, data=data, root=tmp_path, show=False)
    assert same_bits(finished.student().state_dict(), networks["average"].state_dict())

    def test_accuracy(network):
        return accuracy(predict(network, data.test_images, data), data.test_labels)

    assert finished.result["test_accuracy"] == test_accuracy(networks["average"])
    assert finished.result["test_accuracy"] != test_accuracy(networks["student"])


def test_the_average_is_taken_up_again(tmp_path):
    """With k = 2, momentum-aware weights and 19 steps an epoch, so that epochs end in between."""
    config = make_config(**FAST | AVERAGED | {"epochs": 3}, k=2, meta_weights="momentum")
    assert same_training(*killed_and_resumed(config, prepare(config), tmp_path))
