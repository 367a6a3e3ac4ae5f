"""Reading session files. No lock is taken: a file is replaced whole, or being written by phi-core.

Everything here blocks.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

import msgspec

from ... import codec
from ...codec import Card, Header, StoredRecord
from ...errors import SaveOutcomeUnknownError, SessionCorruptError, SessionIOError
from ...model import Revision
from ...store import Expect, Expectation, SessionInfo
from ...timestamp import Timestamp
from ..base import Stored, card
from . import disk, document
from .layout import Paths
from .publish import NotDurable

__all__ = ["SessionReader", "Stamp", "Unsettled", "translate"]

_PREFIX: Final = 4096
"""Bytes of a file that are read for its head; a longer head takes a second read."""

_TAIL: Final = 16
"""Bytes of a file that are read to see whether it ends as it should."""


class Stamp(NamedTuple):
    """What changes when a file changes."""

    inode: int
    size: int
    mtime_ns: int


class Unsettled(Exception):
    """A file looks damaged; it is, unless somebody is writing into it just now.

    phi-core's older functions write in place. The file is damaged if it still has the same
    `stamp` a moment later.
    """

    def __init__(self, error: SessionCorruptError, stamp: Stamp) -> None:
        super().__init__(str(error))
        self.error = error
        self.stamp = stamp


class SessionReader:
    """Reads the sessions in the directory `path`, none larger than `max_bytes`."""

    def __init__(self, path: str, max_bytes: int) -> None:
        self.path = path
        self.max_bytes = max_bytes

    def load(self, session_id: str) -> Stored | None:
        """Return what is stored, checked to the last record, or None.

        Raises:
            Unsettled: Try again.
            SessionError: As `SessionStore.load`.
        """
        try:
            file = _open(Paths(self.path, session_id))
            if file is None:
                return None
            with file:
                return self._read(session_id, file)
        except OSError as error:
            raise translate(error, session_id) from error

    def card(self, session_id: str) -> SessionInfo | None:
        """Return what a listing tells of a session, from a prefix of its file where that will do.

        Raises:
            Unsettled: Try again.
            SessionError: As `SessionStore.load`.
        """
        try:
            file = _open(Paths(self.path, session_id))
            if file is None:
                return None
            with file:
                _, own = self._read_head(file)
                if own is None:
                    stored = self._read(session_id, file)
                    return _card(stored.header, stored.revision, file.stamp)
                try:
                    found = codec.decode_card(own.head)
                    _require_id(found.session_id, session_id)
                except (_Damage, SessionCorruptError) as error:
                    raise _unsettled(error, session_id, file) from error
                return _card(found, own.revision, file.stamp)
        except OSError as error:
            raise translate(error, session_id) from error

    def exists(self, session_id: str) -> bool:
        """Return whether there is a session file, sound or damaged."""
        try:
            file = _open(Paths(self.path, session_id))
            if file is not None:
                file.close()
            return file is not None
        except OSError as error:
            raise translate(error, session_id) from error

    def revision(self, paths: Paths, session_id: str, expect: Expectation) -> Revision | None:
        """Return the revision of what is stored, None if nothing is. Damage is not passed over.

        With `Expect.ANYTHING` only whether there is a file counts, and its revision is empty.
        Who holds the very revision that is stored has all that the file held: that it is there is
        told by its two ends.

        Raises:
            Unsettled: Try again.
            OSError: It cannot be read.
        """
        file = _open(paths)
        if file is None:
            return None
        with file:
            if expect is Expect.ANYTHING:
                return Revision("")
            prefix, own = self._read_head(file)
            if own is not None and document.names_session(own.head, session_id):
                tail = prefix if len(prefix) == file.stamp.size else _read_tail(file)
                if document.ends_well(tail) and own.revision == expect:
                    return own.revision
            return self._read(session_id, file).revision

    def _read_head(self, file: _File) -> tuple[bytes, document.OwnHead | None]:
        """Read a file's first bytes, and with them its head if it is laid out as ours are."""
        prefix = os.read(file.fd, _PREFIX)
        if file.stamp.size > self.max_bytes:
            return prefix, None
        own = document.own_head(prefix)
        if own is None and document.may_be_own(prefix) and file.stamp.size > len(prefix):
            prefix += disk.read_whole(file.fd, file.stamp.size - len(prefix))
            own = document.own_head(prefix)
        return prefix, own

    def _read(self, session_id: str, file: _File) -> Stored:
        size = file.stamp.size
        try:
            if size > self.max_bytes:
                raise _Damage(f"{size:,} bytes, max_bytes is {self.max_bytes:,}")
            os.lseek(file.fd, 0, os.SEEK_SET)
            parts = document.split(disk.read_whole(file.fd, size))
            header = codec.decode_head(parts.head)
            _require_id(header.session_id, session_id)
            records = [StoredRecord(codec.check_record(text), text) for text in parts.records]
        except (_Damage, SessionCorruptError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _unsettled(error, session_id, file) from error
        return Stored(header, records, parts.revision)


class _File:
    """A session file that is open; leaving it closes it."""

    __slots__ = ("fd", "path", "stamp")

    def __init__(self, path: str, fd: int, stamp: Stamp) -> None:
        self.path = path
        self.fd = fd
        self.stamp = stamp

    def close(self) -> None:
        disk.close_quietly(self.fd)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class _Damage(Exception):
    """Says what is wrong with a file."""


def _open(paths: Paths) -> _File | None:
    try:
        fd, status = disk.open_regular(paths.session, os.O_RDONLY)
    except FileNotFoundError:
        return None
    return _File(paths.session, fd, Stamp(status.st_ino, status.st_size, status.st_mtime_ns))


def _read_tail(file: _File) -> bytes:
    os.lseek(file.fd, max(file.stamp.size - _TAIL, 0), os.SEEK_SET)
    return os.read(file.fd, _TAIL)


def _require_id(found: str, session_id: str) -> None:
    if found != session_id:
        raise _Damage(f"it holds session {found!r}")


def _card(header: Card | Header, revision: Revision, stamp: Stamp) -> SessionInfo:
    return card(header, revision, Timestamp.from_nanoseconds(stamp.mtime_ns), stamp.size)


def _unsettled(error: Exception, session_id: str, file: _File) -> Unsettled:
    """Return an error that names the file and what is wrong with it."""
    reason = error.reason if isinstance(error, SessionCorruptError) else str(error)
    corrupt = SessionCorruptError(
        f"{file.path} is damaged: {reason}", session_id=session_id, path=file.path, reason=reason
    )
    corrupt.__cause__ = error
    return Unsettled(corrupt, file.stamp)


def translate(error: OSError, session_id: str | None = None) -> SessionIOError:
    """Return this package's error for the system's."""
    filename = None if error.filename is None else str(error.filename)
    what = f"{filename or 'session storage'}: {error.strerror or error}"
    kind: type[SessionIOError] = SessionIOError
    if isinstance(error, NotDurable):
        kind = SaveOutcomeUnknownError
        what += "; the change can be seen, but may not survive a power cut"
    return kind(what, session_id=session_id, errno=error.errno, filename=filename)
