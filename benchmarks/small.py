"""The runs of preset ``small``, table by table, as many at once as ``--jobs``: what README's numbers are made of.

    python -m benchmarks.small small_cifar10 --jobs 2              # this table, on two cores
    python -m benchmarks.small --device cuda --jobs 14 --out DIR   # all of them on a GPU, most important first
    python -m benchmarks.small --costs step_cost_small_cpu.csv     # instead: what a step of each method takes

A row is added to ``OUT/TABLE.csv`` as soon as its run has finished. What has a row there or in ``figures/`` is not
run again, and a run that was killed goes on from its checkpoint: a machine that is only lent does as much as its
time allows, and the next one goes on. So many runs share a GPU well where NVIDIA's multi-process service runs
(``nvidia-cuda-mps-control -d``). As ``python -m emlc_lib.experiments.gpu`` this needs no installation.
"""

import argparse
import gc
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from joblib import Parallel, delayed

from emlc_lib.data.batches import Batches
from emlc_lib.data.prepare import check_data, prepare
from emlc_lib.experiments.carry import merge, read
from emlc_lib.experiments.pretraining import provide
from emlc_lib.experiments.runs import run
from emlc_lib.experiments.sweep import grid
from emlc_lib.experiments.tables import run_table
from emlc_lib.methods import METHODS
from emlc_lib.runtime.execution import cores
from emlc_lib.runtime.files import write_atomically
from emlc_lib.runtime.places import REPOSITORY
from emlc_lib.runtime.progress import progress, say
from emlc_lib.runtime.provenance import provenance
from emlc_lib.training.config import Config
from emlc_lib.training.start import initial_networks

SEEDS, FIVE_SEEDS = (0, 1, 2), (0, 1, 2, 3, 4)
BOTH = ("symmetric:0.5", "symmetric:0.9")
CIFAR100 = (*BOTH, "symmetric:0.8", "symmetric:0.2")
CIFAR10 = (*CIFAR100, "asymmetric:0.4")

# Epochs that take a run of each method the time of EMLC's four, by the costs in step_cost_small_cpu.csv.
EQUAL_TIME = {"cross_entropy": 15, "clean_only": 15, "fixmatch": 6, "emlc_consistent": 3, "dividemix": 2}


def equal_time(noises: tuple[str, ...], seeds: tuple[int, ...], *methods: str, **common: Any) -> Iterator[Config]:
    """Methods for as long as EMLC's four epochs with k = 1 take."""
    for method in methods:
        yield from grid(noises, [method], [1], seeds, epochs=EQUAL_TIME[method], **common)


def table(name: str, human: Path | None, **common: Any) -> Iterator[Config]:
    """The configurations of a table's rows, most important first; without a file ``human`` none of its labels."""
    rivals = ("cross_entropy", "fixmatch", "clean_only")
    on_100 = common | {"dataset": "cifar100"}
    match name:
        case "small_cifar10":
            yield from grid(CIFAR10, ["emlc", *rivals], [1], SEEDS, **common)
            yield from grid(BOTH, ["emlc"], [5], SEEDS, **common)
            yield from grid(BOTH, ["distilled"], [1], SEEDS, **common)
        case "small_cifar100":
            yield from grid(CIFAR100, ["emlc", *rivals], [1], SEEDS, **on_100)
        case "small_equal_time_cifar10":
            yield from equal_time(CIFAR10, SEEDS, *rivals, **common)
        case "small_equal_time_cifar100":
            yield from equal_time(CIFAR100, SEEDS, *rivals, **on_100)
        case "small_equal_updates_cifar10":  # k = 5 on five times as many noisy images as k = 1
            for k in (1, 5):
                yield from grid(BOTH, ["emlc"], [k], SEEDS, epochs=k, **common)
        case "small_short_cifar10":  # an epoch of EMLC takes a tenth less time than four of cross-entropy
            yield from grid(("symmetric:0.9", "symmetric:0.8"), ["emlc"], [1], SEEDS, epochs=1, **common)
        case "small_short_cifar100":
            yield from grid(("symmetric:0.9", "symmetric:0.8"), ["emlc"], [1], SEEDS, epochs=1, **on_100)
        case "small_extension_cifar10":
            yield from grid(BOTH, ["emlc", *rivals], [1], FIVE_SEEDS, **common)
            yield from equal_time(BOTH, FIVE_SEEDS, "emlc_consistent", "dividemix", *rivals[:2], **common)
        case "small_cifar10_further":
            yield from grid(BOTH, ["clean_only"], [1], SEEDS, autoaugment=False, **common)
            for key in ("worse_label", "aggre_label") if human else ():
                labels = common | {"noise_type": "human", "human_labels": human, "human_key": key}
                yield from grid([None], ["emlc", "cross_entropy"], [1], SEEDS, **labels)
                yield from equal_time((None,), SEEDS, "emlc_consistent", "dividemix", "cross_entropy", **labels)
        case "small_other_methods_cifar10":
            yield from grid(BOTH, ["mlc", "fasten"], [1], SEEDS, **common)


