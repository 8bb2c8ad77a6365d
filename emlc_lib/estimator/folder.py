"""From a folder of images to a corrected CSV file: what ``10_your_data`` and ``emlc correct`` have in common."""

import atexit
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import binomtest

from ..data.images import InputError
from ..runtime.files import as_path, is_stream, writable_file, write_atomically
from .contact_sheet import contact_sheet
from .example import write_example
from .images import EXTENSIONS, Images, image_size, read_folder, read_labels, thumbnail

SHEET_FORMATS = (".jpg", ".pdf", ".png", ".svg")

# Verified images of a class.
FEW = 10

# Share of wrong labels below which correcting made CIFAR-10's labels worse (15_which_information).
FEW_WRONG = 0.2

ALL = "(all)"


class Files(NamedTuple):
    """Paths of what is read (images, clean, labels) and written (out, sheet, save); None where there is none.

    ``truth`` is the example's: every path's true label.
    """

    images: Path
    clean: Path
    labels: Path | None
    out: Path
    sheet: Path
    save: Path | None
    truth: pd.Series | None


def read_given(
    folder: str | Path, labels: str | Path | None = None, names: tuple[str, str] = ("images", "labels")
) -> Images:
    """All images of a folder with their given labels.

    Args:
        folder: with a subfolder per class, unless there is a file of labels.
        labels: a CSV file of path,label.
        names: of these two parameters, for messages.

    Raises:
        InputError: what is asked for is not there; see :mod:`emlc_lib.estimator.images`.
    """
    if labels is None:
        return read_folder(folder, names[0])
    if not Path(folder).is_dir():
        raise InputError(f"{names[0]}: {folder} is not a folder")
    return read_labels(labels, folder, names[1], gone_through=False)


