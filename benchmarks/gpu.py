"""What needs a GPU, as far as the time goes, most important first: ``make gpu MINUTES=9 OUT=DIR``.

That is ``PYTHONPATH=. python3 -m benchmarks.gpu --minutes 9 --out DIR`` in the checkout. It needs no installation,
no network, and of other packages only :data:`IMPORTS` and what these need. ``make gpu-test``, the tests, needs
pytest, pytest-timeout and beartype as well.

First the cost of a step, then for CIFAR-10 and, last, CIFAR-100 the SimCLR start and the runs of preset ``paper``,
one after the other, as :mod:`benchmarks.small` does its own. What is begun when the time is up has its last
epoch's checkpoint below the data root, and the next call goes on there. What has its row in DIR or in ``figures/``
is not done again. A run that fails is reported, and the next one begins.

DIR gets ``step_cost_gpu.csv``, ``paper_cifar10.csv`` and ``paper_cifar100.csv``, whose rows
``python -m benchmarks.carry DIR`` adds to those in ``figures/``. SimCLR weights and checkpoints stay below the
data root; where only DIR comes back, and large files do not::

    tar c -C data weights runs | split -b 15MB - DIR/carried.    # there
    cat DIR/carried.* | tar x -C data                            # here
"""

import argparse
import math
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from emlc_lib.data.datasets import is_available
from emlc_lib.runtime.execution import check_device
from emlc_lib.runtime.files import writable_folder
from emlc_lib.runtime.parameters import ConfigError, Expected
from emlc_lib.runtime.places import data_root
from emlc_lib.runtime.progress import say
from emlc_lib.runtime.provenance import provenance

from .carry import COST_KEY, COSTS, merge, read
from .small import FIGURES, said, work
from .small_tables import paper
from .step_cost import by_execution
from .variants import executed_variants

# All that this project's own files import here, besides the standard library.
IMPORTS = (
    "PIL", "filelock", "jaxtyping", "joblib", "numpy", "pandas", "pydantic", "safetensors", "scipy", "sklearn",
    "torch", "torchvision", "tqdm",
)  # fmt: skip
EXECUTIONS: dict[str, dict] = {
    "float32": {},
    "TF32": {"precision": "tf32"},
    "bfloat16": {"precision": "bfloat16"},
    "CUDA graph, TF32": {"precision": "tf32", "cuda_graph": True},
}
REAL = dict(
    device="cuda", datasets=("cifar10", "cifar100"), runs={"preset": "paper"},
    costs={"model": "resnet34", "noisy": 128, "clean": 32, "repeats": 20},
)  # fmt: skip
TRIAL = dict(
    device="cpu", datasets=("digits",), runs={"preset": "smoke", "epochs": 2, "start": "simclr"},
    costs={"model": "small_cnn", "noisy": 8, "clean": 4, "repeats": 1},
)  # fmt: skip


class OutOfTime(BaseException):
    """The time is up. No Exception: what it ends has not failed."""


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raises :class:`OutOfTime` in the block, which runs in the main thread, once its time is up."""

    def ring(*_) -> None:
        raise OutOfTime

    handler = signal.signal(signal.SIGALRM, ring)
    before = signal.setitimer(signal.ITIMER_REAL, seconds, 10)  # again, if it is raised where nobody hears it
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
        signal.signal(signal.SIGALRM, handler)


@contextmanager
def noted(what: str, errors: list[str]) -> Iterator[None]:
    """What fails in the block is an entry of the list, and stops nothing after it."""
    try:
        yield
    except Exception as error:
        errors.append(f"{what}: {said(error)}")
        say(errors[-1])


def measure_costs(folders: list[Path], device: str, setting: dict) -> None:
    """Adds to the last folder's table what a step takes in each of :data:`EXECUTIONS`, where no folder has it."""
    hardware = provenance(device)["hardware"]
    here = {"hardware": hardware.get("gpu") or hardware["processor"], "model": setting["model"]}
    for execution, options in EXECUTIONS.items():
        rows = pd.concat([read(folder / COSTS) for folder in folders])  # in DIR what failed, too
        for name, value in {**here, "execution": execution}.items() if len(rows) else ():
            rows = rows[rows[name] == value]
        if set(rows.get("variant", ())) >= set(executed_variants(None, **options)):
            continue
        table = by_execution(options, device=device, **setting).assign(execution=execution)
        for row in table.itertuples():
            say(f"{execution}, {row.variant}: {row.error or f'{1e3 * row.seconds:.1f} ms, {row.ratio:.2f} plain'}")
        merge(folders[-1] / COSTS, table, COST_KEY, replace=True)


def queue(args: argparse.Namespace) -> list[str]:
    """Does what is left until the time is up; what went wrong, a line per run."""
    what, errors = TRIAL if args.trial else REAL, []
    try:
        check_device(what["device"])
    except ValueError as error:
        raise ConfigError(f"device: {error}; --trial needs no other") from None
    folders = [args.figures, writable_folder(args.out, "--out", make=True)]
    try:
        with alarm(60 * args.minutes):
            with noted("costs", errors):
                measure_costs(folders, what["device"], what["costs"])
            for dataset in what["datasets"]:
                if not is_available(dataset):
                    say(f"{dataset}: left out, its files are not in {data_root()}")
                    continue
                runs = paper(dataset, args.seeds, device=what["device"], **what["runs"])
                with noted(dataset, errors):
                    work({f"{runs[0][1].preset}_{dataset}": runs}, folders, 1, errors)
            say("everything is finished" if not errors else "all others are finished")
    except OutOfTime:
        say("the time is up: the next call goes on")
    return errors


def _minutes(text: str) -> float:
    if not 0 < (number := float(text)) < math.inf:
        raise ValueError
    return number


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=_minutes, default=9, help="time for all, from when the imports are done")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), metavar="DIR", help="what comes back")
    parser.add_argument("--seeds", type=_count, default=3, help="how many seeds each run is to have")
    parser.add_argument("--trial", action="store_true", help="the same queue on digits and the CPU")
    parser.add_argument("--figures", type=Path, default=FIGURES, help="the folder of tables")
    args = parser.parse_args(arguments)
    try:
        errors = queue(args)
    except (Expected, OSError) as error:
        parser.error(str(error))
    sys.exit("\n".join(errors) or 0)


if __name__ == "__main__":
    main()
