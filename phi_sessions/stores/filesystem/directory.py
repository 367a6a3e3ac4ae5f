"""A directory of session files: what happens in one hop, from the lock to the unlock.

Everything here blocks and runs in one thread from start to end; nothing waits. What may succeed
a little later raises `Contended` or `Unsettled`, and `retry` says when to try again.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from ... import codec
from ...codec import Header, Parcel, StoredRecord
from ...errors import (
    SaveOutcomeUnknownError,
    SessionCorruptError,
    SessionEncodeError,
    SessionError,
    SessionIOError,
)
from ...model import Revision
from ...store import Expect, Expectation
from ..base import Outcome, Stored, new_revision, require
from . import disk, document
from .layout import Paths
from .lock import acquire, exclusive, release
from .publish import NotDurable, publish, withdraw

__all__ = ["Head", "SessionDirectory", "Stamp", "Unsettled", "translated"]

_PREFIX = 4096
"""Bytes of a file that are read for its head; a longer head takes a second read."""


_TAIL = 16
"""Bytes of a file that are read to see whether it ends as it should."""


class Stamp(NamedTuple):
    """What changes when a file changes."""

    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


class Unsettled(Exception):
    """A file looks damaged; it is, unless somebody is writing into it just now.

    phi-core's older functions write in place. The file is damaged if it still has the same
    `stamp` a moment later.
    """

    def __init__(self, error: SessionCorruptError, stamp: Stamp) -> None:
        super().__init__(str(error))
        self.error = error
        self.stamp = stamp


class Head(NamedTuple):
    """What the beginning of a file tells."""

    header: Header
    revision: Revision
    stamp: Stamp


class SessionDirectory:
    """The sessions in one directory. Arguments are those of `FileSystemSessionStore`."""

    def __init__(
        self, path: str, *, fsync: bool, mode: int, indent: int | None, max_bytes: int
    ) -> None:
        self.path = path
        self._fsync = fsync
        self._mode = mode
        self._indent = indent
        self._max_bytes = max_bytes

    def save(self, parcel: Parcel, expect: Expectation, outcome: Outcome) -> None:
        """Store `parcel` whole, or leave what was there untouched.

        Raises:
            Contended, Unsettled: Try again.
            SessionError: As `SessionStore.save`.
        """
        paths = Paths(self.path, parcel.session_id)
        data, revision = self._encode(parcel)

        def visible() -> None:
            outcome.revision = revision

        with translated(parcel.session_id):
            lock = self._acquire(paths)
            try:
                found = self._revision(paths, parcel.session_id, expect)
                require(expect, found, parcel.session_id)
                publish(
                    paths.session,
                    paths.temporary(),
                    data,
                    mode=self._mode,
                    durable=self._fsync,
                    on_visible=visible,
                )
            finally:
                release(lock)

    def delete(self, session_id: str, expect: Expectation) -> bool:
        """Remove the session; False when there was none.

        Raises:
            Contended, Unsettled: Try again.
            SessionError: As `SessionStore.delete`.
        """
        paths = Paths(self.path, session_id)
        with translated(session_id):
            if not os.path.lexists(paths.session):
                return False  # and no lock file is made for it
            with exclusive(paths.lock):
                found = self._revision(paths, session_id, Expect.UNCHANGED)
                if found is None:
                    return False
                require(expect, found, session_id)
                withdraw(paths.session, durable=self._fsync)
        return True

    def load(self, session_id: str) -> Stored | None:
        """Return what is stored, checked to the last record, or None.

        Raises:
            Unsettled: Try again.
            SessionError: As `SessionStore.load`.
        """
        with translated(session_id), self._opened(session_id) as opened:
            return None if opened is None else self._read(session_id, *opened)

    def head(self, session_id: str, *, agent_id: str | None = None) -> Head | None:
        """Return what a listing tells of a session, from a prefix of its file where that will do.

        With `agent_id`, None also when the first bytes name another agent.

        Raises:
            Unsettled: Try again.
            SessionError: As `SessionStore.load`.
        """
        with translated(session_id), self._opened(session_id) as opened:
            if opened is None:
                return None
            fd, status = opened
            _, own = _read_head(fd, status.st_size)
            if own is not None:
                if agent_id is not None and document.names_other(own.head, session_id, agent_id):
                    return None
                with _corrupt(session_id, self.path, Stamp.of(status)):
                    header = _checked_header(own.head, session_id)
                return Head(header, own.revision, Stamp.of(status))
            os.lseek(fd, 0, os.SEEK_SET)
            stored = self._read(session_id, fd, status)
            return Head(stored.header, stored.revision, Stamp.of(status))

    def exists(self, session_id: str) -> bool:
        """Return whether there is a session file, sound or damaged."""
        with translated(session_id), self._opened(session_id) as opened:
            return opened is not None

    def _encode(self, parcel: Parcel) -> tuple[bytes, Revision]:
        texts = [record.text for record in parcel.records]
        if self._indent is None:
            revision = new_revision()
            data = document.join(parcel.head, revision, texts)
        else:
            data, revision = document.join_indented(parcel.head, texts, self._indent)
        if len(data) > self._max_bytes:
            raise SessionEncodeError(
                f"session {parcel.session_id!r} takes {len(data):,} bytes, "
                f"max_bytes is {self._max_bytes:,}",
                session_id=parcel.session_id,
            )
        return data, revision

    def _acquire(self, paths: Paths) -> int:
        try:
            return acquire(paths.lock)
        except FileNotFoundError:
            disk.make_directories(self.path, durable=self._fsync)
            return acquire(paths.lock)

    def _revision(self, paths: Paths, session_id: str, expect: Expectation) -> Revision | None:
        """Return the revision of what is stored, None if nothing is. Damage is never passed over.

        Only `Expect.ANYTHING` does not look inside.
        """
        try:
            fd, status = disk.open_regular(paths.session, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            if expect is Expect.ANYTHING:
                return Revision("")
            prefix, own = _read_head(fd, status.st_size)
            if own is not None and document.names_session(own.head, session_id):
                tail = prefix if len(prefix) == status.st_size else _tail(fd, status.st_size)
                if document.ends_well(tail):
                    return own.revision
            os.lseek(fd, 0, os.SEEK_SET)
            return self._read(session_id, fd, status).revision
        finally:
            disk.close_quietly(fd)

    @contextmanager
    def _opened(self, session_id: str) -> Generator[tuple[int, os.stat_result] | None]:
        try:
            fd, status = disk.open_regular(Paths(self.path, session_id).session, os.O_RDONLY)
        except FileNotFoundError:
            yield None
            return
        try:
            yield fd, status
        finally:
            disk.close_quietly(fd)

    def _read(self, session_id: str, fd: int, status: os.stat_result) -> Stored:
        with _corrupt(session_id, self.path, Stamp.of(status)):
            if status.st_size > self._max_bytes:
                raise _Damage(f"{status.st_size:,} bytes, max_bytes is {self._max_bytes:,}")
            data = disk.read_whole(fd, status.st_size)
            try:
                parts = document.split(data)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise _Damage(str(error)) from error
            header = _checked_header(parts.head, session_id)
            records = [StoredRecord(codec.check_record(text), text) for text in parts.records]
            return Stored(header, records, parts.revision)


class _Damage(Exception):
    """Says what is wrong with a file."""


def _read_head(fd: int, size: int) -> tuple[bytes, document.OwnHead | None]:
    """Read a file's first bytes, and with them its head if it is laid out as ours are."""
    prefix = os.read(fd, _PREFIX)
    own = document.own_head(prefix)
    if own is None and size > len(prefix) and document.may_be_own(prefix):
        prefix += disk.read_whole(fd, size - len(prefix))
        own = document.own_head(prefix)
    return prefix, own


