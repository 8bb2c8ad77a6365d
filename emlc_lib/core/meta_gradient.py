r"""The meta-gradient: how the student's clean loss depends on the teacher (Propositions 1-3).

The student p_w takes SGD steps on soft labels q_alpha of the teacher. With
g_w = grad_w L(w^(t+1)), the gradient of the clean loss after the last step, and
H_wa^(tau) the mixed Hessian of the noisy batch's loss at step tau,

* Prop. 1 (k = 1):  grad_alpha = -eta g_w^T H_wa^(t)
* Prop. 2 (k > 1):  grad_alpha ~ -eta g_w^T sum_tau gamma^(t - tau) H_wa^(tau),  gamma = 1 - eta, for plain SGD
  and H_ww ~ I
* Prop. 3: the mixed Hessian of one sample is -J_w(log p)^T J_alpha(q).

So (Corollary 3.1) with v_i^tau = J_w(log p_w(x_i)) g_w for the samples i of the batch of step tau, vectors of C
numbers, the meta-gradient is the ordinary gradient with respect to alpha of the scalar

    (eta / n) sum_tau u_tau sum_i <v_i^tau, q_alpha(x_i, y~_i)>,                                (*)

with v_i^tau held constant and weights u_tau, in Prop. 2 gamma^(t - tau). The functions here return the constants
or that scalar, so that a caller adds the other terms of eq. 12 and differentiates through the teacher once. g_w is
evaluated after the last step, J_w at the parameters *before* each step and, for batch norm, with the batch's own
statistics; running statistics are never touched.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp
from torch.nn import functional as F

from .losses import soft_cross_entropy

Params = dict[str, Tensor]


class InnerStep(NamedTuple):
    """One SGD step of the student, as the meta-gradient needs to remember it.

    Attributes:
        params: the student's parameters before the step, by name, detached.
        x: the noisy batch's images.
        soft_labels: q_alpha for that batch; attached to the teacher's graph, or constant where that graph is made
            again later.
        tape: what a ``product`` of :func:`k_step_vectors` needs of the step's forward pass, if anything.
    """

    params: Params
    x: Float[Tensor, "n ..."]
    soft_labels: Float[Tensor, "n C"]
    tape: Any = None


@contextmanager
def batch_statistics_only(model: nn.Module):
    """Within the context a training-mode model neither reads nor updates running statistics."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [m.track_running_stats for m in norms]
    for m in norms:
        m.track_running_stats = False
    try:
        yield model
    finally:
        for m, value in zip(norms, before, strict=True):
            m.track_running_stats = value


