"""The cost of one training step, in units of a plain SGD step of the student on the same noisy batch.

    python -m benchmarks.step_cost                      # ResNet-34, 32 noisy + 8 clean, this machine's device
    python -m benchmarks.step_cost --methods            # MLC, MSLC, MW-Net, MLNT and FasTEN beside EMLC
    python -m benchmarks.step_cost --model resnet_narrow --noisy 64 --clean 64 --ks 1 2 5 10 20 --csv growth.csv

Variants take turns within each repeat, so that a machine that slows down slows them all. Times are medians over
repeats with the interquartile range; peak memory is that of a fresh process per variant (CPU: growth of the
resident set over the built networks; CUDA: the allocator's peak). Costs are per noisy batch.
"""

import argparse
import multiprocessing
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import torch

from emlc_lib.runtime.execution import synchronise
from emlc_lib.runtime.provenance import provenance

from .variants import Built, Variants, executed_variants, growth_variants, method_variants, parts, step_variants


def measure(variants: dict[str, Built], repeats: int, device: str) -> pd.DataFrame:
    """Median and quartiles of the seconds per noisy batch, variants taking turns."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for repeat in range(repeats + 1):
        for name, (function, batches) in variants.items():
            began = time.perf_counter()
            function()
            synchronise(device)
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


def _variants(args) -> Variants:
    if args.methods:
        return method_variants(args)
    return growth_variants(args) if args.ks else step_variants(args)


def _peak(args, name: str) -> int:
    torch.set_num_threads(args.threads)
    function, _ = _variants(args)[name]()
    if args.device.startswith("cuda"):
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark becomes the present resident set
    before = _high_water()
    function()
    function()  # momentum is there from the second call on
    return _high_water() - before


def _high_water() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def peak_memory(args, name: str) -> float:
    """MiB that two calls of a variant take beyond the built networks, in a process of its own; NaN where the
    system cannot tell (it needs Linux or CUDA)."""
    if not args.device.startswith("cuda") and not Path("/proc/self/clear_refs").exists():
        return float("nan")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_peak, args, name).result() / 2**20


def by_execution(
    execution: dict, *, device: str, model: str, noisy: int, clean: int, repeats: int
) -> pd.DataFrame:
    """:func:`measure` of :func:`executed_variants`, with what it was measured on.

    Args:
        execution: parameters of all variants, such as ``precision``.

    Returns:
        One row per variant; of one that fails, ``error`` says why, and the other numbers are missing. ``peak_MiB``
        is what a call takes beyond the networks and momenta (CUDA only).
    """
    args = SimpleNamespace(device=device, model=model, noisy=noisy, clean=clean)
    built, errors, peaks = {}, {}, {}
    for name, make in executed_variants(args, **execution).items():
        try:
            built[name] = make()
            built[name][0]()  # what cannot run fails here, and not among the others
            peaks[name] = _further_memory(built[name][0], device)
        except Exception as error:
            errors[name] = f"{type(error).__name__}: {' '.join(str(error).split())}"
            built.pop(name, None)
    if "plain SGD" not in built:
        errors |= dict.fromkeys(built, "its unit, plain SGD, failed")
        built = {}
    rows = measure(built, repeats, device) if built else pd.DataFrame({"variant": []})
    failed = pd.DataFrame({"variant": list(errors), "error": list(errors.values())})
    table = pd.concat([rows, failed])
    return table.assign(
        peak_MiB=table["variant"].map(peaks), error=table["error"].fillna(""), repeats=repeats, **_what(args),
        **_where(device), command="make gpu",
    )  # fmt: skip


def _what(args) -> dict[str, object]:
    return {name: getattr(args, name) for name in ("model", "noisy", "clean")}


def _where(device: str) -> dict[str, object]:
    source = provenance(device)
    hardware, versions = source["hardware"], source["versions"]
    return {
        "hardware": hardware.get("gpu") or hardware["processor"],
        "threads": hardware["threads"],
        "torch": versions["torch"],
        "python": versions["python"],
    }


def _further_memory(function: Callable[[], object], device: str) -> float:
    if not device.startswith("cuda"):
        return float("nan")
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    function()
    return round((torch.cuda.max_memory_allocated(device) - before) / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet34")
    parser.add_argument("--noisy", type=int, default=32, help="noisy batch size")
    parser.add_argument("--clean", type=int, default=8, help="clean batch size")
    parser.add_argument("--ks", type=int, nargs="+", help="measure the growth with k instead")
    parser.add_argument("--methods", action="store_true", help="measure the competing methods instead")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory")
    parser.add_argument("--csv", type=Path, help="also write the table, with hardware and versions, here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    steps = _variants(args)
    built = {name: make() for name, make in steps.items()} | ({} if args.ks or args.methods else parts(args))
    table = measure(built, args.repeats, args.device)
    table["peak_MiB"] = [
        round(peak_memory(args, name)) if name in steps and not args.no_memory else float("nan")
        for name in table["variant"]
    ]
    where = _where(args.device)
    print(f"{_what(args)}, {args.repeats} repeats, {where}")
    print(table.round({"seconds": 4, "ratio": 2, "low": 2, "high": 2}).to_string(index=False, na_rep=""))
    if args.csv:
        words = shlex.join(sys.argv[1:]).replace(shlex.quote(str(args.csv)), "FILE")
        command = f"python -m benchmarks.step_cost {words}"
        table.assign(**_what(args), repeats=args.repeats, **where, command=command).to_csv(args.csv, index=False)


if __name__ == "__main__":
    main()
