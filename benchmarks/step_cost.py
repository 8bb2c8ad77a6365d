"""The cost of one training step, in units of a plain SGD step of the student on the same noisy batch.

    python -m benchmarks.step_cost                     # ResNet-34, 32 noisy + 8 clean, this machine's device
    python -m benchmarks.step_cost --model resnet_narrow --noisy 64 --clean 16 --csv step_cost.csv

Variants take turns within each repeat, so that a machine that slows down slows them all. Times are medians
over repeats with the interquartile range; peak memory is that of a fresh process per variant (CPU: growth of
the resident set over the built networks; CUDA: the allocator's peak). The cost of k = 5 is per noisy batch.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch.func import functional_call
from torch.nn import functional as F

from emlc_lib.batches import CleanBatch, NoisyBatch
from emlc_lib.config import Config, make_config
from emlc_lib.losses import soft_cross_entropy
from emlc_lib.meta_gradient import InnerStep, batch_statistics_only, clean_gradient, log_prob_jvp, parameters_of
from emlc_lib.methods import EMLC, CrossEntropy
from emlc_lib.models import build_classifier, build_teacher
from emlc_lib.runs import provenance
from emlc_lib.starts import placed
from emlc_lib.tangent import TapedForward

SIDE, CLASSES = 32, 10


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

        self._noisy = NoisyBatch(images(noisy), labels(noisy), labels(noisy))
        self._clean = CleanBatch(images(clean), labels(clean))

    def last_step(self, epoch: int, period: int) -> int:
        return epoch * self.steps_per_epoch

    def noisy(self, t: int) -> NoisyBatch:
        return self._noisy

    def clean(self, t: int, size: int) -> CleanBatch:
        return self._clean


def build(args, cls, **changes):
    config: Config = make_config(
        dataset="cifar10", preset="quick", device=args.device, model=args.model, start="random",
        batch_size=args.noisy, clean_batch_size=args.clean, **changes,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    student = build_classifier(args.model, CLASSES, 3, generator)
    teacher = build_teacher(build_classifier(args.model, CLASSES, 3, generator), generator)
    student, teacher = (placed(model, config).train() for model in (student, teacher))
    return cls(config, FixedBatches(args.noisy, args.clean, args.device), student, teacher)


def through_the_update(method: EMLC, t: int) -> None:
    """One EMLC step whose meta-gradient is autograd through the student's update (what `higher` does)."""
    config, noisy = method.config, method.batches.noisy(t)
    clean = method.batches.clean(t, 0)
    corrected = method.teacher(noisy.x, noisy.given)
    names, params = zip(*method.student.named_parameters(), strict=True)
    loss = soft_cross_entropy(method.student(noisy.x), corrected.soft_labels)
    grads = torch.autograd.grad(loss, params, create_graph=True)
    updated = {n: p - config.lr * g for n, p, g in zip(names, params, grads, strict=True)}
    with batch_statistics_only(method.student):
        meta = F.cross_entropy(functional_call(method.student, updated, (clean.x,)), clean.labels)
    output = method.teacher(clean.x, clean.labels)
    objective = meta + F.cross_entropy(output.logits, clean.labels)
    objective = objective + F.binary_cross_entropy_with_logits(
        output.gate_logits, torch.ones_like(output.gate_logits)
    )
    teacher = method.optimisers["teacher"]
    teacher.zero_grad(set_to_none=True)
    objective.backward(inputs=list(method.teacher.parameters()))
    teacher.step()
    with torch.no_grad():
        for p, n in zip(params, names, strict=True):
            p.copy_(updated[n])


def double_backward_jvp(student, step: InnerStep, direction) -> torch.Tensor:
    """The forward-mode product by two backward passes: the derivative of <J^T u, direction> by u."""
    names, params = zip(*student.named_parameters(), strict=True)
    with batch_statistics_only(student):
        log_p = student(step.x).log_softmax(1)
    u = torch.zeros_like(log_p, requires_grad=True)
    pulled = torch.autograd.grad(log_p, params, u, create_graph=True)
    return torch.autograd.grad(pulled, u, [direction[n] for n in names])[0]


def step_variants(args) -> dict[str, tuple[Callable[[], object], int]]:
    """Whole steps by name: a function and the number of noisy batches that one call takes."""

    def repeated(method, k):
        counter = iter(range(10**9))
        return lambda: [method.step(next(counter)) for _ in range(k)]

    unrolled = build(args, EMLC)
    return {
        "plain SGD": (repeated(build(args, CrossEntropy), 1), 1),
        "EMLC k=1": (repeated(build(args, EMLC), 1), 1),
        "EMLC k=1, primal not shared": (repeated(build(args, EMLC, share_primal=False), 1), 1),
        "EMLC k=5": (repeated(build(args, EMLC, k=5), 5), 5),
        "EMLC k=5, primal not shared": (repeated(build(args, EMLC, k=5, share_primal=False), 5), 5),
        "autograd through the update, k=1": (lambda: through_the_update(unrolled, 0), 1),
    }


