"""What the work costs at the least, and what it costs when it is done without thought.

`RawSave` is the floor: the system calls that a locked, atomic, durable save cannot do without, in
one thread, by nothing but `os` and `fcntl`. It is stricter than the store may be: it looks at no
stored revision, checks nothing that it opens, stamps no time. `NaiveSave` does the same by
aiofiles in its plain use: each operation is a hop of its own to the loop's default executor.
"""

from __future__ import annotations

import fcntl
import os
from itertools import count
from typing import Any

import aiofiles
import aiofiles.os
from aiofiles.os import wrap

from phi_sessions import FileSystemSessionStore

__all__ = ["NaiveSave", "RawSave", "empty_hop", "raw_read"]

_numbers = count()
_flock = wrap(fcntl.flock)
_fsync = wrap(os.fsync)
_open = wrap(os.open)
_close = wrap(os.close)


class RawSave:
    """Replace one file durably under its lock, inline."""

    def __init__(self, directory: str, name: str) -> None:
        self.directory = directory
        self.path = os.path.join(directory, name)
        self._lock = self.path + ".lock"
        self._temporary = f"{self.path}.tmp.{os.getpid()}.{next(_numbers)}"

    def __call__(self, data: bytes) -> None:
        """Open and take the lock, write aside, sync, rename, sync the directory, unlock, close."""
        lock = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(fd, data)
        os.fsync(fd)
        os.close(fd)
        os.rename(self._temporary, self.path)
        os.fsync(directory)
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(directory)
        os.close(lock)


class NaiveSave:
    """Replace one file durably under its lock, a hop for each operation."""

    def __init__(self, directory: str, name: str) -> None:
        self.directory = directory
        self.path = os.path.join(directory, name)

    async def __call__(self, data: bytes) -> None:
        """As `RawSave`, awaited piece by piece; 12 hops."""
        temporary = self.path + ".tmp"
        async with aiofiles.open(self.path + ".lock", "ab") as lock:
            await _flock(lock.fileno(), fcntl.LOCK_EX)
            directory = await _open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
            async with aiofiles.open(temporary, "xb", buffering=0) as file:
                await file.write(data)
                await _fsync(file.fileno())
            await aiofiles.os.replace(temporary, self.path)
            await _fsync(directory)
            await _close(directory)
            await _flock(lock.fileno(), fcntl.LOCK_UN)


def raw_read(path: str) -> bytes:
    """Return a file's bytes: open, one status, one read, close."""
    fd = os.open(path, os.O_RDONLY)
    data = os.read(fd, os.fstat(fd).st_size)
    os.close(fd)
    return data


def _nothing(*_: Any) -> None:
    pass


async def empty_hop(store: FileSystemSessionStore) -> None:
    """Go to the store's own threads and back, as the store does, with nothing to do there."""
    await wrap(_nothing)(executor=store._workers)
