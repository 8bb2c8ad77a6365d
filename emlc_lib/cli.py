"""The command line: ``emlc correct FOLDER --verified FILE.csv``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from .checkpoint import write_atomically
from .estimator import EMLCClassifier
from .figures import contact_sheet
from .images import Images, InputError, read_folder, read_image, read_labels

# Passed on to the estimator as they are.
OPTIONS = (
    "model", "start", "pretrain_epochs", "image_size", "epochs", "patience", "batch_size", "lr", "teacher_lr",
    "flip", "seed", "device",
)  # fmt: skip
THUMBNAIL = 160
SHEET_FORMATS = (".jpg", ".pdf", ".png", ".svg")


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point ``emlc``. Exits with 2 and one line on stderr if an argument or an input cannot be used."""
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        print(_correct(args))
    except (ValueError, FloatingPointError) as error:  # ConfigError and InputError are ValueErrors
        print(f"emlc {args.command}: error: {error}", file=sys.stderr)
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="emlc", description="Learning from noisy labels by EMLC.")
    parser.add_argument("--version", action="version", version=metadata.version("emlc-lib"))
    commands = parser.add_subparsers(dest="command", required=True)
    correct = commands.add_parser(
        "correct",
        help="correct the labels of a folder of images",
        description="Learns from a folder of images with partly wrong labels and a CSV file of a few verified "
        "ones; writes a CSV file of corrected labels and a sheet of the most suspicious images.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = correct.add_argument
    add("images", metavar="FOLDER", type=Path, help="the images; one subfolder per class unless --labels is given")
    add("--verified", required=True, type=Path, metavar="CSV", help="path,label of verified images of every class")
    add("--labels", type=Path, metavar="CSV", help="path,label of all images, in place of the subfolders' names")
    add("--out", type=Path, default=Path("corrected.csv"), metavar="CSV", help="the corrected labels")
    add("--sheet", type=Path, default=Path("suspicious.png"), metavar="FILE", help="the most suspicious images")
    add("--sheet-images", type=int, default=48, metavar="N", help="how many")
    add("--save", type=Path, metavar="FILE", help="keep the trained networks, for EMLCClassifier.load")
    add("--quiet", action="store_true", help="no progress on stderr")
    add("--model", default="auto", help="see EMLCClassifier, as for all options below")
    add("--start", default="auto", help="random, pretrain, shipped, published or a file of weights")
    add("--pretrain-epochs", type=int, default=40, help="of --start pretrain")
    add("--image-size", type=int, help="side in pixels to which images are resized")
    add("--epochs", type=int, help="passes over the images")
    add("--patience", type=int, help="epochs without progress on the verified images before it stops")
    add("--batch-size", type=int, help="images per step")
    add("--lr", type=float, default=0.02, help="the student's learning rate")
    add("--teacher-lr", type=float, default=0.02, help="the teacher's learning rate")
    add("--flip", action="store_true", help="mirror images are of the same class")
    add("--seed", type=int, default=0, help="of every random choice")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    return parser


def _correct(args: argparse.Namespace) -> str:
    """Does it, and returns what to tell the user."""
    _check_outputs(args)
    if args.labels is None:
        given = read_folder(args.images, "FOLDER")
    elif args.images.is_dir():
        given = read_labels(args.labels, args.images, "--labels")
    else:
        raise InputError(f"FOLDER: {args.images} is not a folder")
    verified = read_labels(args.verified, args.images, "--verified")
    options = {name: getattr(args, name) for name in OPTIONS}
    estimator = EMLCClassifier(**options, verbose=not args.quiet).fit(given, verified)
    corrected = estimator.correct_labels()
    table = with_verified(corrected, given, verified)
    write_atomically(args.out, lambda path: table.to_csv(path, index=False, float_format="%.6g"))
    suspicious = corrected.nsmallest(args.sheet_images, "rank")
    _write_sheet(suspicious, args.images, args.sheet)
    if args.save is not None:
        estimator.save(args.save)
    changed = int((table["given_label"] != table["corrected_label"]).sum())
    return (
        f"{args.out}: {len(table)} images, {len(verified)} of them verified, {changed} labels changed\n"
        f"{args.sheet}: the {len(suspicious)} most suspicious images"
    )


def _check_outputs(args: argparse.Namespace) -> None:
    inputs = {path.resolve() for path in (args.verified, args.labels) if path is not None}
    seen: set[Path] = set()
    for name in ("out", "sheet", "save"):
        path = getattr(args, name)
        if path is None:
            continue
        if path.is_dir() or not path.resolve().parent.is_dir():
            raise InputError(f"--{name}: {path} is no file in an existing folder")
        if path.resolve() in inputs | seen:
            raise InputError(f"--{name}: {path} is another argument's file already")
        seen.add(path.resolve())
    if args.sheet.suffix.lower() not in SHEET_FORMATS:
        raise InputError(f"--sheet: {args.sheet.name} must end in one of {', '.join(SHEET_FORMATS)}")
    if args.sheet_images < 1:
        raise InputError("--sheet-images: must be at least 1")


def with_verified(corrected: pd.DataFrame, given: Images, verified: Images) -> pd.DataFrame:
    """Corrected labels of all images, the verified ones among them, sorted by path.

    Args:
        corrected: of the images that are not verified, from ``EMLCClassifier.correct_labels``.
        given: all images with given labels. verified: the verified ones, in the same folder or elsewhere.

    Returns:
        The columns of ``corrected`` and ``verified`` (bool). Where it is True, the corrected label is the verified
        one with probability 1, and gate and rank are missing; the given label, too, if there was none.
    """
    before = dict(zip(given.names, given.labels, strict=True))
    rows = pd.DataFrame({"path": verified.names, "corrected_label": verified.labels, "probability": 1.0})
    rows.insert(1, "given_label", [before.get(name) for name in verified.names])
    # Whole numbers that can be missing, so that ranks stay 1, 2, 3 in the file.
    corrected = corrected.astype({"rank": "Int64"}).assign(verified=False)
    rows = rows.assign(gate=np.nan, rank=pd.array([pd.NA] * len(rows), dtype="Int64"), verified=True)
    table = pd.concat([frame.astype({"given_label": object}) for frame in (corrected, rows)], ignore_index=True)
    return table.sort_values("path", ignore_index=True)


def _write_sheet(table: pd.DataFrame, folder: Path, file: Path) -> None:
    images = []
    for path in table["path"]:
        image = read_image(folder / path, "FOLDER").convert("RGB")
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        images.append(np.asarray(image))
    figure = contact_sheet(images, table)
    # The temporary name of the atomic write says nothing of the format.
    form = file.suffix.lower().removeprefix(".")
    write_atomically(file, lambda path: figure.savefig(path, format=form, dpi=120))
    plt.close(figure)


if __name__ == "__main__":
    main()
