r"""One run by several processes: ``torchrun --nproc-per-node 2 -m emlc_lib.experiments.torchrun --help``.

The same line on each of two machines, with eight GPUs each::

    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-id emlc --rdzv-endpoint FIRST_MACHINE:29400 \
        -m emlc_lib.experiments.torchrun -p dataset clothing1m -p noise_type real -p preset paper

If a process dies, torchrun ends all, and the same command goes on from the last epoch's checkpoint. See
:mod:`emlc_lib.runtime.parallel` for what they compute.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from torch.distributed.elastic.multiprocessing.errors import record

from ..runtime.parallel import group, own_share
from ..runtime.parameters import ConfigError, readable
from ..training.config import Config, from_values
from ..training.presets import make_config
from ..training.processes import check_processes
from .runs import run


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of every process. Exits with 2 and one line on stderr if a parameter is not allowed."""
    parser = argparse.ArgumentParser(
        prog="torchrun ... -m emlc_lib.experiments.torchrun",
        description="Makes one run with all processes together, resuming it if it was begun.",
    )
    parser.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="parameters",
        help="a parameter of make_config, as often as needed: -p dataset cifar10 -p noise 0.9 -p preset paper",
    )  # fmt: skip
    parser.add_argument("--config", type=json.loads, help="or a whole configuration, as in a result.json")
    parser.add_argument("--runs", help="the folder of runs")
    args = parser.parse_args(arguments)
    try:
        if "RANK" not in os.environ:
            raise ConfigError("this module is started by torchrun: torchrun --nproc-per-node 2 -m ...")
        config = _config(args)
        world, local = (int(os.environ[name]) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        check_processes(config, world, local=local)
    except ConfigError as error:
        if os.environ.get("RANK", "0") == "0":
            parser.error(str(error))
        sys.exit(2)
    with group(config.device):
        finished = run(config, root=args.runs)
        if own_share().rank == 0:
            print(f"{config.name}: test accuracy {finished.result['test_accuracy']:.2%}")


def _config(args: argparse.Namespace) -> Config:
    given = {name: _value(text) for name, text in args.parameters}
    if args.config is None:
        return make_config(**given)
    if given:
        raise ConfigError("--config: is a whole configuration; give it or -p")
    try:
        return from_values(args.config)
    except ValidationError as error:
        raise ConfigError(readable(error)) from None
    except (KeyError, TypeError):
        raise ConfigError("--config: must be a JSON object of a whole configuration") from None


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    record(main)()  # an error reaches whoever started torchrun
