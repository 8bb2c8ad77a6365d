"""Tables as people and spreadsheets write them."""

import csv
import io
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from .files import as_path
from .parameters import ConfigError


def read_table(file: str | Path, parameter: str, needed: Callable[[set[str]], Sequence[str]]) -> pd.DataFrame:
    """A CSV file as text; the index has the number of each row's line in the file, blank lines are left out.

    Separators are commas, semicolons or tabs, whichever the first line has most of. Empty cells at the end of
    a line, a byte order mark and blanks around a cell do not matter.

    Args:
        parameter: the file's name, for messages.
        needed: from those that there are, in small letters, to those that there must be, in either.

    Raises:
        ConfigError: the file cannot be read, is no text, lacks a column, or a line has more cells than the first.
    """
    path = as_path(file, parameter)
    try:
        data = path.read_bytes()
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text), skipinitialspace=True)
        lines = _filled(rows)
    except (OSError, UnicodeError, csv.Error) as error:
        reason = "it is no UTF-8 text; save it as CSV UTF-8" if isinstance(error, UnicodeError) else error
        raise ConfigError(f"{parameter}: {path} cannot be read as CSV ({reason})") from None
    if not lines:
        raise ConfigError(f"{parameter}: {path} cannot be read as CSV (it is empty)")
    header = lines.pop(min(lines))
    while not header[-1]:
        header.pop()
    columns = needed({name.lower() for name in header})
    header = [name.lower() if name.lower() in columns else name for name in header]
    missing = [name for name in columns if name not in header]
    if missing:
        raise ConfigError(
            f"{parameter}: {path} has no column {missing[0]!r}; it needs {','.join(columns)}, and its first line "
            f"is {','.join(header)}"
        )
    twice = [name for name in columns if header.count(name) > 1]
    if twice:
        raise ConfigError(f"{parameter}: {path} has two columns {twice[0]!r}")
    for number, cells in lines.items():
        if any(cells[len(header) :]):
            raise ConfigError(
                f"{parameter}: line {number} of {path} has {len(cells)} cells, the first one has {len(header)}; "
                "put what has a separator in it in quotation marks"
            )
    cut = [(cells + [""] * len(header))[: len(header)] for cells in lines.values()]
    return pd.DataFrame(cut, index=list(lines), columns=header, dtype=str)


def alike(text: str) -> str:
    """A name without blanks around it, and with accents in their composed form: macOS writes others."""
    return unicodedata.normalize("NFC", text).strip()


def _separator(text: str) -> str:
    first = next((line for line in text.splitlines() if line.strip(" ,;\t")), "")
    return max(",;\t", key=first.count)


def _filled(rows) -> dict[int, list[str]]:
    lines = {}
    for row in rows:
        if any(cells := [cell.strip() for cell in row]):
            lines[rows.line_num] = cells
    return lines
