"""``emlc correct``: the estimator on a folder of images."""

import inspect
import re
import sys
import warnings
from pathlib import Path

import click

from ..estimator.estimator import EMLCClassifier
from ..estimator.folder import (
    check_outputs,
    describe_sets,
    read_given,
    sheet_beside,
    sheet_of,
    with_verified,
    write_sheet,
    write_table,
)
from ..estimator.images import read_labels
from ..estimator.report import report as report_page
from ..estimator.sets import pair
from ..runtime.files import write_atomically
from ..runtime.parameters import refuse_unknown
from ..runtime.progress import say
from .parameters import Described, PathOf, given


def _sections():
    """The parameters as the estimator's docstring has them."""
    text = inspect.getdoc(EMLCClassifier).partition("Args:\n")[2].partition("\n\n")[0]
    defaults = EMLCClassifier().get_params()
    rows = []
    for names, words in re.findall(r"^    ([\w, ]+): ((?:.*\n?)(?:^ {8}.*\n?)*)", text, re.M):
        known = [name for name in names.split(", ") if name != "verbose"]
        shown = [f"{defaults[name]}" for name in known if defaults[name] is not None]
        words = re.sub(r"``|:\w+:`~?([^`]*)`", r"\1", " ".join(words.split()))
        rows += [(", ".join(known), words + (f" (default: {', '.join(shown)})" if shown else ""))] if known else []
    yield "Parameters of emlc_lib.EMLCClassifier", rows


@click.command(cls=Described, sections=_sections)
@click.argument("images", metavar="FOLDER", type=PathOf())
@click.option(
    "--verified",
    required=True,
    type=PathOf(),
    metavar="CSV",
    help="path,label of verified images of every class; or an --out in which you set verified to True.",
)
@click.option(
    "--labels", type=PathOf(), metavar="CSV", help="path,label of all images, in place of the subfolders' names."
)
@click.option(
    "--out", type=PathOf(), default="corrected.csv", metavar="CSV", show_default=True, help="The corrected labels."
)
@click.option(
    "--sheet",
    type=PathOf(),
    metavar="FILE",
    help="The most suspicious images.  [default: suspicious.png beside --out]",
)
@click.option(
    "--sheet-images", type=click.IntRange(1), default=48, metavar="N", show_default=True, help="How many."
)
@click.option(
    "--report", type=PathOf(), metavar="FILE.html", help="A page of the same images, to check them in a browser."
)
@click.option("--save", type=PathOf(), metavar="FILE", help="Keep the trained networks, for EMLCClassifier.load.")
@click.option("--overwrite", is_flag=True, help="Replace these files where they are there already.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@given
def command(images, verified, labels, out, sheet, sheet_images, report, save, overwrite, quiet, parameters):
    """Learn from a FOLDER of images with partly wrong labels, and a CSV file of a few verified ones.

    \b
    emlc correct photos --verified checked.csv -p flip True

    The images are in one subfolder per class unless --labels is given. Writes a CSV file of corrected labels and a
    sheet of the most suspicious images.
    """
    known = EMLCClassifier().get_params().keys() - {"verbose"}
    refuse_unknown(parameters, known)
    start = Path(str(parameters.get("start", "")))
    sheet = sheet_beside(out, images) if sheet is None else sheet
    check_outputs(
        {"--out": out, "--sheet": sheet, "--report": report, "--save": save},
        [verified, labels, start if start.is_file() else None],
        images,
        overwrite=overwrite,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: print(
            f"emlc correct: warning: {message}", file=sys.stderr
        )
        images_given = read_given(images, labels, ("FOLDER", "--labels"))
        images_verified = read_labels(verified, images, "--verified")
        pair(images_given, images_verified, parameters.get("classes"))  # what is wrong with labels is said first
        if not quiet:
            say(describe_sets(images_given, images_verified))
        estimator = EMLCClassifier(**parameters, verbose=not quiet).fit(images_given, images_verified)
        corrected = estimator.correct_labels()
    if save is not None:  # before a picture that cannot be read can cost the training
        estimator.save(save)
    table = with_verified(corrected, images_given, images_verified)
    write_table(table, out)
    suspicious = corrected.nsmallest(sheet_images, "rank")
    write_sheet(sheet_of(suspicious, images, "FOLDER"), sheet)
    if report is not None:
        page = report_page(table, suspicious, images)
        write_atomically(report, lambda path: path.write_text(page, encoding="utf-8"))
    changed = int((corrected["given_label"] != corrected["corrected_label"]).sum())
    others = f"{changed} labels of the others changed"
    print(f"{out}: {len(table)} images, {len(images_verified)} of them verified; {others}")
    print(f"{sheet}: the {len(suspicious)} most suspicious images")
    if report is not None:
        print(f"{report}: the same as a page")
