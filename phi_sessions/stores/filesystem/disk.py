"""What differs between operating systems: opening, reaching the disk, replacing.

Everything here blocks.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import sys
import time
from contextlib import suppress
from typing import Final

from ..regular import SAFE, close_quietly, open_regular

__all__ = [
    "SAFE",
    "begin_writing",
    "close_directory",
    "close_quietly",
    "exists",
    "make_directories",
    "most_descriptors",
    "open_directory",
    "open_regular",
    "read_whole",
    "replace",
    "stamp",
    "status_of",
    "sync_data",
    "sync_directory",
    "sync_file",
    "write_whole",
]

_log = logging.getLogger(__name__)
_REPLACE_ATTEMPTS: Final = 100
_REPLACE_PAUSE: Final = 0.01


def exists(path: str) -> bool:
    """Return whether there is anything at `path`, a dangling link included.

    Raises:
        OSError: It cannot be told.
    """
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def status_of(fd: int) -> os.stat_result | None:
    """Return the status of a file that was changed; None if it is not told: the change stands."""
    try:
        return os.fstat(fd)
    except OSError as error:
        _log.info("descriptor %d: %s", fd, error)
        return None


def read_whole(fd: int, size: int) -> bytes:
    """Return what is left to read, `size` bytes as the file said; one more if it has grown."""
    data = os.read(fd, size + 1)
    while len(data) < size and (part := os.read(fd, size + 1 - len(data))):
        data += part  # Linux reads at most 2 GiB at once
    return data


def write_whole(fd: int, data: bytes) -> None:
    """Write all of `data`."""
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])


if sys.platform == "darwin":
    import fcntl

    def sync_file(fd: int) -> None:
        """Bring a file to the disk, through the drive's own cache where the system can."""
        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
                raise
            os.fsync(fd)  # the file system has no F_FULLFSYNC

else:

    def sync_file(fd: int) -> None:
        """Bring a file to the disk."""
        os.fsync(fd)


def sync_data(fd: int) -> None:
    """Bring a file's bytes to the disk, and of its attributes only what reading them takes."""
    if sys.platform == "linux":
        os.fdatasync(fd)
    else:
        sync_file(fd)


if sys.platform == "linux":

    def begin_writing(fd: int, start: int) -> None:
        """Have the kernel begin to write a file's bytes from `start` on, for a short wait later.

        Telling it that they are not needed in memory does that, and waits for nothing.
        """
        os.posix_fadvise(fd, start, 0, os.POSIX_FADV_DONTNEED)

else:

    def begin_writing(fd: int, start: int) -> None:
        """Only Linux is known to have a way."""


if sys.platform == "win32":

    def most_descriptors() -> int:
        """Return how many files may be open at once."""
        return 512  # of the C library's; Windows itself has no limit

    def stamp(fd: int, path: str, when: int) -> None:  # noqa: ARG001 - Windows takes the path
        """Give an open file a time, in nanoseconds since 1970."""
        os.utime(path, ns=(when, when))

    def open_directory(path: str) -> int:
        """Make sure that there is a directory; Windows has no descriptor for it."""
        if not stat.S_ISDIR(os.stat(path).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return -1

    def sync_directory(fd: int) -> None:
        """Windows brings a rename to the disk with the file system's own log."""

    def close_directory(fd: int) -> None:
        """Nothing was opened."""

    def replace(source: str, target: str) -> None:
        """Put `source` in the place of `target`, waiting for readers that have it open."""
        for attempt in range(_REPLACE_ATTEMPTS):
            try:
                os.replace(source, target)
                return
            except PermissionError:
                if attempt == _REPLACE_ATTEMPTS - 1:
                    raise
                time.sleep(_REPLACE_PAUSE)

else:
    import resource

    def most_descriptors() -> int:
        """Return how many files may be open at once."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return sys.maxsize if limit == resource.RLIM_INFINITY else limit

    def stamp(fd: int, path: str, when: int) -> None:  # noqa: ARG001 - only Windows takes the path
        """Give an open file a time, in nanoseconds since 1970.

        The kernel's own stamp is up to 4 ms coarse: sessions saved in a row would tie.
        """
        os.utime(fd, ns=(when, when))

    def open_directory(path: str) -> int:
        """Open a directory for `sync_directory`."""
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def sync_directory(fd: int) -> None:
        """Bring a directory's entries to the disk: without it a power cut undoes a rename."""
        sync_file(fd)

    def close_directory(fd: int) -> None:
        """Close what `open_directory` opened."""
        close_quietly(fd)

    def replace(source: str, target: str) -> None:
        """Put `source` in the place of `target`."""
        os.replace(source, target)


def make_directories(path: str, *, durable: bool) -> None:
    """Make `path` and the parents that it lacks, each 0700.

    With `durable`, the parent of each, and of the deepest that was there, is brought to the disk:
    somebody else may have made that and died before it was.
    """
    path = os.path.abspath(path)
    unsure = [path]
    while not _is_directory(unsure[-1]):
        unsure.append(os.path.dirname(unsure[-1]))
    # In a directory that this process may not look into it has not made one.
    if durable and _may_look_into(os.path.dirname(unsure[-1])):
        _sync_parent(unsure[-1])
    for directory in reversed(unsure[:-1]):
        with suppress(FileExistsError):
            os.mkdir(directory, 0o700)
        if durable:
            _sync_parent(directory)


def _may_look_into(path: str) -> bool:
    return os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids)


def _sync_parent(path: str) -> None:
    directory = open_directory(os.path.dirname(path))
    try:
        sync_directory(directory)
    finally:
        close_directory(directory)


def _is_directory(path: str) -> bool:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    return True
