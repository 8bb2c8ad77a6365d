"""Independent references for the meta-gradient: slow, literal, and without emlc_lib.core.meta_gradient."""

import copy

import torch
from torch.func import functional_call
from torch.nn import functional as F


def stateless(model):
    """A copy whose batch norms use the batch's statistics and keep none, as torch.func demands."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.track_running_stats = False
    return model


def cross_entropy(soft_labels, logits):
    return -(soft_labels * F.log_softmax(logits, 1)).sum(1).mean()


def flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors])


def relative_error(value, reference):
    return ((value - reference).norm() / reference.norm()).item()


def unrolled_clean_loss(student, teacher, noisy, clean, *, lr, momentum=0.0, weight_decay=0.0, buffers=None):
    """The clean loss after hand-written SGD steps, differentiable with respect to the teacher."""
    student = stateless(student)
    w = {n: p.detach().clone().requires_grad_() for n, p in student.named_parameters()}
    m = {n: torch.zeros_like(p) if buffers is None else buffers[n] for n, p in w.items()}
    for x, given in noisy:
        loss = cross_entropy(teacher(x, given).soft_labels, functional_call(student, w, (x,)))
        grads = torch.autograd.grad(loss, list(w.values()), create_graph=True)
        m = {n: momentum * m[n] + g + weight_decay * w[n] for n, g in zip(w, grads, strict=True)}
        w = {n: w[n] - lr * m[n] for n in w}
    x, labels = clean
    return F.cross_entropy(functional_call(student, w, (x,)), labels)


def unrolled_gradient(student, teacher, noisy, clean, **sgd):
    """d(clean loss)/d(teacher) by autograd through the whole loop, as one vector."""
    loss = unrolled_clean_loss(student, teacher, noisy, clean, **sgd)
    return flat(torch.autograd.grad(loss, list(teacher.parameters()), materialize_grads=True))


def mixed_hessian(student, teacher, w, x, given):
    """The full mixed Hessian of the batch loss, (W, A), by torch.func; w and alpha flattened by name order."""
    student, teacher = stateless(student), stateless(teacher)
    alpha = {n: p.detach() for n, p in teacher.named_parameters()}

    def w_gradient(a, w):
        def loss(w):
            q = functional_call(teacher, a, (x, given)).soft_labels
            return cross_entropy(q, functional_call(student, w, (x,)))

        return torch.func.grad(loss)(w)

    blocks = torch.func.jacrev(w_gradient)(alpha, w)
    return torch.cat([torch.cat([blocks[n][a].reshape(w[n].numel(), -1) for a in alpha], dim=1) for n in w], dim=0)
