"""Work that one process does while others wait for its result."""

from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .progress import say


@contextmanager
def alone(file: Path, busy: str, *, show: bool = True):
    """Of several processes with this lock file one enters; the others wait, and then find what it has made.

    The system releases the lock of a process that dies.

    Args:
        file: the lock; its folder is made.
        busy: what those who wait say on stderr if ``show``.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if show:
            say(f"{busy} by another process: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
