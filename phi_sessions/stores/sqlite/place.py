"""Where a database lies: its directory, its empty file, and whether it is still the same file.

Nothing here opens the file: closing any descriptor of it would give up all the locks that SQLite
holds on it in this process.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

from ...errors import SessionIOError

__all__ = ["FileId", "file_id", "io_error", "make", "make_directories", "uri"]

FileId = tuple[int, int]
"""Device and inode."""


def uri(path: str) -> str:
    """Return the address under which SQLite opens the file, but does not make it."""
    return f"{Path(path).as_uri()}?mode=rw"


def file_id(path: str) -> FileId:
    """Return which file is at `path`.

    Raises:
        OSError: There is none, it cannot be told, or it is a directory, FIFO, socket or device.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise SessionIOError(f"{path}: not a regular file", filename=path)
    return status.st_dev, status.st_ino


def make(path: str) -> None:
    """Make the directories and the empty file that are missing, so that a power cut keeps them.

    Raises:
        OSError: One of them cannot be made.
    """
    directory = os.path.dirname(path)
    make_directories(directory)
    try:
        _make_file(path)
    except FileExistsError:
        pass  # another process was faster
    except OSError as error:
        error.filename = path  # which `os.mknod` does not tell
        raise
    _sync(directory)


def make_directories(path: str) -> None:
    """Make the directories that are missing, for their owner alone, so that a power cut keeps them.

    Raises:
        OSError: One of them cannot be made.
    """
    parent = os.path.dirname(path)
    if os.path.isdir(path):
        # Who made it may have died before it was on the disk. What this process may not look at
        # it has not made.
        with suppress(PermissionError):
            _sync(parent)
        return
    make_directories(parent)
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
    _sync(parent)


def io_error(error: OSError) -> SessionIOError:
    """Return this package's error for the system's."""
    if isinstance(error, SessionIOError):
        return error
    filename = None if error.filename is None else str(error.filename)
    what = f"{filename}: {error.strerror or error}"
    return SessionIOError(what, errno=error.errno, filename=filename)


def _make_file(path: str) -> None:
    if sys.platform == "linux":
        os.mknod(path, 0o600)
    else:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


if sys.platform == "win32":

    def _sync(directory: str) -> None:
        """Windows brings a new entry to the disk with the file system's own log."""

else:

    def _sync(directory: str) -> None:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