def check_outputs(
    outputs: Mapping[str, Path | None],
    inputs: Iterable[Path | None],
    images: Path | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Whether files can be written, and without loss.

    Args:
        outputs: by parameter's name; None is not written. A name that ends in ``sheet`` is a picture's.
        inputs: files that must not be overwritten.
        images: a folder, in which no image may be overwritten or added.
        overwrite: whether files that are there may be replaced: a table may have been worked on since.

    Raises:
        ConfigError: a file cannot be written. InputError: it is another parameter's, one of the images, no
            picture's, or there already.
    """
    seen = {path.resolve() for path in inputs if path is not None}
    for name, path in outputs.items():
        if path is None:
            continue
        if (
            images is not None
            and path.suffix.lower() in EXTENSIONS
            and path.resolve().is_relative_to(images.resolve())
        ):
            raise InputError(f"{name}: {path} would be one of the images in {images}; give it another place")
        if path.resolve() in seen:
            raise InputError(f"{name}: {path} is another argument's file already")
        seen.add(path.resolve())
        if name.endswith("sheet") and path.suffix.lower() not in SHEET_FORMATS:
            raise InputError(f"{name}: {path.name} must end in one of {', '.join(SHEET_FORMATS)}")
        if path.is_file() and not is_stream(path) and not overwrite:
            flag = "--overwrite" if name.startswith("--") else "overwrite=True"
            raise InputError(f"{name}: {path} is there already; give another name, or {flag}")
        writable_file(path, name)


def sheet_beside(out: Path, images: Path) -> Path:
    """suspicious.png beside a file; in the working directory where that is no place for it: a stream's, or among
    the images."""
    among = out.resolve().is_relative_to(images.resolve())
    return Path("suspicious.png") if is_stream(out) or among else out.parent / "suspicious.png"


def own_files(
    *, images: str, clean: str, labels: str = "", out: str = "", sheet: str = "", save: str = "",
    overwrite: bool = False,
) -> Files:  # fmt: skip
    """The files that ``10_your_data`` was asked for; for an empty ``images`` those of an example, written now.

    Args:
        images, clean, labels: as the notebook has them; paths begin in the working directory.
        out, sheet, save: what is to be written. Empty: corrected.csv here, or beside the example's images;
            suspicious.png beside that; no networks.
        overwrite: whether these may be replaced where they are there already.

    Raises:
        InputError: one of images and clean is missing, or an output is not possible; see :func:`check_outputs`.
    """
    if bool(images) != bool(clean):
        missing = "clean" if images else "images"
        raise InputError(f"{missing}: is missing; give images and clean, or none of them for the example")
    if labels and not images:
        raise InputError("labels: is for images of your own")
    if images:
        sources, truth, beside = (as_path(images, "images"), as_path(clean, "clean")), None, Path()
    else:
        example = write_example(_temporary_folder())
        sources, truth, beside = example[:2], example.truth, example.images.parent
    to = as_path(out, "out") if out else beside / "corrected.csv"
    files = Files(
        *sources, as_path(labels, "labels") if labels else None,
        to, as_path(sheet, "sheet") if sheet else sheet_beside(to, sources[0]),
        as_path(save, "save") if save else None, truth,
    )  # fmt: skip
    outputs = {"out": files.out, "sheet": files.sheet, "save": files.save}
    check_outputs(outputs, [files.clean, files.labels], files.images, overwrite=overwrite)
    return files


def _temporary_folder() -> Path:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def count_classes(given: Images, verified: Images) -> pd.DataFrame:
    """How many images there are, and what the verified ones say of the given labels.

    Returns:
        A row per class, sorted, and one of sums named ``(all)``: ``images`` with that given label; ``verified``
        ones among them; how many of these are ``wrong``, i.e. were verified to be of another class; and
        ``checked_as``, the verified images that are of this class whatever was given.
    """
    true = dict(zip(verified.names, verified.labels, strict=True))
    label = pd.Series(given.labels, index=given.names)
    truth = pd.Series([true.get(name) for name in given.names], index=given.names, dtype=object)
    counts = pd.DataFrame(
        {
            "images": label.groupby(label).size(),
            "verified": truth.groupby(label).count(),
            "wrong": (truth.notna() & (truth != label)).groupby(label).sum(),
        }
    )
    counts["checked_as"] = pd.Series(verified.labels).value_counts().reindex(counts.index, fill_value=0)
    counts.loc[ALL] = counts.sum()
    return counts.rename_axis("given label")


def describe_sets(given: Images, verified: Images) -> str:
    """What there is to learn from, in a few sentences: sizes of the images, verified ones, estimated noise.

    The share of wrong labels among the verified images estimates that of all if they were chosen at random; the
    interval is Wilson's for a binomial share.

    Raises:
        InputError: a file is not an image.
    """
    counts = count_classes(given, verified)
    images, known, wrong, _ = counts.loc[ALL]
    sizes = Counter(image_size(given.folder / name, given.parameter) for name in given.names).most_common()
    (width, height), most = sizes[0]
    size = f"all {width} x {height}" if len(sizes) == 1 else f"{len(sizes)} sizes, {most} are {width} x {height}"
    lines = [f"{images} images of {len(counts) - 1} classes, {size} pixels; {len(verified)} are verified"]
    if known:
        interval = binomtest(int(wrong), int(known)).proportion_ci(method="wilson")
        lines.append(
            f"of {known} verified images with a given label {wrong} were given a wrong one: {wrong / known:.0%} "
            f"({interval.low:.0%} to {interval.high:.0%})"
        )
        if wrong / known < FEW_WRONG:
            lines.append(
                f"where fewer than {FEW_WRONG:.0%} are wrong, correcting may spoil more than it repairs (it did "
                "on CIFAR-10): use the rank, and look before you change a label"
            )
    few = counts.index[counts["checked_as"] < FEW].drop(ALL, errors="ignore")
    if len(few):
        lines.append(f"fewer than {FEW} images are verified of: {', '.join(map(str, few))}; more are better")
    return "\n".join(lines)


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


def write_table(table: pd.DataFrame, file: Path) -> None:
    """Writes a table as CSV, atomically, numbers with six digits."""
    write_atomically(file, lambda path: table.to_csv(path, index=False, float_format="%.6g"))


def sheet_of(table: pd.DataFrame, folder: str | Path, parameter: str = "images", **options) -> Figure:
    """The contact sheet of some rows of ``EMLCClassifier.correct_labels``.

    Args:
        table: the rows, whose paths are relative to ``folder``.
        parameter: the folder's name, for messages.
        options: of :func:`emlc_lib.estimator.contact_sheet.contact_sheet`.

    Raises:
        InputError: an image cannot be read.
    """
    images = [np.asarray(thumbnail(Path(folder) / path, parameter)) for path in table["path"]]
    return contact_sheet(images, table, **options)


def write_sheet(figure: Figure, file: Path) -> None:
    """Writes a figure in the format of the file's name, atomically, and closes it."""
    # The temporary name of the atomic write says nothing of the format.
    form = file.suffix.lower().removeprefix(".")
    write_atomically(file, lambda path: figure.savefig(path, format=form, dpi=120))
    plt.close(figure)
