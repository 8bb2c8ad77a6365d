"""Runs as jobs of a SLURM cluster, by submitit: ``emlc sweep --submit`` and ``emlc table1 --submit``.

One job is one run, all jobs are one array. The folder of runs, the data root and this package must be on a file
system that all machines share. Finished runs are left out. A job that is preempted, or comes to its time limit, is
queued again and goes on from the last epoch's checkpoint; so the limit must be longer than an epoch.

submitit comes with ``pip install -e '.[cluster]'``. SimCLR weights that a run starts from must be there before.
Tested with stand-ins for SLURM's commands, not yet on a cluster.

Two processes at the same run wait for each other by a file lock, as everywhere
(:func:`emlc_lib.experiments.runs.run`). Not every network file system has such locks, so do not submit a list of
runs again while its jobs are still there.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from ..data.datasets import is_available
from ..runtime.execution import check_device
from ..runtime.parameters import ConfigError, Expected, Parameters
from ..runtime.places import data_root, runs_root, weights_root
from ..training.config import Config
from .runs import is_finished, run


class ClusterError(Expected, RuntimeError):
    """There is no submitit or no SLURM here, or SLURM refused the jobs. The message says which."""


class Resources(Parameters):
    """What each job asks for, and what is done with all of them."""

    hours: float = Field(12, gt=0, allow_inf_nan=False, description="time limit of a job")
    gpus: int = Field(1, ge=0, description="GPUs of a job; a run uses one at most")
    cpus: int = Field(4, gt=0, description="CPU cores of a job")
    memory: float | None = Field(None, gt=0, allow_inf_nan=False, description="GB; None takes the cluster's")
    partition: str | None = Field(None, description="SLURM's partition; None takes the cluster's")
    array: int = Field(16, gt=0, description="jobs at the same time")
    requeues: int = Field(3, ge=0, description="how often a job that came to its time limit is queued again")
    slurm: dict[str, Any] = Field({}, description="further ones of submitit's, as {account: A, qos: Q}")


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
    root = runs_root(root).absolute()
    todo = [config for config in configs if not is_finished(config, root)]
    if not todo:
        return []
    for config in todo:
        _check_files(config)
    submitit = _submitit()
    try:
        executor = submitit.AutoExecutor(
            root / "submitit", cluster="slurm", slurm_max_num_timeout=resources.requeues
        )
    except RuntimeError as error:
        raise ClusterError(f"SLURM is not on this machine ({error})") from None
    further = {"partition": resources.partition, "array_parallelism": resources.array} | resources.slurm
    try:
        executor.update_parameters(
            name="emlc",
            tasks_per_node=1,
            timeout_min=math.ceil(60 * resources.hours),
            gpus_per_node=resources.gpus,
            cpus_per_task=resources.cpus,
            mem_gb=resources.memory,
            **{f"slurm_{name}": value for name, value in further.items()},
        )
    except (NameError, TypeError, ValueError) as error:
        raise ConfigError(f"slurm: {error}") from None
    try:
        return executor.map_array(Training(root), todo)
    except RuntimeError as error:
        raise ClusterError(f"SLURM refused the jobs: {error}") from None


def _check_files(config: Config) -> None:
    """Raises a ConfigError if jobs that start together would all make or download the same file."""
    if not is_available(config.dataset):
        raise ConfigError(
            f"dataset: {config.dataset} is not in {data_root()}, which all jobs share; get it before, "
            f"as with python -c 'from emlc_lib import load_dataset; load_dataset(\"{config.dataset}\")'"
        )
    if config.awaits_weights:
        raise ConfigError(
            f"start: no SimCLR weights of {config.model} for {config.dataset} are in {weights_root()}, which all "
            f"jobs share; make them before: emlc pretrain -p dataset {config.dataset} -p model {config.model}"
        )


def _submitit():
    try:
        import submitit
    except ModuleNotFoundError:
        raise ClusterError(
            "submitit is not installed; it comes with the extra cluster: pip install -e '.[cluster]'"
        ) from None
    return submitit
