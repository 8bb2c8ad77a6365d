"""A grid of runs as jobs of a SLURM cluster, by submitit: ``python -m emlc_lib.experiments.cluster --help``.

One job is one run, all jobs are one array. The folder of runs, the data root and this package must be on a file
system that all machines share. Finished runs are left out. A job that is preempted, or comes to its time limit, is
queued again and goes on from the last epoch's checkpoint; so the limit must be longer than an epoch.

submitit comes with ``pip install -e '.[cluster]'``. ``--dry-run`` lists the jobs and needs neither cluster, GPU
nor submitit; ``--local`` tries them on this machine. SimCLR weights that a run starts from must be there before.
Tested with stand-ins for SLURM's commands, not yet on a cluster.

Two processes at the same run wait for each other by a file lock, as everywhere
(:func:`emlc_lib.experiments.runs.run`). Not every network file system has such locks, so do not submit a list of
runs again while its jobs are still there.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.datasets import is_available
from ..runtime.checkpoint import write_atomically
from ..runtime.execution import check_device
from ..runtime.parameters import ConfigError, checked
from ..runtime.places import data_root, runs_root, weights_root
from ..runtime.progress import progress
from ..training.config import Config
from .job_list import TABLE_1_DATASETS, Resources, job_table, report, table_1
from .runs import run, state
from .sweep import add_grid_arguments, check_options, grid_from


class ClusterError(RuntimeError):
    """There is no submitit or no SLURM here, or SLURM refused the jobs. The message says which."""


class Training:
    """What submitit stores and calls: the run of a configuration, on the machine of the job.

    Attributes:
        root: the folder of runs, absolute.
    """

    def __init__(self, root: Path):
        self.root = root

    def __call__(self, config: Config) -> str:
        """Trains, resumes or finds the run, and returns its name; a ValueError if its device is not here."""
        check_device(config.device)
        return run(config, root=self.root).config.name

    def checkpoint(self, config: Config):
        """The call that submitit queues again: the same one, since the run's own checkpoint is on disk."""
        return _submitit().helpers.DelayedSubmission(self, config)


def submit(configs: Sequence[Config], resources: Resources, root: str | Path | None = None) -> list:
    """Queues the runs that are not finished as one SLURM array.

    Returns:
        submitit's jobs, in the order of the configurations. Logs and what is submitted are in ``submitit`` below
        the folder of runs.

    Raises:
        ConfigError: a data set or the SimCLR weights of a start are not there, or a resource is not one of
            submitit's.
        ClusterError: submitit or SLURM is missing, or SLURM refuses.
    """
    root = Path(root or runs_root()).absolute()
    todo = _unfinished(configs, root)
    if not todo:
        return []
    for config in todo:
        # One job would pretrain for hours, while all others wait on their GPUs.
        if config.awaits_weights:
            raise ConfigError(
                f"start: no SimCLR weights of {config.model} for {config.dataset} are in {weights_root()}, which "
                "all jobs share; make them before they start: papermill notebooks/00_pretrain_simclr.ipynb "
                f"out.ipynb -p dataset {config.dataset} -p model {config.model}"
            )
    submitit = _submitit()
    try:
        executor = submitit.AutoExecutor(
            root / "submitit", cluster="slurm", slurm_max_num_timeout=resources.requeues
        )
    except RuntimeError as error:
        raise ClusterError(f"SLURM is not on this machine ({error}); --local runs the jobs here") from None
    further = {"partition": resources.partition, "array_parallelism": resources.array} | resources.slurm
    try:
        executor.update_parameters(
            name="emlc",
            tasks_per_node=1,
            **_asked_for(resources),
            **{f"slurm_{name}": value for name, value in further.items()},
        )
    except (NameError, TypeError, ValueError) as error:
        raise ConfigError(f"slurm: {error}") from None
    try:
        return executor.map_array(Training(root), todo)
    except RuntimeError as error:
        raise ClusterError(f"SLURM refused the jobs: {error}") from None


def run_locally(
    configs: Sequence[Config], resources: Resources, root: str | Path | None = None, *, show: bool = True
) -> list[str]:
    """Runs the jobs on this machine, one after the other, each in a process of submitit's: a trial of the jobs.

    :func:`emlc_lib.experiments.sweep.sweep` is the way to run many on one machine.

    Returns:
        The names of the runs.

    Raises:
        ConfigError: a data set is not there.
        ClusterError: submitit is missing, or a job failed, whose traceback the message has.
    """
    root = Path(root or runs_root()).absolute()
    todo = _unfinished(configs, root)
    submitit = _submitit()
    executor = submitit.AutoExecutor(root / "submitit", cluster="local")
    executor.update_parameters(**_asked_for(resources))
    names = []
    for config in progress(todo, total=len(todo), desc="jobs", show=show):
        try:
            names.append(executor.submit(Training(root), config).result())
        except RuntimeError as error:
            raise ClusterError(f"{config.name}: {error}") from None
    return names


