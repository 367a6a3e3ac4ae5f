"""A lock that the kernel gives back when its holder dies: flock(2), exclusive, on its own file.

It knows nothing of what is locked. Everything here blocks, but for no longer than opening a file.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  # pyright: ignore[reportUnusedImport]
import errno
import logging
import os
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

from .regular import close_quietly, open_regular

if TYPE_CHECKING:
    from portalocker import LockFlags
    from portalocker.portalocker import BaseLocker

__all__ = ["Contended", "acquire", "held", "release"]

_LOCK_MODE: Final = 0o600  # who can read a lock file can hold it for ever
# `concurrent.futures.thread` asks to be told of forks: not for the first time while one waits.
_held: Final[set[int]] = set()
# A fork waits while a lock file is being opened, or portalocker imported: the child would not
# know of the one, and wait for ever for the other.
_forking = threading.Lock()
_log = logging.getLogger(__name__)


class Contended(Exception):
    """Another holds the lock at this moment."""


def acquire(path: str) -> int:
    """Take the lock file `path`, made when it is missing, and return a descriptor of it.

    Raises:
        Contended: Another holds it.
        OSError: It cannot be locked, for whatever other reason.
    """
    api = _portalocker()
    with _forking:
        fd, _ = open_regular(path, os.O_RDWR | os.O_CREAT, _LOCK_MODE)
        _held.add(fd)
    try:
        api.locker.lock(fd, api.flags)
    except api.LockException as error:
        _drop(fd)
        cause = error.__cause__ or (error.args[0] if error.args else None)
        number = cause.errno if isinstance(cause, OSError) else None
        # portalocker calls EACCES contention, as lockf does; from flock it is a refusal.
        if isinstance(error, api.AlreadyLocked) and number != errno.EACCES:
            raise Contended from error
        raise OSError(number, f"cannot be locked: {cause or error}", path) from error
    except BaseException:
        _drop(fd)
        raise
    return fd


def release(fd: int) -> None:
    """Give the lock back. The file stays: removing it would let two holders in."""
    api = _portalocker()
    try:
        # Closing is not enough: a child forked meanwhile shares the lock until it is given back.
        api.locker.unlock(fd)
    except api.LockException as error:
        _log.warning("could not unlock descriptor %d: %s", fd, error)  # closing it does
    finally:
        _drop(fd)


@contextmanager
def held(fd: int) -> Generator[None]:
    """Hold a lock that was acquired until this is left."""
    try:
        yield
    finally:
        release(fd)


def _drop(fd: int) -> None:
    _held.discard(fd)
    close_quietly(fd)


class _Portalocker(NamedTuple):
    locker: BaseLocker
    flags: LockFlags
    AlreadyLocked: type[Exception]
    LockException: type[Exception]


@cache
def _portalocker() -> _Portalocker:
    # Imported with the first lock: portalocker pulls in redis where that is installed, and fails
    # where no temporary directory can be written. The locker is named rather than left to
    # portalocker.LOCKER, which a program may point at lockf; flock takes no notice of that.
    with _forking:
        from portalocker import AlreadyLocked, LockException, LockFlags, portalocker

    flags = LockFlags.EXCLUSIVE | LockFlags.NON_BLOCKING
    kind = portalocker.Win32Locker if sys.platform == "win32" else portalocker.FlockLocker
    return _Portalocker(kind(), flags, AlreadyLocked, LockException)


def _hold_still() -> None:
    _forking.acquire()


def _go_on() -> None:
    _forking.release()


def _let_go() -> None:
    _forking.release()
    # A forked child shares its parent's locks, and would keep them if the parent were killed.
    while _held:
        close_quietly(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_still, after_in_parent=_go_on, after_in_child=_let_go)
