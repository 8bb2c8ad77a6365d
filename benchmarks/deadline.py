"""Work that ends when its time is up."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class OutOfTime(BaseException):
    """The time is up, or what comes next would not fit. No Exception: what it ends has not failed."""


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raises :class:`OutOfTime` in the block, which runs in the main thread, once its time is up."""

    def ring(*_) -> None:
        raise OutOfTime

    handler = signal.signal(signal.SIGALRM, ring)
    before = signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))  # 0 would be no alarm
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
        signal.signal(signal.SIGALRM, handler)
