"""Propositions 1-3, Corollary 3.1 and the exact k-step gradient against independent references in float64.

Tolerances: both sides are the same real number computed with different sums of products in float64, whose
rounding leaves relative errors near 1e-15 times the number of terms; 1e-10 (1e-9 over several steps) is far
above that and far below any mistake in the mathematics.
"""

import copy

import pytest
import torch
from references import flat, mixed_hessian, relative_error, stateless, unrolled_clean_loss, unrolled_gradient
from torch.func import functional_call, jacrev

from benchmarks.double_backward import double_backward_surrogate
from emlc_lib.core.meta_gradient import (
    InnerStep,
    batch_statistics_only,
    clean_gradient,
    exact_surrogate,
    k_step_surrogate,
    k_step_vectors,
    log_prob_jvp,
    lookahead_weights,
    parameters_of,
    surrogate,
)
from emlc_lib.runtime.tangent import TapedForward


def take_steps(problem, *, lr, momentum=0.0, weight_decay=0.0, taped=None):
    """Trains the student as the trainer does, and returns what the meta-gradient needs."""
    optimiser = torch.optim.SGD(problem.student.parameters(), lr, momentum=momentum, weight_decay=weight_decay)
    steps = []
    for x, given in problem.noisy:
        q = problem.teacher(x, given).soft_labels
        before = parameters_of(problem.student)
        logits, tape = taped(x) if taped else (problem.student(x), None)
        steps.append(InnerStep(before, x, q, tape))
        optimiser.zero_grad()
        (-(q.detach() * logits.log_softmax(1)).sum(1).mean()).backward()
        optimiser.step()
    g_w, _ = clean_gradient(problem.student, *problem.clean)
    return steps, g_w


def by_tape(taped):
    return {"product": taped.log_prob_jvp} if taped else {}


def teacher_gradient(problem, scalar):
    return flat(
        torch.autograd.grad(scalar, list(problem.teacher.parameters()), retain_graph=True, materialize_grads=True)
    )


@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("shared", [False, True])
def test_one_step_is_exact(make_problem, kind, shared):
    problem = make_problem(kind, k=1)
    expected = unrolled_gradient(problem.student, problem.teacher, problem.noisy, problem.clean, lr=0.3)
    taped = TapedForward(problem.student) if shared else None
    steps, g_w = take_steps(problem, lr=0.3, taped=taped)
    value = teacher_gradient(problem, k_step_surrogate(problem.student, steps, g_w, lr=0.3, **by_tape(taped)))
    assert expected.norm() > 1e-4
    assert relative_error(value, expected) <= 1e-10


def test_one_step_is_exact_whatever_the_momentum_buffer(make_problem):
    """Momentum and weight decay add constants to one step: the derivative is Prop. 1's all the same."""
    problem = make_problem("mlp", k=1)
    generator = torch.Generator().manual_seed(1)
    buffers = {
        n: torch.randn(p.shape, generator=generator, dtype=torch.float64)
        for n, p in problem.student.named_parameters()
    }
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}
    expected = unrolled_gradient(
        problem.student, problem.teacher, problem.noisy, problem.clean, buffers=buffers, **settings
    )
    optimiser = torch.optim.SGD(problem.student.parameters(), **settings)
    for n, p in problem.student.named_parameters():
        optimiser.state[p]["momentum_buffer"] = buffers[n].clone()
    (x, given), before = problem.noisy[0], parameters_of(problem.student)
    q = problem.teacher(x, given).soft_labels
    (-(q.detach() * problem.student(x).log_softmax(1)).sum(1).mean()).backward()
    optimiser.step()
    g_w, _ = clean_gradient(problem.student, *problem.clean)
    value = teacher_gradient(
        problem, k_step_surrogate(problem.student, [InnerStep(before, x, q)], g_w, lr=settings["lr"])
    )
    assert relative_error(value, expected) <= 1e-10


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_proposition_3_against_the_full_mixed_hessian(make_problem, kind):
    problem = make_problem(kind, k=1)
    x, given = problem.noisy[0]
    w = parameters_of(problem.student)
    alpha = {n: p.detach() for n, p in problem.teacher.named_parameters()}
    expected = mixed_hessian(problem.student, problem.teacher, w, x, given)

    student, teacher = stateless(problem.student), stateless(problem.teacher)
    j_w = jacrev(lambda w: functional_call(student, w, (x,)).log_softmax(1))(w)
    j_a = jacrev(lambda a: functional_call(teacher, a, (x, given)).soft_labels)(alpha)
    n, c = given.shape[0], 4
    j_w = torch.cat([j_w[name].reshape(n, c, -1) for name in w], dim=2)
    j_a = torch.cat([j_a[name].reshape(n, c, -1) for name in alpha], dim=2)
    value = -torch.einsum("icw,ica->wa", j_w, j_a) / n
    assert relative_error(value, expected) <= 1e-10


