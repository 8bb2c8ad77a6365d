"""The loop that all trainings share: steps with progress, and now and then a look for what is not finite."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from tqdm import tqdm

from .divergence import CHECK_EVERY
from .progress import progress

Log = TypeVar("Log")


def epochs(
    step: Callable[[int], Log],
    steps: range,
    *,
    ends: Callable[[int], bool],
    check: Callable[[list[Log], int], None],
    desc: str,
    show: bool,
) -> Iterator[tuple[int, list[Log], tqdm]]:
    """Takes steps and hands over at the end of each epoch.

    Args:
        step: takes the step of a number and returns what it logs.
        steps: the numbers; those below ``steps.start`` were taken before.
        ends: whether an epoch ends with the step of a number.
        check: called with what the last steps have logged and the last one's number, every
            :data:`~emlc_lib.runtime.divergence.CHECK_EVERY` steps and before an epoch is handed over.
        desc, show: of the progress bar.

    Yields:
        The number of the epoch's last step, what its steps have logged, and the bar.
    """
    log: list[Log] = []
    with progress(steps, total=steps.stop, initial=steps.start, desc=desc, show=show) as bar:
        for t in bar:
            log.append(step(t))
            over = ends(t)
            if over or len(log) % CHECK_EVERY == 0:
                check(log[-CHECK_EVERY:], t)
            if over:
                yield t, log, bar
                log = []
