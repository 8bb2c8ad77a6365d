"""The command line: ``emlc correct FOLDER --verified FILE.csv``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from .estimator import EMLCClassifier
from .images import read_labels
from .own_folder import check_count, check_outputs, read_given, sheet_of, with_verified, write_sheet, write_table

# Passed on to the estimator as they are.
OPTIONS = (
    "model", "start", "pretrain_epochs", "image_size", "epochs", "patience", "batch_size", "lr", "teacher_lr",
    "flip", "seed", "device",
)  # fmt: skip


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
    outputs = {"--out": args.out, "--sheet": args.sheet, "--save": args.save}
    check_outputs(outputs, [args.verified, args.labels])
    check_count("--sheet-images", args.sheet_images)
    given = read_given(args.images, args.labels, ("FOLDER", "--labels"))
    verified = read_labels(args.verified, args.images, "--verified")
    options = {name: getattr(args, name) for name in OPTIONS}
    estimator = EMLCClassifier(**options, verbose=not args.quiet).fit(given, verified)
    corrected = estimator.correct_labels()
    table = with_verified(corrected, given, verified)
    write_table(table, args.out)
    suspicious = corrected.nsmallest(args.sheet_images, "rank")
    write_sheet(sheet_of(suspicious, args.images, "FOLDER"), args.sheet)
    if args.save is not None:
        estimator.save(args.save)
    changed = int((table["given_label"] != table["corrected_label"]).sum())
    return (
        f"{args.out}: {len(table)} images, {len(verified)} of them verified, {changed} labels changed\n"
        f"{args.sheet}: the {len(suspicious)} most suspicious images"
    )


if __name__ == "__main__":
    main()
