"""What SQLite reports, as this package's errors."""

from __future__ import annotations

import errno
import os
from typing import Final

from ...errors import (
    SaveOutcomeUnknownError,
    SessionCorruptError,
    SessionError,
    SessionIOError,
    SessionLockedError,
)
from .driver import sqlite3

__all__ = ["DRIVER_ERRORS", "Contended", "is_contention", "is_damage", "is_uncertain", "translate"]

DRIVER_ERRORS: Final = (sqlite3.Error, sqlite3.Warning, UnicodeDecodeError, OverflowError)
"""What the driver raises. It cannot decode what SQLite says of some damaged schemas, and it cannot
bind numbers that only damage makes so large."""

_CONTENTION: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}

_DAMAGE: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH}
"""Constraints and types are this package's own: only damage breaks them."""

# A commit is written before it is brought to the disk. When that fails it cannot be seen, but
# SQLite may find it in the log and take it for made after a crash.
_UNCERTAIN: Final = {
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_DIR_FSYNC,
    sqlite3.SQLITE_IOERR_DIR_CLOSE,
}

_NUMBERS: Final = {
    sqlite3.SQLITE_AUTH: errno.EACCES,
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_INTERRUPT: errno.EINTR,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_NOLFS: errno.EFBIG,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_TOOBIG: errno.EFBIG,
}
_REFUSED: Final = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}


class Contended(Exception):
    """Another holds the database at this moment."""


def is_contention(error: Exception) -> bool:
    """Return whether another holds the database at this moment."""
    return _code(error) & 0xFF in _CONTENTION


def is_damage(error: Exception) -> bool:
    """Return whether what is stored is damaged."""
    if isinstance(error, UnicodeDecodeError | OverflowError):
        return True
    return _code(error) & 0xFF in _DAMAGE


def is_uncertain(error: Exception) -> bool:
    """Return whether a commit that failed so may be found made after a crash."""
    return _code(error) in _UNCERTAIN


def translate(
    error: Exception,
    path: str,
    session_id: str | None = None,
    *,
    kind: type[SessionIOError] = SessionIOError,
) -> SessionError:
    """Return this package's error for SQLite's, about a session where one is named."""
    what = f"{path}: {error}"
    primary = _code(error) & 0xFF
    if is_contention(error):
        return SessionLockedError(what, session_id=session_id)
    if is_damage(error) and session_id is not None:
        return SessionCorruptError(what, session_id=session_id, path=path, reason=str(error))
    if kind is SaveOutcomeUnknownError:
        what += "; the change cannot be seen, but may be found made after a crash"
    number = _number(primary, path)
    return kind(what, session_id=session_id, errno=number, filename=path)


def _code(error: Exception) -> int:
    # What the Python module itself refuses has no code.
    return getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_ERROR


def _number(primary: int, path: str) -> int | None:
    """Return the system's error number, which SQLite keeps to itself."""
    if primary not in _REFUSED:
        return _NUMBERS.get(primary)
    # The file is not opened to find out: closing it would give up this process's locks on it.
    directory = os.path.dirname(path)
    try:
        os.stat(path)
        if hasattr(os, "statvfs") and os.statvfs(directory).f_flag & os.ST_RDONLY:
            return errno.EROFS
    except OSError as reason:
        return reason.errno
    may = os.access(path, os.R_OK | os.W_OK) and os.access(directory, os.W_OK | os.X_OK)
    return None if may else errno.EACCES
