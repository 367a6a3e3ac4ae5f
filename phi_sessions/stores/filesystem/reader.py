"""Reading session files. No lock is taken: a file is replaced whole, or being written by phi-core.

Everything here blocks.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, NamedTuple

import msgspec

from ... import codec
from ...codec import Header, StoredRecord
from ...errors import SaveOutcomeUnknownError, SessionCorruptError, SessionIOError
from ...model import Revision
from ..base import Stored
from . import disk, document
from .layout import Paths
from .publish import NotDurable

__all__ = ["Head", "SessionReader", "Stamp", "Unsettled", "translate"]

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


class Head(NamedTuple):
    """What the beginning of a file tells."""

    header: Header
    revision: Revision
    stamp: Stamp


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
            with self._opened(Paths(self.path, session_id)) as file:
                return file and self._read(session_id, file)
        except OSError as error:
            raise translate(error, session_id) from error

    def head(self, session_id: str, *, agent_id: str | None = None) -> Head | None:
        """Return what a listing tells of a session, from a prefix of its file where that will do.

        With `agent_id`, None also when the first bytes name another agent.

        Raises:
            Unsettled: Try again.
            SessionError: As `SessionStore.load`.
        """
        try:
            with self._opened(Paths(self.path, session_id)) as file:
                if file is None:
                    return None
                _, own = self._read_head(file)
                if own is None:
                    stored = self._read(session_id, file)
                    return Head(stored.header, stored.revision, file.stamp)
                if agent_id is not None and document.names_other(own.head, session_id, agent_id):
                    return None
                with _corrupt(session_id, file):
                    header = _checked_header(own.head, session_id)
                return Head(header, own.revision, file.stamp)
        except OSError as error:
            raise translate(error, session_id) from error

    def exists(self, session_id: str) -> bool:
        """Return whether there is a session file, sound or damaged."""
        try:
            with self._opened(Paths(self.path, session_id)) as file:
                return file is not None
        except OSError as error:
            raise translate(error, session_id) from error

    def revision(self, paths: Paths, session_id: str, *, look_inside: bool) -> Revision | None:
        """Return the revision of what is stored, None if nothing is. Damage is not passed over.

        Without `look_inside`, only whether there is a file counts, and its revision is empty.

        Raises:
            Unsettled: Try again.
            OSError: It cannot be read.
        """
        with self._opened(paths) as file:
            if file is None:
                return None
            if not look_inside:
                return Revision("")
            prefix, own = self._read_head(file)
            if own is not None and document.names_session(own.head, session_id):
                tail = prefix if len(prefix) == file.stamp.size else _read_tail(file)
                if document.ends_well(tail):
                    return own.revision
            return self._read(session_id, file).revision

    @contextmanager
    def _opened(self, paths: Paths) -> Generator[_File | None]:
        try:
            fd, status = disk.open_regular(paths.session, os.O_RDONLY)
        except FileNotFoundError:
            yield None
            return
        try:
            stamp = Stamp(status.st_ino, status.st_size, status.st_mtime_ns)
            yield _File(paths.session, fd, stamp)
        finally:
            disk.close_quietly(fd)

    def _read_head(self, file: _File) -> tuple[bytes, document.OwnHead | None]:
        """Read a file's first bytes, and with them its head if it is laid out as ours are."""
        prefix = os.read(file.fd, _PREFIX)
        own = document.own_head(prefix)
        if own is None and document.may_be_own(prefix):
            rest = min(file.stamp.size, self.max_bytes) - len(prefix)
            if rest > 0:
                prefix += disk.read_whole(file.fd, rest)
                own = document.own_head(prefix)
        return prefix, own

    def _read(self, session_id: str, file: _File) -> Stored:
        with _corrupt(session_id, file):
            size = file.stamp.size
            if size > self.max_bytes:
                raise _Damage(f"{size:,} bytes, max_bytes is {self.max_bytes:,}")
            os.lseek(file.fd, 0, os.SEEK_SET)
            data = disk.read_whole(file.fd, size)
            try:
                parts = document.split(data)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise _Damage(str(error)) from error
            header = _checked_header(parts.head, session_id)
            records = [StoredRecord(codec.check_record(text), text) for text in parts.records]
            return Stored(header, records, parts.revision)


class _File(NamedTuple):
    path: str
    fd: int
    stamp: Stamp


class _Damage(Exception):
    """Says what is wrong with a file."""


def _read_tail(file: _File) -> bytes:
    os.lseek(file.fd, max(file.stamp.size - _TAIL, 0), os.SEEK_SET)
    return os.read(file.fd, _TAIL)


def _checked_header(text: bytes, session_id: str) -> Header:
    header = codec.decode_head(text)
    if header.session_id != session_id:
        raise _Damage(f"it holds session {header.session_id!r}")
    return header


@contextmanager
def _corrupt(session_id: str, file: _File) -> Generator[None]:
    """Turn what is wrong with a file into an error that names the file."""
    try:
        yield
    except (_Damage, SessionCorruptError) as error:
        reason = error.reason if isinstance(error, SessionCorruptError) else str(error)
        corrupt = SessionCorruptError(
            f"{file.path} is damaged: {reason}",
            session_id=session_id,
            path=file.path,
            reason=reason,
        )
        corrupt.__cause__ = error
        raise Unsettled(corrupt, file.stamp) from error


def translate(error: OSError, session_id: str | None = None) -> SessionIOError:
    """Return this package's error for the system's."""
    filename = None if error.filename is None else str(error.filename)
    what = f"{filename or 'session storage'}: {error.strerror or error}"
    kind: type[SessionIOError] = SessionIOError
    if isinstance(error, NotDurable):
        kind = SaveOutcomeUnknownError
        what += "; the change can be seen, but may not survive a power cut"
    return kind(what, session_id=session_id, errno=error.errno, filename=filename)
