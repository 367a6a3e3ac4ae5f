"""The lock that this package and phi-core share: flock(2), exclusive, on a sidecar."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Final

from . import disk

if TYPE_CHECKING:
    from portalocker.portalocker import BaseLocker

__all__ = ["Contended", "exclusive"]

_LOCK_MODE: Final = 0o600  # who can read a lock file can hold it for ever
_log = logging.getLogger(__name__)


class Contended(Exception):
    """Another holds the lock at this moment."""


@contextmanager
def exclusive(path: str) -> Generator[None]:
    """Hold the lock file `path`, made when it is missing and never removed.

    Raises:
        Contended: Another holds it.
        OSError: It cannot be locked, for whatever other reason.
    """
    fd, _ = disk.open_regular(path, os.O_RDWR | os.O_CREAT, _LOCK_MODE)
    try:
        _lock(fd, path)
        try:
            yield
        finally:
            _unlock(fd, path)
    finally:
        disk.close_quietly(fd)


def _lock(fd: int, path: str) -> None:
    from portalocker import AlreadyLocked, LockException, LockFlags

    try:
        _locker().lock(fd, LockFlags.EXCLUSIVE | LockFlags.NON_BLOCKING)
    except AlreadyLocked as error:
        raise Contended from error
    except LockException as error:
        raise _as_os_error(error, path) from error


def _unlock(fd: int, path: str) -> None:
    from portalocker import LockException

    try:
        # Closing is not enough: a child forked meanwhile shares the lock until it is given back.
        _locker().unlock(fd)
    except LockException as error:
        _log.warning("could not unlock %s: %s", path, error)  # closing it does


def _as_os_error(error: Exception, path: str) -> OSError:
    cause = error.__cause__ or (error.args[0] if error.args else None)
    if isinstance(cause, OSError):
        return OSError(cause.errno, cause.strerror, path)
    return OSError(None, str(error), path)


@cache
def _locker() -> BaseLocker:
    # Imported with the first lock: portalocker pulls in redis where that is installed, and fails
    # where no temporary directory can be written. The locker is named rather than left to
    # portalocker.LOCKER, which a program may point at lockf; flock takes no notice of that.
    from portalocker import portalocker

    if sys.platform == "win32":
        return portalocker.Win32Locker()
    return portalocker.FlockLocker()
