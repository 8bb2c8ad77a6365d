"""What the benchmarks time: whole steps and their parts, on fixed random images."""

import itertools
from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch.func import functional_call
from torch.nn import functional as F

from emlc_lib.core.losses import soft_cross_entropy
from emlc_lib.core.meta_gradient import (
    InnerStep,
    batch_statistics_only,
    clean_gradient,
    log_prob_jvp,
    parameters_of,
)
from emlc_lib.core.teacher import build_teacher
from emlc_lib.data.batches import CleanBatch, NoisyBatch
from emlc_lib.methods import METHODS
from emlc_lib.methods.baselines import CrossEntropy
from emlc_lib.methods.emlc import EMLC
from emlc_lib.networks.backbones import build_classifier
from emlc_lib.runtime.cuda_graph import CHECKS, WARM_UP
from emlc_lib.runtime.execution import at_own_precision
from emlc_lib.runtime.tangent import TapedForward
from emlc_lib.training.presets import make_config
from emlc_lib.training.start import placed

from .double_backward import MLCByDoubleBackward, MSLCByDoubleBackward

SIDE, CLASSES = 32, 10
Built = tuple[Callable[[], object], int]  # a function, and the noisy batches that one call takes
Variants = dict[str, Callable[[], Built]]  # makers by name, so that a process can build just the one it measures


class FixedBatches:
    """Stands in for Batches: random images that are made once, so that only the step is timed."""

    steps_per_epoch = 1000

    def __init__(self, noisy: int, clean: int, device: str):
        generator = torch.Generator().manual_seed(0)

        def images(n):
            x = torch.randn(n, 3, SIDE, SIDE, generator=generator)
            return x.to(device, memory_format=torch.channels_last)

        def labels(n):
            return torch.randint(CLASSES, (n,), generator=generator).to(device)

        self._noisy = NoisyBatch(images(noisy), labels(noisy), labels(noisy), torch.arange(noisy, device=device))
        self._clean = CleanBatch(images(clean), labels(clean))
        self.data = SimpleNamespace(noisy_labels=self._noisy.given)

    def last_step(self, epoch: int, period: int) -> int:
        return epoch * self.steps_per_epoch

    def noisy(self, t: int) -> NoisyBatch:
        return self._noisy

    def clean(self, t: int, size: int) -> CleanBatch:
        return self._clean

    def balanced_clean(self, t: int, per_class: int) -> CleanBatch:
        """As many images as :meth:`clean` has, whatever their classes: for time they are all the same."""
        return self._clean


