"""The command line: ``emlc correct FOLDER --verified FILE.csv``."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ..runtime.checkpoint import CheckpointError
from .estimator import EMLCClassifier
from .folder import check_count, check_outputs, read_given, sheet_of, with_verified, write_sheet, write_table
from .images import read_labels

INTEGER, NUMBER = {"type": int, "metavar": "N"}, {"type": float, "metavar": "X"}

# Passed on to the estimator, which has their defaults.
OPTIONS: dict[str, dict[str, Any]] = {
    "model": {
        "metavar": "NAME",
        "help": "auto, small_cnn, resnet_narrow, resnet_small, resnet34, resnet50 or torchvision:NAME",
    },
    "start": {"metavar": "NAME", "help": "auto, random, pretrain, shipped, published or a file of weights"},
    "pretrain_epochs": INTEGER | {"help": "of --start pretrain"},
    "image_size": INTEGER | {"help": "side of the squares that images become; by default 32, for torchvision 224"},
    "epochs": INTEGER | {"help": "passes over the images; by default enough for 600 steps, at least 10"},
    "patience": INTEGER | {"help": "epochs without progress on the verified images before it stops"},
    "start_steps": INTEGER | {"help": "steps on the verified images alone before everything else"},
    "batch_size": INTEGER | {"help": "images per step, by default 64"},
    "clean_batch_size": INTEGER | {"help": "verified images per step, by default 32"},
    "lr": NUMBER | {"help": "the student's learning rate"},
    "teacher_lr": NUMBER | {"help": "the teacher's learning rate"},
    "k": INTEGER | {"help": "student steps per teacher update"},
    "flip": {"action": "store_true", "help": "mirror images are of the same class"},
    "autoaugment": {"action": "store_true", "help": "vary verified images more (colour images only)"},
    "seed": INTEGER | {"help": "of every random choice"},
    "device": {"metavar": "NAME", "help": "auto, cpu, cuda or cuda:N"},
    "checkpoint": {"metavar": "DIR", "help": "a folder from which an interrupted training goes on"},
}


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point ``emlc``. Exits with 2 and one line on stderr if an argument or an input cannot be used."""
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = lambda message, *_, **__: _tell(args, "warning", message)
            print(_correct(args))
    # ConfigError and InputError are ValueErrors.
    except (ValueError, FloatingPointError, CheckpointError) as error:
        _tell(args, "error", error)
        sys.exit(2)


def _tell(args: argparse.Namespace, kind: str, what: object) -> None:
    print(f"emlc {args.command}: {kind}: {what}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="emlc", description="Learning from noisy labels by EMLC.")
    parser.add_argument("--version", action="version", version=metadata.version("emlc-lib"))
    commands = parser.add_subparsers(dest="command", required=True)
    correct = commands.add_parser(
        "correct",
        help="correct the labels of a folder of images",
        description="Learns from a folder of images with partly wrong labels and a CSV file of a few verified "
        "ones; writes a CSV file of corrected labels and a sheet of the most suspicious images.",
        formatter_class=_Defaults,
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
    training = correct.add_argument_group("training", "parameters of emlc_lib.EMLCClassifier")
    defaults = EMLCClassifier().get_params()
    for name, how in OPTIONS.items():
        training.add_argument(f"--{name.replace('_', '-')}", default=defaults[name], **how)
    return parser


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Says no default where there is none."""

    def _get_help_string(self, action):
        return action.help if action.default is None or action.const is True else super()._get_help_string(action)


def _file(start: str) -> Path | None:
    """The file that the first weights are in, if they are in one."""
    return Path(start) if Path(start).is_file() else None


def _correct(args: argparse.Namespace) -> str:
    """Does it, and returns what to tell the user."""
    outputs = {"--out": args.out, "--sheet": args.sheet, "--save": args.save}
    check_outputs(outputs, [args.verified, args.labels, _file(args.start)], args.images)
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
    changed = int((table["given_label"].notna() & (table["given_label"] != table["corrected_label"])).sum())
    return (
        f"{args.out}: {len(table)} images, {len(verified)} of them verified, {changed} labels changed\n"
        f"{args.sheet}: the {len(suspicious)} most suspicious images"
    )


if __name__ == "__main__":
    main()
