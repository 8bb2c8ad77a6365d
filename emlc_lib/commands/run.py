"""``emlc run``, alone or in the processes that torchrun starts."""

import os
from typing import Any

import click

from ..experiments.runs import run
from ..runtime.files import as_folder
from ..runtime.parallel import group, own_share
from ..runtime.parameters import ConfigError
from ..training.config import Config
from ..training.presets import make_config
from ..training.processes import check_processes
from .configuration import PROCESSES, run_parameters
from .parameters import Described, PathOf, flat, given


def _sections():
    yield from run_parameters()
    yield "How it is computed", [PROCESSES]


@click.command(cls=Described, sections=_sections)
@given
@click.option(
    "--runs", type=PathOf(as_folder), metavar="DIR", help="Where runs are.  [default: runs/ of the data root]"
)
def command(parameters, runs):
    """Train one configuration, resume it if it was begun, or read it back if it is finished.

    \b
    emlc run -p dataset cifar10 -p noise 0.9 -p method emlc -p k 5
    emlc run -y '{dataset: digits, noise: 0.5, options: {lr: 0.1}}'

    Values of a preset are listed as they are for CIFAR-10; a data set may have others.

    Several machines train together by the same line on each, which goes on likewise if a process has died:

    \b
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-id emlc --rdzv-endpoint HOST:29400 \\
        -m emlc_lib.commands run -p dataset clothing1m -p noise_type real -p preset paper
    """
    parameters = flat(parameters)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        config = _shared(parameters)
        with group(config.device):
            finished = run(config, root=runs)
            first = own_share().rank == 0
    else:
        processes = parameters.pop("processes", 1)
        finished, first = run(make_config(**parameters), root=runs, processes=processes), True
    if first:
        print(f"{finished.folder.name}: test accuracy {finished.result['test_accuracy']:.2%}")


def _shared(parameters: dict[str, Any]) -> Config:
    """The configuration of this and torchrun's other processes."""
    if "processes" in parameters:
        raise ConfigError("processes: torchrun has said how many; leave it out")
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise ConfigError(f"{missing[0]}: is not in the environment; start with torchrun")
    config = make_config(**parameters)
    world, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    check_processes(config, world, local=local)
    return config
