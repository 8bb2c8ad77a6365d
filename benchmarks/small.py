"""The runs of preset ``small``, table by table, as many at once as ``--jobs``: what README's numbers are made of.

    python -m benchmarks.small small_cifar10 --out DIR --jobs 2    # this table, on two cores
    python -m benchmarks.small --device cuda --jobs 14 --out DIR   # all of them on a GPU, most important first
    python -m benchmarks.small --costs step_cost_small_cpu.csv     # instead: what a step of each method takes

A row is added to ``DIR/TABLE.csv`` as soon as its run has finished. What has a row there or, without ``--again``,
in ``figures/`` is not run again, and a run that was killed goes on from its checkpoint: a machine that is lent
does as much as its time allows, and the next goes on if DIR comes along, with its ``runs`` (checkpoints) and its
``starts`` (SimCLR weights of fewer epochs). So many runs share a GPU well with NVIDIA's multi-process service
(``nvidia-cuda-mps-control -d``). As ``python -m benchmarks.gpu`` this needs no installation.

Rows are in bfloat16, as the committed ones, but for one table. A CPU without instructions for it takes ten
times as long; ``--precision float32`` makes other rows.
"""

import argparse
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from emlc_lib.data.batches import Batches
from emlc_lib.data.prepare import check_data, prepare
from emlc_lib.experiments.pretraining import provide
from emlc_lib.experiments.runs import run
from emlc_lib.experiments.sweep import grid
from emlc_lib.experiments.tables import RUN_COLUMNS, run_table
from emlc_lib.methods import METHODS
from emlc_lib.runtime.execution import cores
from emlc_lib.runtime.files import writable_file, writable_folder, write_atomically
from emlc_lib.runtime.parameters import Expected
from emlc_lib.runtime.places import REPOSITORY
from emlc_lib.runtime.progress import progress, say
from emlc_lib.runtime.provenance import provenance
from emlc_lib.training.config import Config
from emlc_lib.training.presets import usable_device
from emlc_lib.training.start import initial_networks

from .carry import merge, read
from .small_tables import EQUAL_TIME, PLAIN, SEARCH_TABLE, STARTS_TABLE, TABLES, Named, named, plain, start_probes

FIGURES = REPOSITORY / "figures"


def rows_there(folders: list[Path]) -> pd.DataFrame:
    """The rows of all tables of runs in the folders, one by digest."""
    tables = [read(file) for folder in folders for file in sorted(folder.glob("*.csv"))]
    rows = [table[[*RUN_COLUMNS]] for table in tables if {*RUN_COLUMNS} <= {*table}]
    rows.append(pd.DataFrame(columns=[*RUN_COLUMNS]))
    return pd.concat(rows).drop_duplicates("digest").set_index("digest", drop=False)


def listed(name: str, folders: list[Path], human: Path | None, **common: Any) -> list[Named]:
    """The runs of a table with their names, which are empty where its rows need none."""
    searched = _begun(SEARCH_TABLE, [FIGURES, *folders])  # not made again, so that all runs have one setting
    if name in PLAIN:
        return [("", config) for config in plain(name, human, searched, **common)]
    return list(named(name, folders[-1] / "starts", _begun(name, folders), searched, **common))


def _begun(name: str, folders: list[Path]) -> pd.DataFrame:
    rows = pd.concat([read(folder / f"{name}.csv") for folder in folders])
    return rows.drop_duplicates(["name", "digest"]) if "name" in rows else rows


def add(file: Path, row: pd.DataFrame, label: str, config: Config) -> None:
    """Adds a run's row to a table; with a name it has the columns of a study's table."""
    if label:
        row = row.assign(name=label, meta_weights=getattr(config, "meta_weights", "paper"))
        row = row[["name", "meta_weights", *RUN_COLUMNS]]
    merge(file, row, ["name", "digest"] if label else ["digest"])


def missing(name: str, runs: list[Named], folders: list[Path]) -> list[Named]:
    """Those that have a row nowhere; where another table has one, that of the last folder gets a copy."""
    there, left = rows_there(folders), []
    own = {pair for folder in folders for pair in _pairs(read(folder / f"{name}.csv"))}
    for label, config in runs:
        if config.digest not in there.index:
            left.append((label, config))
        elif (label, config.digest) not in own:
            add(folders[-1] / f"{name}.csv", there.loc[[config.digest]], label, config)
    return left