def _unfinished(configs: Sequence[Config], root: Path) -> list[Config]:
    todo = [config for config in configs if state(config, root) != "finished"]
    for name in dict.fromkeys(config.dataset for config in todo):
        # Jobs that start together must not all download it to the same place.
        if not is_available(name):
            raise ConfigError(
                f"dataset: {name} is not in {data_root()}, which all jobs share; get it once before they start, "
                f"as with python -c 'from emlc_lib.data.datasets import load_dataset; load_dataset(\"{name}\")'"
            )
    return todo


def _asked_for(resources: Resources) -> dict[str, Any]:
    return {
        "timeout_min": resources.minutes,
        "gpus_per_node": resources.gpus,
        "cpus_per_task": resources.cpus,
        "mem_gb": resources.memory,
    }


def _submitit():
    try:
        import submitit
    except ModuleNotFoundError:
        raise ClusterError(
            "submitit is not installed; it comes with the extra cluster: pip install -e '.[cluster]'"
        ) from None
    return submitit


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if not args.dry_run and (args.csv or args.estimate):
        parser.error("--csv and --estimate: are for --dry-run only")
    try:
        resources = _resources(args)
        configs = args.configs(args, device=args.device, device_here=False)
        if args.dry_run:
            table = job_table(configs, resources, args.runs)
            if args.csv:
                write_atomically(args.csv, lambda path: table.to_csv(path, index=False))
            print(report(table, resources, args.estimate))
        elif args.local:
            names = run_locally(configs, resources, args.runs)
            print(f"{len(names)} runs done")
        else:
            jobs = submit(configs, resources, args.runs)
            where = (
                f" from {jobs[0].job_id} on; logs: {jobs[0].paths.folder}" if jobs else ": all runs are finished"
            )
            print(f"{len(jobs)} jobs submitted{where}")
    except (ConfigError, ClusterError) as error:
        parser.error(str(error))


def _resources(args: argparse.Namespace) -> Resources:
    given = {name: value for name in Resources.model_fields if (value := getattr(args, name)) is not None}
    return checked(Resources, **({"gpus": 0} if args.device == "cpu" else {}) | given)


def _table_1_from(args: argparse.Namespace, **common: Any) -> list[Config]:
    check_options(args.options, ["dataset", "preset", "noise", "noise_type", "method", "k", "seed", *common])
    return table_1(args.seeds, args.dataset, preset=args.preset, **args.options, **common)


def _hours(text: str) -> float:
    if not 0 < (hours := float(text)) < math.inf:
        raise ValueError
    return hours


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    what = common.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--dry-run", action="store_true", help="print the job list; needs no cluster, starts nothing"
    )
    what.add_argument("--submit", action="store_true", help="queue the jobs with SLURM")
    what.add_argument("--local", action="store_true", help="run the jobs here, one after the other")
    common.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="of the machines of the jobs")
    common.add_argument("--runs", help="the folder of runs")
    common.add_argument("--csv", type=Path, help="with --dry-run: write the job list here")
    common.add_argument("--estimate", type=_hours, help="with --dry-run: hours that a run takes")
    for name, field in Resources.model_fields.items():
        kind = json.loads if name == "slurm" else str
        default = f"; {field.default} if not given" if field.default else ""
        common.add_argument(f"--{name}", type=kind, help=field.description + default)
    parser = argparse.ArgumentParser(description="Runs of a grid as jobs of a SLURM cluster.")
    commands = parser.add_subparsers(required=True)
    table = commands.add_parser("table1", parents=[common], help="the grid of Table 1")
    table.set_defaults(configs=_table_1_from)
    table.add_argument("--dataset", nargs="+", choices=TABLE_1_DATASETS, default=TABLE_1_DATASETS)
    table.add_argument("--preset", default="paper")
    table.add_argument("--seeds", type=int, default=5, help="how many")
    table.add_argument("--options", type=json.loads, default={}, help='JSON of further parameters: {"lr": 0.1}')
    other = commands.add_parser(
        "grid", parents=[common], help="the grid of emlc_lib.experiments.sweep, with its options"
    )
    other.set_defaults(configs=grid_from)
    add_grid_arguments(other)
    return parser


if __name__ == "__main__":
    # By this name, and not as part of __main__, jobs can find what was stored for them.
    from emlc_lib.experiments.cluster import main as importable_main

    importable_main()