def build(args, cls, **changes):
    """A method on fixed batches, with the networks and sizes of the command line."""
    config = make_config(
        dataset="cifar10", preset="quick", device=args.device, model=args.model, start="random",
        batch_size=args.noisy, clean_batch_size=args.clean, **{"method": cls.name} | changes,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    student = build_classifier(args.model, CLASSES, 3, generator)
    teacher = build_teacher(build_classifier(args.model, CLASSES, 3, generator), generator)
    student, teacher = (placed(model, config).train() for model in (student, teacher))
    return cls(config, FixedBatches(args.noisy, args.clean, args.device), student, teacher)


def repeated(method, k: int) -> Callable[[], object]:
    """k steps of a method, in the precision of its configuration, as in a training."""
    counter = itertools.count()

    @at_own_precision
    def steps(config):
        return [method.step(next(counter)) for _ in range(k)]

    return lambda: steps(method.config)


def plain(args, **changes) -> Callable[[], Built]:
    """One SGD step of the student on the noisy labels: the unit."""
    return lambda: (repeated(build(args, CrossEntropy, **changes), 1), 1)


def emlc(args, k: int, **changes) -> Callable[[], Built]:
    """k steps of EMLC, one teacher update."""
    return lambda: (repeated(build(args, EMLC, k=k, **changes), k), k)


def graphed(args, **changes) -> Callable[[], Built]:
    """The same for k = 1 by a CUDA graph, which is captured and checked before the clock starts.

    A RuntimeError if the method goes on without its graph.
    """

    def make() -> Built:
        method = build(args, EMLC, cuda_graph=True, **changes)
        step = repeated(method, 1)
        for _ in range(WARM_UP + CHECKS):
            step()
        if not method._run.replays:
            raise RuntimeError("the CUDA graph was given up; stderr says why")
        return step, 1

    return make


def through_the_updates(args, k: int) -> Callable[[], Built]:
    """The same by autograd through the student's k updates."""
    return lambda: (ThroughTheUpdates(args, k), k)


class ThroughTheUpdates:
    """The same k steps with the meta-gradient by autograd through the student's k updates, momentum included."""

    def __init__(self, args, k: int):
        self.method, self.k = build(args, EMLC), k
        self.velocity: dict[str, torch.Tensor] = {}

    def __call__(self) -> None:
        method = self.method
        noisy, clean = method.batches.noisy(0), method.batches.clean(0, 0)
        output = method.teacher(clean.x, clean.labels)
        objective = F.cross_entropy(output.logits, clean.labels)
        objective = objective + F.binary_cross_entropy_with_logits(
            output.gate_logits, torch.ones_like(output.gate_logits)
        )
        teacher = method.optimisers["teacher"]
        teacher.zero_grad(set_to_none=True)
        self._backward(noisy, clean, objective)
        teacher.step()

    def _backward(self, noisy, clean, objective) -> None:
        teacher, student, config = self.method.teacher, self.method.student, self.method.config
        params, velocity = dict(student.named_parameters()), self.velocity
        with batch_statistics_only(student):
            for _ in range(self.k):
                logits = functional_call(student, params, (noisy.x,))
                loss = soft_cross_entropy(logits, teacher(noisy.x, noisy.given).soft_labels)
                grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
                moved = {}
                for (name, p), g in zip(params.items(), grads, strict=True):
                    velocity[name] = config.momentum * velocity[name] + g if name in velocity else g
                    moved[name] = p - config.lr * velocity[name]
                params = moved
            meta = F.cross_entropy(functional_call(student, params, (clean.x,)), clean.labels)
        (objective + meta).backward(inputs=list(teacher.parameters()))
        self.velocity = {name: v.detach() for name, v in velocity.items()}
        with torch.no_grad():
            for name, p in student.named_parameters():
                p.copy_(params[name])


def step_variants(args) -> Variants:
    """Whole steps by name."""
    variants: Variants = {
        "plain SGD": plain(args),
        "EMLC k=1": emlc(args, 1),
        "EMLC k=1, primal not shared": emlc(args, 1, share_primal=False),
        "plain SGD, bfloat16": plain(args, precision="bfloat16"),
        "EMLC k=1, bfloat16": emlc(args, 1, precision="bfloat16"),
        "EMLC k=5": emlc(args, 5),
        "EMLC k=5, primal shared": emlc(args, 5, share_primal=True),
        "EMLC k=5, teacher recomputed": emlc(args, 5, teacher_pass="recomputed"),
    }
    if args.device.startswith("cuda"):
        variants["EMLC k=1, one CUDA graph"] = graphed(args)
    variants["through the update by autograd, k=1"] = through_the_updates(args, 1)
    return variants


def method_variants(args, **common) -> Variants:
    """Whole steps of the methods that EMLC is compared with; MLC and MSLC as published and by forward mode.

    ``common``: further parameters of all of them.
    """
    others = {
        "MLC, double backward": (MLCByDoubleBackward, {}),
        "MLC, forward mode": (METHODS["mlc"], {}),
        "MSLC, double backward": (MSLCByDoubleBackward, {"mslc_plain_share": 0.0}),
        "MSLC, forward mode": (METHODS["mslc"], {"mslc_plain_share": 0.0}),
        "MW-Net": (METHODS["mwnet"], {}),
        "MLNT, 2 sets": (METHODS["mlnt"], {"mlnt_sets": 2}),
        "FasTEN": (METHODS["fasten"], {}),
    }
    variants: Variants = {
        "plain SGD": plain(args, **common),
        "EMLC k=1": emlc(args, 1, **common),
        "EMLC k=5": emlc(args, 5, **common),
    }
    for name, (cls, changes) in others.items():
        changes = changes | common
        variants[name] = lambda cls=cls, changes=changes: (repeated(build(args, cls, **changes), 1), 1)
    return variants


def executed_variants(args, *, cuda_graph: bool = False, **common) -> Variants:
    """What a GPU machine times in each way of computing: EMLC, and MLC both ways; a graph is EMLC's with k = 1."""
    unit = {"plain SGD": plain(args, **common)}
    if cuda_graph:
        return unit | {"EMLC k=1": graphed(args, **common)}
    return unit | {n: v for n, v in method_variants(args, **common).items() if n.startswith(("EMLC", "MLC"))}


def growth_variants(args) -> Variants:
    """Whole steps as k grows."""
    variants: Variants = {"plain SGD": plain(args)}
    for k in args.ks:
        variants[f"EMLC k={k}"] = emlc(args, k, share_primal=False)
        variants[f"EMLC, teacher recomputed k={k}"] = emlc(args, k, share_primal=False, teacher_pass="recomputed")
        variants[f"EMLC, exact k={k}"] = emlc(args, k, meta_weights="exact", teacher_pass="recomputed")
        variants[f"through the updates k={k}"] = through_the_updates(args, k)
    return variants


def parts(args) -> dict[str, Built]:
    """The parts of a k = 1 step, and two alternatives to its forward-mode part."""
    method = build(args, EMLC)
    student, teacher = method.student, method.teacher
    noisy, clean = method.batches.noisy(0), method.batches.clean(0, 0)
    taped = TapedForward(student)
    g_w, _ = clean_gradient(student, clean.x, clean.labels)
    _, tape = taped(noisy.x)
    params = parameters_of(student)
    step = InnerStep(params, noisy.x, torch.zeros(args.noisy, CLASSES, device=args.device), tape)
    again = step._replace(tape=None)

    def teacher_noisy():
        teacher(noisy.x, noisy.given).soft_labels.square().sum().backward()

    def teacher_clean():
        F.cross_entropy(teacher(clean.x, clean.labels).logits, clean.labels).backward()

    return {
        "  student, noisy batch, update included": plain(args)(),
        "  teacher, noisy batch, both ways": (teacher_noisy, 1),
        "  teacher, clean batch, both ways": (teacher_clean, 1),
        "  g_w, clean batch": (lambda: clean_gradient(student, clean.x, clean.labels), 1),
        "  copy of the student's parameters": (lambda: parameters_of(student), 1),
        "  teacher's update": (method.optimisers["teacher"].step, 1),
        "  forward mode, primal shared": (lambda: taped.log_prob_jvp(student, step, g_w), 1),
        "  forward mode, primal again": (lambda: taped.log_prob_jvp(student, again, g_w), 1),
        "  forward mode, torch.func.jvp": (lambda: log_prob_jvp(student, again, g_w), 1),
        "  double backward instead": (lambda: double_backward_jvp(student, step, g_w), 1),
    }


def double_backward_jvp(student, step: InnerStep, direction) -> torch.Tensor:
    """The forward-mode product by two backward passes: the derivative of <J^T u, direction> by u."""
    names, params = zip(*student.named_parameters(), strict=True)
    with batch_statistics_only(student):
        log_p = student(step.x).log_softmax(1)
    u = torch.zeros_like(log_p, requires_grad=True)
    pulled = torch.autograd.grad(log_p, params, u, create_graph=True)
    return torch.autograd.grad(pulled, u, [direction[n] for n in names])[0]