TABLES = (
    "small_cifar10", "small_cifar100", "small_short_cifar100", "small_short_cifar10", "small_equal_time_cifar10",
    "small_extension_cifar10", "small_cifar10_further", "small_equal_time_cifar100", "small_equal_updates_cifar10",
    "small_other_methods_cifar10",
)  # fmt: skip


def digests(config: Config) -> set[str]:
    """By which of its rows' digests a run is known."""
    return {name.rpartition("-")[2] for name in config.names}


def missing(configs: list[Config], folders: list[Path]) -> list[Config]:
    """Those that have a row in no table of the folders."""
    there = {
        digest for folder in folders for file in folder.glob("*.csv") for digest in read(file).get("digest", ())
    }
    return [config for config in configs if not digests(config) & there]


def one(config: Config, name: str, jobs: int) -> tuple[str, pd.DataFrame | str]:
    """A run's row for the table of that name, or what went wrong, which must not stop the others."""
    torch.set_num_threads(max(1, cores() // jobs))
    try:
        row = run_table([run(config, show=False)])
        if jobs > 1 and config.device.startswith("cuda"):
            row["hardware"] += f", {jobs} runs at once"  # its seconds are not those of a card of its own
        return name, row
    except Exception as error:
        return name, f"{config.name}: {type(error).__name__}: {' '.join(str(error).split())}"
    finally:
        gc.collect()  # a method and its batches know each other, and would stay on the device beside the next


def work(names: list[str], out: Path, jobs: int, human: Path | None, **common: Any) -> list[str]:
    """Does the runs that are missing; rows are added as they come. What went wrong, a line per run."""
    todo: dict[str, tuple[Config, str]] = {}
    for name in names:
        for config in missing(list(table(name, human, **common)), [out, REPOSITORY / "figures"]):
            if config.method == "emlc" and config.k == 1 and config.device.startswith("cuda"):
                config = config.model_copy(update={"cuda_graph": True})
            todo.setdefault(config.name, (config, name))
    configs = [config for config, _ in todo.values()]
    check_data(configs)
    for config in configs:
        if config.awaits_weights:
            provide(config.dataset, config.model, config.device)
    finished = Parallel(n_jobs=jobs, return_as="generator_unordered", pre_dispatch=jobs, batch_size=1)(
        delayed(one)(config, name, jobs) for config, name in todo.values()
    )
    errors = []
    for name, row in progress(finished, total=len(todo), desc="runs"):
        if isinstance(row, str):
            errors.append(row)
            say(f"{name}: {row}")
            continue
        merge(out / f"{name}.csv", row, ["digest"])
        say(f"{name}: {row['command'][0]}: {row['test_accuracy'][0]:.2%}")
    return errors


def costs(**common: Any) -> pd.DataFrame:
    """Processor seconds of a training step on one thread, data and what an epoch begins with included."""
    torch.set_num_threads(1)
    rows = []
    for name, k in (*((method, 1) for method in EQUAL_TIME), ("emlc", 1), ("emlc", 5), ("mlc", 1), ("fasten", 1)):
        (config,) = grid([0.5], [name], [k], [0], start="random", start_steps=0, **common)
        batches = Batches(config, prepare(config))
        networks = initial_networks(config, batches, teacher=METHODS[name].needs_teacher)
        method = METHODS[name](config, batches, *networks)
        method.train(True)
        epoch, period = method.last_step(1), method.period
        moments = [time.process_time()]
        for t in (*range(period), *range(epoch, epoch + 5 * period)):
            method.step(t)
            moments.append(time.process_time())
        seconds = [after - before for before, after in pairwise(moments)][period:]
        steady = pd.Series(seconds[period:]).to_numpy().reshape(-1, period).mean(axis=1)
        beginning = max(0.0, sum(seconds[:period]) - period * float(pd.Series(steady).median()))
        rows.append({"method": name, "k": k, "seconds": float(pd.Series(steady).median()) + beginning / epoch})
    found = provenance("cpu")
    result = pd.DataFrame(rows)
    result["of EMLC's"] = result["seconds"] / result.set_index(["method", "k"])["seconds"]["emlc", 1]
    return result.round(3).assign(
        model=config.model, precision=config.precision, hardware=found["hardware"]["processor"], threads=1,
        torch=found["versions"]["torch"], command="python -m benchmarks.small --costs FILE",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; default all, in turn")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, each with its share of the cores")
    parser.add_argument(
        "--human", type=Path, help="the .npz file of CIFAR-10N's labels; without it these are left out"
    )
    parser.add_argument(
        "--out", type=Path, default=REPOSITORY / "figures", help="where the tables are, or will be"
    )
    parser.add_argument("--costs", type=Path, metavar="FILE", help="measure the methods' steps instead")
    args = parser.parse_args()
    if unknown := set(args.tables) - set(TABLES):
        parser.error(f"no such table: {', '.join(sorted(unknown))}")
    if args.costs:
        result = costs(device="cpu", preset="small")
        print(result.to_string())
        write_atomically(args.costs, lambda path: result.to_csv(path, index=False))
    else:
        args.out.mkdir(parents=True, exist_ok=True)
        tables = args.tables or list(TABLES)
        sys.exit("\n".join(work(tables, args.out, args.jobs, args.human, device=args.device, preset="small")) or 0)


if __name__ == "__main__":
    main()