@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("shared", [False, True])
def test_k_step_sum_term_by_term(make_problem, kind, shared):
    """Eq. 8 with explicit mixed Hessians at each step's own parameters and batch; the order matters."""
    lr, k = 0.3, 3
    problem = make_problem(kind, k)
    taped = TapedForward(problem.student) if shared else None
    steps, g_w = take_steps(problem, lr=lr, momentum=0.9, taped=taped)
    gamma, g = 1 - lr, flat(g_w.values())
    expected = 0.0
    for distance, step, (x, given) in zip((2, 1, 0), steps, problem.noisy, strict=True):
        h = mixed_hessian(problem.student, problem.teacher, step.params, x, given)
        expected = expected - lr * gamma**distance * (g @ h)
    value = teacher_gradient(problem, k_step_surrogate(problem.student, steps, g_w, lr=lr, **by_tape(taped)))
    assert relative_error(value, expected) <= 1e-10
    # What the released code computes: one step's Jacobians with another step's labels.
    labels = [s.soft_labels for s in steps][::-1]
    mixed = [s._replace(soft_labels=q) for s, q in zip(steps, labels, strict=True)]
    wrong = teacher_gradient(problem, k_step_surrogate(problem.student, mixed, g_w, lr=lr, **by_tape(taped)))
    assert relative_error(wrong, expected) > 1e-2


@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.0), (0.9, 0.05)])
def test_exact_k_step_against_the_unrolled_loop(make_problem, kind, k, momentum, weight_decay):
    problem = make_problem(kind, k)
    settings = {"lr": 0.2, "momentum": momentum, "weight_decay": weight_decay}
    expected = unrolled_gradient(problem.student, problem.teacher, problem.noisy, problem.clean, **settings)
    steps, g_w = take_steps(problem, **settings)
    value = teacher_gradient(problem, exact_surrogate(problem.student, steps, g_w, **settings))
    assert relative_error(value, expected) <= 1e-9


