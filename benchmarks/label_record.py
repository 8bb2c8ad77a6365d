"""The file that ``13_explore`` reads: what EMLC makes of the first 200 noisy images, recorded during a training.

    python -m benchmarks.label_record --out labels.npz -p preset small -p noise 0.5 -p precision bfloat16

on a GPU makes the like of ``figures/labels_small_cifar10.npz``, whose bits are not promised. The parameters are
those of ``emlc run``. Nothing else is kept of the training.
"""

import argparse
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from emlc_lib import make_config, prepare
from emlc_lib.commands.parameters import value_of
from emlc_lib.data.parameters import RATED
from emlc_lib.experiments.label_record import LabelRecord, record_labels
from emlc_lib.runtime.checkpoint import write_npz
from emlc_lib.runtime.provenance import provenance
from emlc_lib.training.config import Config


def write_record(record: LabelRecord, path: Path) -> None:
    """Writes what ``LabelRecord.load`` reads. Colour images are compressed as one picture, with little loss."""
    arrays = {name: np.asarray(value) for name, value in vars(record).items()}
    n, *shape = record.images.shape
    buffer = io.BytesIO()
    # One long strip: all images below each other.
    strip = Image.fromarray(record.images.reshape(n * shape[0], *shape[1:]))
    strip.save(buffer, "webp", quality=85, method=6, lossless=len(shape) == 2)
    arrays |= {"images": np.frombuffer(buffer.getvalue(), np.uint8), "shape": np.asarray(record.images.shape)}
    arrays |= {name: arrays[name].astype(np.float16) for name in ("probabilities", "gates", "wanted")}
    write_npz(path, arrays)


def origin(config: Config) -> str:
    """A line that says how a record was made."""
    rate = f"{100 * config.noise:g} % " if config.noise_type in RATED else ""
    hardware = provenance(config.device)["hardware"]
    return (
        f"{config.dataset}, preset {config.preset}, {rate}{config.noise_type} noise, EMLC k = {config.k}, "
        f"seed {config.seed}; {hardware.get('gpu') or hardware['processor']}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the .npz file")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter")
    args = parser.parse_args(arguments)
    config = make_config(**{name: value_of(text) for name, text in args.p})
    record = record_labels(config, prepare(config))
    write_record(dataclasses.replace(record, origin=origin(config)), args.out)


if __name__ == "__main__":
    main()