def parameters_of(model: nn.Module) -> Params:
    """A detached copy of the model's parameters, by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def clean_gradient(
    student: nn.Module, x: Float[Tensor, "m ..."], labels: Int64[Tensor, "m"], params: Params | None = None
) -> tuple[Params, Float[Tensor, ""]]:
    """g_w = grad_w L(w), eq. 5, by parameter name, and the loss (the meta-objective), detached.

    Args:
        student: images to logits (m, C), in training mode.
        x, labels: the clean batch.
        params: w, by name; None takes the student's own.
    """
    own = params is None
    if own:
        params = dict(student.named_parameters())
    else:
        params = {name: p.detach().requires_grad_() for name, p in params.items()}
    with batch_statistics_only(student):
        logits = student(x) if own else functional_call(student, params, (x,))
        loss = F.cross_entropy(logits, labels)
    grads = torch.autograd.grad(loss, list(params.values()))
    return dict(zip(params, grads, strict=True)), loss.detach()


def log_prob_jvp(student: nn.Module, step: InnerStep, direction: Params) -> Float[Tensor, "n C"]:
    """v_i = J_w(log p_w(.|x_i)) direction at the parameters of ``step``, by one forward-mode pass."""

    def log_probs(params: Params) -> Tensor:
        return F.log_softmax(functional_call(student, params, (step.x,)), 1)

    with batch_statistics_only(student), torch.no_grad():
        return jvp(log_probs, (step.params,), (direction,))[1]


def lookahead_weights(
    k: int, *, lr: float | Tensor, momentum: float = 0.0, weight_decay: float = 0.0, curvature: float = 1.0
) -> list[float | Tensor]:
    r"""Weights u_tau of the mixed Hessians in a k-step meta-gradient, oldest step first.

    With H_ww ~ c I the sensitivity D = dw/dalpha of SGD with momentum mu and weight decay lambda,

        M' = mu M + (c + lambda) D + H_wa,     D' = D - eta M',

    is a linear recurrence, and -eta u_tau is its response at time t to an impulse H_wa at time tau. The
    defaults c = 1, mu = lambda = 0 give Proposition 2's (1 - eta)^(t - tau); c = lambda = 0 gives
    1 + mu + ... + mu^(t - tau).

    Args:
        k: number of steps, at least 1.
        lr: eta, the student's learning rate; a scalar tensor in a CUDA graph.
        momentum: mu in [0, 1). weight_decay: lambda. curvature: c.

    Returns:
        k numbers; the last, of the newest step, is 1.
    """
    if k < 1:
        raise ValueError(f"k: must be at least 1, got {k}")
    weights = []
    m, d = 1.0, -lr
    for _ in range(k):
        weights.append(-d / lr)
        m = momentum * m + (curvature + weight_decay) * d
        d = d - lr * m
    return weights[::-1]


def k_step_vectors(
    student: nn.Module,
    steps: Sequence[InnerStep],
    g_w: Params,
    *,
    lr: float | Tensor,
    weights: Sequence[float | Tensor] | None = None,
    product: Callable[[nn.Module, InnerStep, Params], Tensor] = log_prob_jvp,
) -> list[Tensor]:
    """eta u_tau v_i of (*) for each step, (n, C), constant: eq. 10 (one step) or eq. 11 (several).

    Args:
        student: the network, in training mode; its own parameters are not used.
        steps: the last k steps, oldest first, each with its own batch.
        g_w: the gradient of the clean loss after the last step (:func:`clean_gradient`).
        lr: eta_w, the student's learning rate.
        weights: u_tau, oldest first; None takes Proposition 2's (:func:`lookahead_weights`).
        product: computes each v_i, in another way than :func:`log_prob_jvp` (:mod:`emlc_lib.runtime.tangent`).

    Raises:
        ValueError: not as many weights as steps.
    """
    if weights is None:
        weights = lookahead_weights(len(steps), lr=lr)
    if len(weights) != len(steps):
        raise ValueError(f"weights: {len(weights)} weights for {len(steps)} steps")
    return [lr * weight * product(student, step, g_w) for weight, step in zip(weights, steps, strict=True)]


def exact_vectors(
    student: nn.Module,
    steps: Sequence[InnerStep],
    g_w: Params,
    *,
    lr: float | Tensor,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    mean: Callable[[Params], Params] = lambda product: product,
) -> list[Tensor]:
    r"""What stands in the place of eta u_tau v_i for the *exact* k-step meta-gradient, oldest step first.

    The adjoint of the update m' = mu m + grad_w L~ + lambda w, w' = w - eta m' is carried backwards through
    the steps, from a_w = g_w and a_m = 0: at each step, with b = a_m - eta a_w,

        grad_alpha += b^T H_wa,     a_w <- a_w + (H_ww + lambda I) b,     a_m <- mu b.

    One forward-over-reverse pass per step gives both H_ww b and J_w(log p) b. No graph over the k steps is
    kept. As in the paper, what happened before the first of the steps counts as constant.

    Args:
        student, steps, g_w, lr: as in :func:`k_step_vectors`.
        momentum, weight_decay: mu and lambda of the student's SGD (no dampening, no Nesterov).
        mean: applied to every H_ww b; where each process has a part of every batch, their mean over processes.
    """
    a_w = g_w
    a_m = {name: torch.zeros_like(g) for name, g in g_w.items()}
    vectors = []
    with batch_statistics_only(student):
        for step in reversed(steps):
            b = {name: a_m[name] - lr * a_w[name] for name in a_w}
            targets = step.soft_labels.detach()

            def loss(params, x=step.x, targets=targets):
                logits = functional_call(student, params, (x,))
                return soft_cross_entropy(logits, targets), F.log_softmax(logits, 1)

            with torch.no_grad():
                _, (curved, v) = jvp(grad(loss, has_aux=True), (step.params,), (b,))
            vectors.append(-v)
            curved = mean(curved)
            a_w = {name: a_w[name] + curved[name] + weight_decay * b[name] for name in a_w}
            a_m = {name: momentum * b[name] for name in b}
    return vectors[::-1]


def surrogate(
    vectors: Sequence[Float[Tensor, "n C"]], soft_labels: Iterable[Float[Tensor, "n C"]]
) -> Float[Tensor, ""]:
    """The scalar (*) whose gradient with respect to alpha is the meta-gradient.

    Args:
        vectors: of :func:`k_step_vectors` or :func:`exact_vectors`.
        soft_labels: q_alpha of the same steps' batches in the same order, attached to the teacher's graph.
    """
    pairs = zip(vectors, soft_labels, strict=True)
    return torch.stack([(v * q).sum(1).mean() for v, q in pairs]).sum()


def k_step_surrogate(student: nn.Module, steps: Sequence[InnerStep], g_w: Params, **options) -> Tensor:
    """:func:`surrogate` of :func:`k_step_vectors`; with one step of weight 1 its gradient is exact (Prop. 1)."""
    return surrogate(k_step_vectors(student, steps, g_w, **options), [step.soft_labels for step in steps])


def exact_surrogate(student: nn.Module, steps: Sequence[InnerStep], g_w: Params, **options) -> Tensor:
    """:func:`surrogate` of :func:`exact_vectors`."""
    return surrogate(exact_vectors(student, steps, g_w, **options), [step.soft_labels for step in steps])