@pytest.mark.parametrize("k", [1, 4])
def test_exact_against_central_differences(make_problem, k):
    """A reference without any differentiation, on a smooth net.

    With h = 1e-4 the central difference's error is about h^2 = 1e-8 relative (third derivatives of order one)
    plus rounding of 1e-16 / h = 1e-12 absolute; 1e-6 leaves room for both on directional derivatives.
    """
    problem = make_problem("smooth", k)
    settings = {"lr": 0.2, "momentum": 0.9, "weight_decay": 0.01}
    direction = [
        torch.randn(p.shape, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        for i, p in enumerate(problem.teacher.parameters())
    ]

    def loss(h):
        teacher = copy.deepcopy(problem.teacher)
        with torch.no_grad():
            for p, d in zip(teacher.parameters(), direction, strict=True):
                p.add_(h * d)
        return unrolled_clean_loss(problem.student, teacher, problem.noisy, problem.clean, **settings).item()

    expected = (loss(1e-4) - loss(-1e-4)) / 2e-4
    steps, g_w = take_steps(problem, **settings)
    value = teacher_gradient(problem, exact_surrogate(problem.student, steps, g_w, **settings))
    assert (value @ flat(direction)).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shared", [False, True])
def test_jvp_against_the_full_jacobian(make_problem, shared):
    problem = make_problem("conv", k=1)
    (x, given), w = problem.noisy[0], parameters_of(problem.student)
    generator = torch.Generator().manual_seed(5)
    direction = {n: torch.randn(p.shape, generator=generator, dtype=torch.float64) for n, p in w.items()}
    taped = TapedForward(problem.student) if shared else None
    tape = taped(x)[1] if shared else None
    step = InnerStep(w, x, problem.teacher(x, given).soft_labels, tape)
    value = (taped.log_prob_jvp if shared else log_prob_jvp)(problem.student, step, direction)
    student = stateless(problem.student)
    jacobian = jacrev(lambda p: functional_call(student, p, (x,)).log_softmax(1))(w)
    expected = sum((jacobian[n] * direction[n]).flatten(2).sum(2) for n in w)
    assert relative_error(value, expected) <= 1e-12
    assert not value.requires_grad


def test_the_usual_way_gives_proposition_1(make_problem):
    """A second backward pass, without Proposition 3, against g_w^T times the explicit mixed Hessian."""
    problem, lr = make_problem("mlp", k=1), 0.3
    (x, given) = problem.noisy[0]
    before = parameters_of(problem.student)
    h = mixed_hessian(problem.student, problem.teacher, before, x, given)
    steps, g_w = take_steps(problem, lr=lr)
    problem.student.load_state_dict(before)  # where the noisy batch's gradient is taken
    named = dict(problem.student.named_parameters())
    loss = -(steps[0].soft_labels * problem.student(x).log_softmax(1)).sum(1).mean()
    gradients = dict(zip(named, torch.autograd.grad(loss, named.values(), create_graph=True), strict=True))
    value = teacher_gradient(problem, double_backward_surrogate(gradients, g_w, lr=lr))
    assert relative_error(value, -lr * (flat(g_w.values()) @ h)) <= 1e-10


def test_exact_vectors_are_those_of_plain_sgd_unless_told_otherwise(make_problem):
    problem = make_problem("mlp", k=3)
    expected = unrolled_gradient(problem.student, problem.teacher, problem.noisy, problem.clean, lr=0.2)
    steps, g_w = take_steps(problem, lr=0.2)
    value = teacher_gradient(problem, exact_surrogate(problem.student, steps, g_w, lr=0.2))
    assert relative_error(value, expected) <= 1e-9


def test_vectors_come_from_the_tape_or_the_product_that_is_given(make_problem):
    """Both give the same numbers as the plain way, so whether they are used must be counted."""
    problem, used = make_problem("mlp", k=2), []
    taped = TapedForward(problem.student)
    steps, g_w = take_steps(problem, lr=0.1, taped=taped)
    jvp = taped.jvp
    taped.jvp = lambda *args: used.append("tape") or jvp(*args)

    def product(*args):
        used.append("product")
        return log_prob_jvp(*args)

    plain = k_step_vectors(problem.student, steps, g_w, lr=0.1)
    for given, expected in ((product, "product"), (taped.log_prob_jvp, "tape")):
        used.clear()
        for v, w in zip(k_step_vectors(problem.student, steps, g_w, lr=0.1, product=given), plain, strict=True):
            assert relative_error(v, w) <= 1e-10
        assert used == [expected] * 2


def test_running_statistics_and_parameters_are_not_touched(make_problem):
    problem = make_problem("conv", k=2)
    steps, g_w = take_steps(problem, lr=0.1)
    before = copy.deepcopy(problem.student.state_dict())
    clean_gradient(problem.student, *problem.clean)
    k_step_surrogate(problem.student, steps, g_w, lr=0.1)
    exact_surrogate(problem.student, steps, g_w, lr=0.1)
    after = problem.student.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    problem.student(problem.clean[0])
    assert not torch.equal(
        before["features.1.running_mean"], problem.student.state_dict()["features.1.running_mean"]
    )


def test_batch_statistics_only_restores_after_an_error(make_problem):
    student = make_problem("conv", k=1).student
    with pytest.raises(KeyError), batch_statistics_only(student):
        raise KeyError
    assert all(m.track_running_stats for m in student.modules() if isinstance(m, torch.nn.BatchNorm2d))


class TestWeights:
    def test_default_is_proposition_2(self):
        assert lookahead_weights(4, lr=0.1) == pytest.approx([0.9**3, 0.9**2, 0.9, 1.0], rel=1e-14)

    def test_without_curvature_is_a_geometric_sum(self):
        weights = lookahead_weights(4, lr=0.1, momentum=0.5, curvature=0.0)
        assert weights == pytest.approx([1.875, 1.75, 1.5, 1.0], rel=1e-14)

    @pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.0), (0.9, 0.1), (0.5, 0.3)])
    def test_impulse_response_by_autograd(self, momentum, weight_decay):
        """On the quadratic loss w^2/2 + a_tau w the curvature is exactly 1, so the weights must be exact."""
        lr, k = 0.2, 6
        a = torch.zeros(k, dtype=torch.float64, requires_grad=True)
        w, m = torch.tensor(0.7, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
        for tau in range(k):
            m = momentum * m + (w + a[tau]) + weight_decay * w
            w = w - lr * m
        (sensitivity,) = torch.autograd.grad(w, a)
        weights = lookahead_weights(k, lr=lr, momentum=momentum, weight_decay=weight_decay)
        torch.testing.assert_close(
            -lr * torch.tensor(weights, dtype=torch.float64), sensitivity, rtol=1e-13, atol=0
        )

    def test_bad_arguments(self, make_problem):
        with pytest.raises(ValueError, match="k: must be at least 1"):
            lookahead_weights(0, lr=0.1)
        problem = make_problem("mlp", k=2)
        steps, g_w = take_steps(problem, lr=0.1)
        with pytest.raises(ValueError, match="1 weights for 2 steps"):
            k_step_surrogate(problem.student, steps, g_w, lr=0.1, weights=[1.0])
        with pytest.raises(ValueError, match="zip"):
            surrogate([torch.ones(2, 3)] * 2, [torch.ones(2, 3)])


@pytest.mark.gpu
@pytest.mark.parametrize("shared", [False, True])
def test_one_step_is_exact_on_cuda(make_problem, shared):
    problem = make_problem("conv", k=1)
    problem.student.cuda(), problem.teacher.cuda()
    problem.noisy = [(x.cuda(), y.cuda()) for x, y in problem.noisy]
    problem.clean = tuple(t.cuda() for t in problem.clean)
    expected = unrolled_gradient(problem.student, problem.teacher, problem.noisy, problem.clean, lr=0.3)
    taped = TapedForward(problem.student) if shared else None
    steps, g_w = take_steps(problem, lr=0.3, taped=taped)
    value = teacher_gradient(problem, k_step_surrogate(problem.student, steps, g_w, lr=0.3, **by_tape(taped)))
    assert relative_error(value, expected) <= 1e-10
