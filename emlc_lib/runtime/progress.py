"""What is said on stderr: a progress bar with an ETA, lines, and how long something takes in words."""

import sys
from collections.abc import Iterable

from tqdm import tqdm


class _Lines:
    """A text stream that turns tqdm's carriage returns into lines, for logs that are read afterwards."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text: str) -> None:
        text = text.replace("\r", "").strip()
        if text:
            self.stream.write(text + "\n")

    def flush(self) -> None:
        self.stream.flush()


def progress(iterable: Iterable, *, total: int, initial: int = 0, desc: str = "", show: bool = True) -> tqdm:
    """Wraps ``iterable`` in a bar of ``total`` steps that starts at ``initial``, with rate and ETA.

    In a terminal the bar updates in place. Elsewhere (a log file, a notebook kernel, where papermill copies
    the stream into its own log) a line is written at most every ten seconds.
    """
    stream = sys.stderr
    if stream.isatty():
        return tqdm(
            iterable, total=total, initial=initial, desc=desc, file=stream, disable=not show,
            dynamic_ncols=True,
        )  # fmt: skip
    return tqdm(
        iterable, total=total, initial=initial, desc=desc, file=_Lines(stream), disable=not show,
        mininterval=10.0, maxinterval=20.0, ascii=True, ncols=100,
    )  # fmt: skip


def say(text: str) -> None:
    """Prints a line on stderr, at once."""
    print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """A time in words, in the unit that suits it: ``3 minutes``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
