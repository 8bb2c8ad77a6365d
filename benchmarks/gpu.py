"""What needs a GPU, as far as the time goes, most important first: ``make gpu MINUTES=9 OUT=DIR``.

That is ``PYTHONPATH=. python3 -m benchmarks.gpu work --minutes 9 --out DIR`` in the checkout. It needs no
installation, no network, and of other packages only :data:`IMPORTS` and what these need, and pytest and beartype
for the tests.

The pieces: the tests marked ``gpu``, once for each state of the code; the cost of a step; then for CIFAR-10 and,
last, CIFAR-100 the SimCLR start and the runs of preset ``paper``. Pretraining and runs stop after an epoch, whose
checkpoint is below the data root, if the next would not fit, and the next call goes on there. What is finished
there, or has its row in a table of ``figures/``, is not done again. A piece that fails is reported, and the next
one begins.

DIR gets ``runs.csv``, ``step_cost_gpu.csv``, ``report.json`` (pieces, tests, provenance) and ``log.txt``.
Back home ``python -m benchmarks.gpu collect DIR`` adds the rows to ``figures/paper_cifar10.csv``, ... SimCLR
weights and the checkpoints of what is begun stay below the data root; where only DIR comes back, and large files
do not::

    tar c -C data weights runs | split -b 15MB - DIR/carried.    # there
    cat DIR/carried.* | tar x -C data                            # here
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from emlc_lib.runtime.files import as_folder, writable_folder
from emlc_lib.runtime.parameters import ConfigError, Expected
from emlc_lib.runtime.places import REPOSITORY

from .campaign import Campaign
from .carry import collect

# All that this project's own files import here, besides the standard library.
IMPORTS = (
    "PIL", "filelock", "jaxtyping", "joblib", "numpy", "pandas", "pydantic", "safetensors", "scipy", "sklearn",
    "torch", "torchvision", "tqdm",
)  # fmt: skip


def _positive(text: str) -> float:
    if not 0 < (number := float(text)) < math.inf:
        raise ValueError
    return number


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise ConfigError(message.removeprefix("argument "))


def execute(arguments: Sequence[str]) -> int:
    """Does what a command line says; 1 if a piece has failed.

    Raises:
        ConfigError: an argument is not allowed, or the device is missing.
        CheckpointError, OSError: a file cannot be used.
    """
    parser = _Parser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="what", required=True)
    work = commands.add_parser("work", help="do the pieces until none is left or the time is up")
    add = work.add_argument
    add("--minutes", type=_positive, default=9, help="time for all, from when the imports are done")
    add("--out", type=str, default=Path("build/gpu"), metavar="DIR", help="the folder for what comes back")
    add("--seeds", type=_count, default=3, help="how many seeds each run is to have")
    add("--trial", action="store_true", help="the same queue on digits and the CPU")
    back = commands.add_parser("collect", help="add the rows in DIR to the tables")
    back.add_argument("folder", type=str, metavar="DIR")
    for command in (work, back):
        command.add_argument("--figures", type=str, default=REPOSITORY / "figures", help="the folder of tables")
    args = parser.parse_args(arguments)
    args.given = arguments
    args.figures = as_folder(args.figures, "--figures")
    if args.what == "work":
        args.out = writable_folder(args.out, "--out", make=True)
        return int(not Campaign(args).work())
    for name, rows in collect(as_folder(args.folder, "DIR"), args.figures).items():
        print(f"{name}: {rows} new rows")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; what is to be expected ends in one line on stderr and status 2."""
    try:
        return execute(sys.argv[1:] if arguments is None else arguments)
    except (Expected, OSError) as error:
        print(f"gpu: error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    sys.exit(main())