def _pairs(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Names, which are empty where a table has none, and digests."""
    return list(zip(rows.get("name", [""] * len(rows)), rows.get("digest", ()), strict=True))


Job = tuple[str, str, Config]  # the table's name, the row's, and what is run
Done = tuple[str, str, Config, pd.DataFrame | str]  # with the row, or what went wrong


def one(name: str, label: str, config: Config, jobs: int) -> Done:
    """A run; what goes wrong must not stop the others."""
    torch.set_num_threads(max(1, cores() // jobs))
    on_cuda = config.device.startswith("cuda")
    try:
        row = run_table([run(config, show=jobs == 1)])
        if jobs > 1 and on_cuda:
            row["hardware"] += f", {jobs} runs at once"  # its seconds are not those of a card of its own
        return name, label, config, row
    except Exception as error:
        words = f"{config.name}: {said(error)}"
        if on_cuda and not _usable():
            say(words)
            os._exit(1)  # with its context every later run of this process would fail
        return name, label, config, words
    finally:
        gc.collect()  # a method and its batches know each other, and would stay on the device beside the next
        if on_cuda and _usable():
            torch.cuda.empty_cache()  # for the other processes


def said(error: Exception) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _usable() -> bool:
    try:
        torch.cuda.synchronize()
    except Exception:
        return False
    return True


def all_of(jobs: list[Job], function: Callable[..., Done], workers: int) -> Iterator[Done]:
    """What the function makes of each, as they come, in so many processes. Where one of them dies, what was not
    done is begun again by new ones, twice at most."""
    left = {config.name: (name, label, config) for name, label, config in jobs}
    for _ in range(3):
        parallel = Parallel(n_jobs=workers, return_as="generator_unordered", pre_dispatch=workers, batch_size=1)
        try:
            for done in parallel(delayed(function)(*job, workers) for job in list(left.values())):
                del left[done[2].name]
                yield done
        except TerminatedWorkerError as error:
            say(f"a process has died: {' '.join(str(error).split())[:200]}")
    for name, label, config in left.values():
        yield name, label, config, f"{config.name}: a process died beside it or with it, three times"


def work(tables: dict[str, list[Named]], folders: list[Path], jobs: int, errors: list[str]) -> None:
    """Does the runs that have no row in the folders, and adds their rows to the last one's tables as they come.

    Args:
        tables: the runs of each, by its name. folders: of tables.
        errors: gets what goes wrong, a line per run.
    """
    todo: dict[str, Job] = {}
    for name, runs in tables.items():
        for label, config in missing(name, runs, folders):
            graphs = config.preset == "small" and config.method in ("emlc", "emlc_consistent") and config.k == 1
            if graphs and config.device.startswith("cuda"):
                config = config.model_copy(update={"cuda_graph": True})
            todo.setdefault(config.name, (name, label, config))
    configs = [config for _, _, config in todo.values()]
    check_data(configs)
    for config in configs:
        if config.awaits_weights:
            provide(config.dataset, config.model, config.device)
    finished = all_of(list(todo.values()), one, max(1, min(jobs, len(todo))))
    for name, label, config, row in progress(finished, total=len(todo), desc="runs"):
        if isinstance(row, str):
            errors.append(row)
            say(f"{name}: {row}")
            continue
        add(folders[-1] / f"{name}.csv", row, label, config)
        say(f"{name}: {row['command'][0]}: {row['test_accuracy'][0]:.2%}")
    for name, runs in tables.items():
        missing(name, runs, folders)  # what two tables have in common was run for one


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
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument(
        "--human", type=Path, help="the .npz file of CIFAR-10N's labels; without it these are left out"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the tables are, or will be")
    parser.add_argument("--again", action="store_true", help="run what figures/ has a row of, too")
    parser.add_argument("--costs", type=Path, metavar="FILE", help="measure the methods' steps instead")
    args = parser.parse_args()
    if unknown := set(args.tables) - set(TABLES):
        parser.error(f"no such table: {', '.join(sorted(unknown))}")
    if args.jobs < 1:
        parser.error(f"--jobs: must be at least 1 (got {args.jobs})")
    if not args.out and not args.costs:
        parser.error("--out: must name a folder")
    try:
        if args.costs:
            writable_file(args.costs, "--costs")
            result = costs(device="cpu", preset="small")
            print(result.to_string())
            write_atomically(args.costs, lambda path: result.to_csv(path, index=False))
            return
        out = writable_folder(args.out, "--out", make=True).absolute()
        options = {"device": usable_device(args.device), "preset": "small", "precision": args.precision}
    except Expected as error:
        parser.error(str(error))
    os.environ.setdefault("EMLC_RUNS", str(out / "runs"))
    folders = [out] if args.again else [FIGURES, out]
    tables, errors = args.tables or list(TABLES), []
    # Settings are found before others are listed that use them; SimCLR's shorter starts are pretrained when their
    # runs are listed, for which the others do not wait.
    phases = {SEARCH_TABLE: 0, STARTS_TABLE: 2}
    for group in ([name for name in tables if phases.get(name, 1) == phase] for phase in range(3)):
        try:
            runs = {name: listed(name, folders, args.human, **options) for name in group}
            work(runs, folders, args.jobs, errors)
            if STARTS_TABLE in group:
                merge(out / f"{STARTS_TABLE}_probes.csv", start_probes(out / "starts"), ["name"])
        except (Expected, OSError) as error:
            errors.append(f"{', '.join(group)}: {error}")
    sys.exit("\n".join(errors) or 0)


if __name__ == "__main__":
    main()