def _tail(fd: int, size: int) -> bytes:
    os.lseek(fd, max(size - _TAIL, 0), os.SEEK_SET)
    return os.read(fd, _TAIL)


def _checked_header(text: bytes, session_id: str) -> Header:
    header = codec.decode_head(text)
    if header.session_id != session_id:
        raise _Damage(f"it holds session {header.session_id!r}")
    return header


@contextmanager
def _corrupt(session_id: str, directory: str, stamp: Stamp) -> Generator[None]:
    """Turn what is wrong with a file into an error that names the file."""
    try:
        yield
    except (_Damage, SessionCorruptError) as error:
        path = Paths(directory, session_id).session
        reason = error.reason if isinstance(error, SessionCorruptError) else str(error)
        corrupt = SessionCorruptError(
            f"{path} is damaged: {reason}", session_id=session_id, path=path, reason=reason
        )
        corrupt.__cause__ = error
        raise Unsettled(corrupt, stamp) from error


@contextmanager
def translated(session_id: str | None) -> Generator[None]:
    """Turn the system's errors into this package's."""
    try:
        yield
    except SessionError:
        raise
    except OSError as error:
        filename = None if error.filename is None else str(error.filename)
        what = f"{filename or 'session storage'}: {error.strerror or error}"
        kind: type[SessionIOError] = SessionIOError
        if isinstance(error, NotDurable):
            kind = SaveOutcomeUnknownError
            what += "; the change can be seen, but may not survive a power cut"
        raise kind(what, session_id=session_id, errno=error.errno, filename=filename) from error
