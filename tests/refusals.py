"""What a call does that must be refused: its error, and what it wrote before."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest


class Case(NamedTuple):
    """A call that must be refused.

    Attributes:
        name: says what is wrong.
        error: the exact type of the exception.
        message: how its text begins, as a regular expression: the culprit and what is allowed.
        call: in an empty working directory, but for
        files: which writes what the call reads.
    """

    name: str
    error: type[BaseException]
    message: str
    call: Callable[[], Any]
    files: Callable[[], Any] = lambda: None


class Refusal(NamedTuple):
    """The exception, and the files that were written, changed or removed."""

    error: BaseException
    changed: set[tuple[str, int]]


def refused(call: Callable[[], Any], folder: Path) -> Refusal:
    """The refusal of a call; the fixture ``here`` fails the test when a network is used."""
    before = _files(folder)
    with pytest.raises((Exception, SystemExit)) as caught:
        call()
    return Refusal(caught.value, before ^ _files(folder))


def _files(folder: Path) -> set[tuple[str, int]]:
    return {(str(path), path.lstat().st_mtime_ns) for path in folder.rglob("*")}
