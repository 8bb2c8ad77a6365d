"""Paths that a user names, checked before any work, and files that are never seen half-written."""

import errno
import json
import os
import re
import shutil
import stat
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .parameters import ConfigError

# Somebody else's file in a sticky folder, or one that is mounted by itself.
_NOT_REPLACED = (errno.EPERM, errno.EACCES, errno.EBUSY, errno.EXDEV)

_NO_FOLDER = (FileExistsError, NotADirectoryError)

_TEMPORARY = re.compile(r".+\.(safetensors|json|csv)\.\d+\.tmp")


def as_path(value: object, parameter: str) -> Path:
    """A path as a user gives it, with ``~`` expanded.

    Raises:
        ConfigError: it is no path, or one that a file cannot have.
    """
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ConfigError(f"{parameter}: must be a path (got {value!r})")
    try:
        str(value).encode()
        path = Path(value).expanduser()
        path.is_dir()
    except UnicodeEncodeError:
        raise ConfigError(f"{parameter}: {str(value)!a} is no UTF-8; rename it") from None
    except RuntimeError:
        raise ConfigError(f"{parameter}: there is no such user's home as in {value}") from None
    except OSError as error:
        raise ConfigError(f"{parameter}: {str(value)[:80]}: {error.strerror}") from None
    return path


def as_folder(value: object, parameter: str) -> Path:
    """A path that is a folder's, or where one can yet be made.

    Raises:
        ConfigError: it is no path, or there is a file.
    """
    path = as_path(value, parameter)
    there = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if not there.is_dir():
        raise ConfigError(f"{parameter}: {there} is a file, not a folder")
    return path


def writable_folder(value: object, parameter: str, *, make: bool = False) -> Path:
    """:func:`as_folder`, in which files can be written now; it is made if it is not there and ``make``.

    Raises:
        ConfigError: it is not; nothing was made.
    """
    folder = as_folder(value, parameter)
    _try(folder, f"{'x' * 60}.{os.getpid()}.{threading.get_ident()}", f"{parameter}: {folder}", make)
    return folder


def writable_file(value: object, parameter: str) -> Path:
    """A path that :func:`write_atomically` can write to now; nothing is left there.

    Raises:
        ConfigError: it is not; the message says why.
    """
    path = as_path(value, parameter)
    if path.is_dir():
        raise ConfigError(f"{parameter}: {path} is a folder, not a file")
    target = _target(path)
    if target.exists() and not (is_stream(target) or target.is_file()):
        raise ConfigError(f"{parameter}: {path} is nothing that can be written to")
    if target.exists() and not os.access(target, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise ConfigError(f"{parameter}: {path} is not yours to write to")
    if not is_stream(target):
        for name in (_temporary(target).name, target.name):
            _try(target.parent, name, f"{parameter}: {path}")
    return path


def _try(folder: Path, name: str, what: str, make: bool = False) -> None:
    """Makes a file of that name, if there is none, and removes it with the folders that it needed."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():
            (folder / name).touch()
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        make = False
        reason = "a file is in a folder's place" if isinstance(error, _NO_FOLDER) else error.strerror
        raise ConfigError(f"{what} cannot be written to ({reason})") from None
    finally:
        for place in () if make else missing:
            with suppress(OSError):  # somebody else's file is in it by now
                place.rmdir()


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Calls ``write(temporary_path)`` and moves the result to ``path``, which is never seen half-written.

    Links are followed, and what is no regular file (a pipe, /dev/null) is written to, not replaced.

    Raises:
        OSError: it cannot be written; it has the file's name.
    """
    target = _target(path)
    try:
        if is_stream(target):
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder) / "file")
                _pour(Path(folder) / "file", target)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(target)
        try:
            write(temporary)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            try:
                os.replace(temporary, target)
            except OSError as error:
                if error.errno not in _NOT_REPLACED or not target.is_file():
                    raise
                shutil.copyfile(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.filename is None or str(error.filename).endswith(".tmp"):
            error.filename = str(path)
        raise


def _target(path: Path) -> Path:
    """Where a link leads; but /dev/stdout and its like stay what they are."""
    return path if is_stream(path) else Path(os.path.realpath(path))


def is_stream(path: Path) -> bool:
    """Whether it is no regular file but can be written to, or is this process's own output."""
    try:
        status = path.stat()
    except OSError:
        return False
    return stat.S_ISFIFO(status.st_mode) or stat.S_ISCHR(status.st_mode) or _own_output(status) is not None


def _own_output(status: os.stat_result) -> int | None:
    for number in (1, 2):
        try:
            if os.path.samestat(status, os.fstat(number)):
                return number
        except OSError:  # closed
            continue
    return None


def _pour(file: Path, stream: Path) -> None:
    own = _own_output(stream.stat())
    if own is not None:  # where it stands: opened anew, it would begin at the start of what it is redirected to
        sys.stdout.flush()
    with open(file, "rb") as source, open(stream, "wb") if own is None else os.fdopen(os.dup(own), "wb") as to:
        shutil.copyfileobj(source, to)


def _temporary(target: Path) -> Path:
    """Beside it, of a name that is not too long."""
    return target.with_name(f"{target.name[-60:]}.{os.getpid()}.tmp")


def clear_temporaries(folder: Path) -> None:
    """Removes what killed calls of :func:`write_atomically` have left; nobody else may be writing there."""
    for file in folder.glob("*.tmp"):
        if _TEMPORARY.fullmatch(file.name):  # a user's own folder may hold other files of that ending
            file.unlink()


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically."""
    text = json.dumps(value, indent=2, sort_keys=True) + "\n"
    write_atomically(path, lambda p: p.write_text(text))
