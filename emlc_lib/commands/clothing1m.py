"""``emlc clothing1m check`` and ``copy``."""

import click

from ..data.clothing1m.folder import COPY, CROP, LEFT_OUT, inspect_folder, leave_out, write_copy
from ..runtime.files import as_folder, writable_file, writable_folder
from ..runtime.places import data_root
from .parameters import PathOf


@click.group()
def command():
    """Check or copy a FOLDER of Clothing1M, by default clothing1m/ of the data root.

    It is given by its authors on request; the notebook 11_clothing1m says whom to ask.
    """


@command.command()
@click.argument("folder", type=PathOf(as_folder), required=False)
@click.option("--decode", is_flag=True, help="Also open every image, to find broken ones (hours).")
@click.option("--leave-out", "without", is_flag=True, help=f"Write the images that cannot be used to {LEFT_OUT}.")
def check(folder, decode, without):
    """List what is missing; the status is 1 if the folder cannot be trained on."""
    folder = folder or data_root() / "clothing1m"
    if without:
        writable_file(folder / LEFT_OUT, "--leave-out")
    report = inspect_folder(folder, decode=decode, show=True)
    print(report)
    if without and report.blocking:
        leave_out(folder, report.blocking)
        print(f"{len(report.blocking)} images were added to {folder / LEFT_OUT}")
        return int(bool(report.repeated))
    return int(not report.usable)


@command.command(help=f"Write {CROP}-pixel images to {COPY}/, for runs with -p resized_copy True.")
@click.argument("folder", type=PathOf(as_folder), required=False)
def copy(folder):
    folder = folder or data_root() / "clothing1m"
    writable_folder(folder / COPY, "FOLDER")
    print(f"{write_copy(folder, show=True)} images written to {folder / COPY}")