def part_variants(args) -> dict[str, tuple[Callable[[], object], int]]:
    """The parts of a k = 1 step, and the double-backward alternative to its forward-mode part."""
    method = build(args, EMLC)
    student, teacher = method.student, method.teacher
    noisy, clean = method.batches.noisy(0), method.batches.clean(0, 0)
    taped = TapedForward(student)
    g_w, _ = clean_gradient(student, clean.x, clean.labels)
    _, tape = taped(noisy.x)
    step = InnerStep(parameters_of(student), noisy.x, torch.zeros(args.noisy, CLASSES, device=args.device), tape)

    def teacher_noisy():
        teacher(noisy.x, noisy.given).soft_labels.square().sum().backward()

    def teacher_clean():
        F.cross_entropy(teacher(clean.x, clean.labels).logits, clean.labels).backward()

    return {
        "  teacher, noisy batch, both ways": (teacher_noisy, 1),
        "  teacher, clean batch, both ways": (teacher_clean, 1),
        "  g_w, clean batch": (lambda: clean_gradient(student, clean.x, clean.labels), 1),
        "  copy of the student's parameters": (lambda: parameters_of(student), 1),
        "  forward mode, primal shared": (lambda: log_prob_jvp(student, step, g_w, taped=taped), 1),
        "  forward mode, torch.func.jvp": (lambda: log_prob_jvp(student, step, g_w), 1),
        "  double backward instead": (lambda: double_backward_jvp(student, step, g_w), 1),
    }


def measure(variants, repeats: int, device: str) -> pd.DataFrame:
    """Median and quartiles of the seconds per noisy batch, variants taking turns."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for repeat in range(repeats + 1):
        for name, (function, batches) in variants.items():
            began = time.perf_counter()
            function()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            if repeat:  # the first round warms up
                times[name].append((time.perf_counter() - began) / batches)
        print(f"round {repeat} of {repeats}", file=sys.stderr, flush=True)
    plain = statistics.median(times["plain SGD"])
    rows = []
    for name, values in times.items():
        low, median, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
        rows.append({"variant": name, "seconds": median, "ratio": median / plain, "low": low / plain,
                     "high": high / plain})  # fmt: skip
    return pd.DataFrame(rows)


def _peak(args, name: str, queue) -> None:
    torch.set_num_threads(args.threads)
    variants = step_variants(args)
    if args.device.startswith("cuda"):
        before = torch.cuda.memory_allocated()
        variants[name][0]()
        queue.put(torch.cuda.max_memory_allocated() - before)
        return
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark becomes the present resident set
    before = _high_water()
    variants[name][0]()
    variants[name][0]()
    queue.put(_high_water() - before)


def _high_water() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def peak_memory(args, name: str) -> float:
    """MiB that two calls of a variant take beyond the built networks, in a process of its own; NaN where the
    system cannot tell (it needs Linux or CUDA)."""
    if not args.device.startswith("cuda") and not Path("/proc/self/clear_refs").exists():
        return float("nan")
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_peak, args=(args, name, queue))
    process.start()
    value = queue.get()
    process.join()
    return value / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet34")
    parser.add_argument("--noisy", type=int, default=32, help="noisy batch size")
    parser.add_argument("--clean", type=int, default=8, help="clean batch size")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory")
    parser.add_argument("--csv", type=Path, help="also write the table, with hardware and versions, here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    steps = step_variants(args)
    table = measure(steps | part_variants(args), args.repeats, args.device)
    table["peak_MiB"] = [
        round(peak_memory(args, name)) if name in steps and not args.no_memory else float("nan")
        for name in table["variant"]
    ]
    source = provenance(args.device)
    print(f"{args.model}, {args.noisy} noisy + {args.clean} clean, {args.repeats} repeats, {args.threads} threads")
    print(source["hardware"], {name: source["versions"][name] for name in ("torch", "python")})
    print(table.round({"seconds": 4, "ratio": 2, "low": 2, "high": 2}).to_string(index=False, na_rep=""))
    if args.csv:
        hardware, versions = source["hardware"], source["versions"]
        extra = {"model": args.model, "noisy": args.noisy, "clean": args.clean, "repeats": args.repeats,
                 "hardware": hardware.get("gpu") or hardware["processor"], "threads": args.threads,
                 "torch": versions["torch"]}  # fmt: skip
        table.assign(**extra).to_csv(args.csv, index=False)


if __name__ == "__main__":
    main()
