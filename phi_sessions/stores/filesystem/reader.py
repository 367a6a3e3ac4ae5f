"""Reading session files. No lock is taken: a file is replaced whole, or being written by phi-core.

Everything here blocks.
"""

from __future__ import annotations

import logging
import os
from typing import Final

import msgspec

from ... import codec
from ...codec import Origin, StoredRecord
from ...errors import SessionCorruptError
from ...info import SessionInfo, card
from ...model import Revision
from ...store import Expect, Expectation
from ...timestamp import Timestamp
from ..base import Stored
from . import disk, document, tailfile
from .failures import translate
from .layout import Paths
from .state import Bond, Stamp, State, Unsettled, bond_of, state_of
from .tail import Tail
from .tailfile import Ending

__all__ = ["SessionReader"]

_log = logging.getLogger(__name__)
_PREFIX: Final = 4096
"""Bytes of a file that are read for its head; a longer head takes a second read."""

_END: Final = 16
"""Bytes of a file that are read to see whether it ends as it should."""


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
            return self.read(Paths(self.path, session_id), session_id)
        except OSError as error:
            raise translate(error, session_id) from error

    def read(self, paths: Paths, session_id: str) -> Stored | None:
        """Return what is stored: the session file with its tail taken in.

        Raises:
            Unsettled: Try again.
            OSError: It cannot be read.
        """
        while True:
            file = _open(paths)
            if file is None:
                return None
            with file:
                snapshot, supersedes = self._read(session_id, file)
                tail = self._read_tail(paths, session_id, file)
                # A writer may have taken the tail in between the two readings: both are old then.
                is_current = _is_current(file)
            if is_current:
                return _with_tail(snapshot, supersedes, tail, paths)

    def card(self, session_id: str) -> SessionInfo | None:
        """Return what a listing tells of a session, from a prefix of its file where that will do.

        Raises:
            Unsettled: Try again.
            SessionError: As `SessionStore.load`.
        """
        paths = Paths(self.path, session_id)
        try:
            while True:
                file = _open(paths)
                if file is None:
                    return None
                with file:
                    head, revision, supersedes = self._read_start(session_id, file)
                    tail = self._read_tail(paths, session_id, file)
                    is_current = _is_current(file)
                if is_current:
                    return _card(session_id, file, head, revision, supersedes, tail)
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

    def state(
        self, paths: Paths, session_id: str, expect: Expectation, *, at_its_ends: bool = False
    ) -> State | None:
        """Return what a writer needs to know, None if nothing is stored. Damage is not passed over.

        To be called while the session's lock is held. With `Expect.ANYTHING` it does not count
        what is there. Who holds the very revision that is stored has all that the files held:
        that they are there is told by their ends, and `at_its_ends` trusts these for all.

        Raises:
            Unsettled: Try again.
            OSError: It cannot be read.
        """
        file = _open(paths)
        if file is None:
            return None
        with file:
            stamp = file.stamp
            ending, damage = self._read_ending(paths, session_id, file)
            if damage is not None and expect is not Expect.ANYTHING:
                raise damage
            prefix, own = self._read_head(file)
            if expect is Expect.ANYTHING:
                # A tail of which it cannot be told what it extends is kept.
                bond = Bond.ORPHAN if damage or ending else Bond.NONE
                if own is not None and damage is None:
                    bond = bond_of(own.revision, own.supersedes, ending)
                return State(Revision(""), Revision(""), ending, bond, is_own=False, stamp=stamp)
            is_own = own is not None and document.ends_well(self._end(prefix, file))
            if own is not None and is_own and document.names_session(own.head, session_id):
                state = state_of(own.revision, own.supersedes, ending, True, stamp)
                if at_its_ends or state.revision == expect:
                    return state
            snapshot, supersedes = self._read(session_id, file)
            self._read_tail(paths, session_id, file)
        return state_of(snapshot.origin.revision, supersedes, ending, is_own, stamp)

    def _read_ending(
        self, paths: Paths, session_id: str, file: _File
    ) -> tuple[Ending | None, Unsettled | None]:
        try:
            return tailfile.read_ending(paths, self.max_bytes), None
        except (SessionCorruptError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            return None, _unsettled(error, session_id, file, paths.tail)

    def _read_tail(self, paths: Paths, session_id: str, file: _File) -> Tail | None:
        try:
            return tailfile.read_tail(paths, self.max_bytes)
        except (SessionCorruptError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _unsettled(error, session_id, file, paths.tail) from error

    def _read_start(self, session_id: str, file: _File) -> tuple[bytes, Revision, Revision | None]:
        prefix, own = self._read_head(file)
        if own is None or not document.ends_well(self._end(prefix, file)):
            snapshot, supersedes = self._read(session_id, file)
            return snapshot.origin.head, snapshot.origin.revision, supersedes
        return own.head, own.revision, own.supersedes

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

    @staticmethod
    def _end(prefix: bytes, file: _File) -> bytes:
        """Return a file's last bytes, or all that was read if that is the whole file."""
        return prefix if len(prefix) == file.stamp.size else _read_end(file)

    def _read(self, session_id: str, file: _File) -> tuple[Stored, Revision | None]:
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
        return Stored(header, Origin(parts.revision, parts.head, records)), parts.supersedes


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
    return _File(paths.session, fd, Stamp.of(status))


def _read_end(file: _File) -> bytes:
    os.lseek(file.fd, max(file.stamp.size - _END, 0), os.SEEK_SET)
    return os.read(file.fd, _END)


def _require_id(found: str, session_id: str) -> None:
    if found != session_id:
        raise _Damage(f"it holds session {found!r}")


def _is_current(file: _File) -> bool:
    try:
        status = os.lstat(file.path)
    except FileNotFoundError:
        return False
    return file.stamp == Stamp.of(status)


def _with_tail(
    snapshot: Stored, supersedes: Revision | None, tail: Tail | None, paths: Paths
) -> Stored:
    origin = snapshot.origin
    bond = bond_of(origin.revision, supersedes, tail)
    if bond is Bond.ORPHAN:
        _log.warning("%s belongs to no stored state of its session; see check()", paths.tail)
    if tail is None or bond is not Bond.LIVE:
        return snapshot
    head, records = origin.head, origin.records
    for step in tail.steps:
        head = head if step.head is None else step.head
    news = [record for step in tail.steps for record in step.records]
    header = snapshot.header if head is origin.head else codec.decode_head(head)
    return Stored(header, Origin(tail.revision, head, codec.put_records(records, news)))


def _card(
    session_id: str,
    file: _File,
    head: bytes,
    revision: Revision,
    supersedes: Revision | None,
    tail: Tail | None,
) -> SessionInfo:
    size, mtime_ns = file.stamp.size, file.stamp.mtime_ns
    if tail is not None and bond_of(revision, supersedes, tail) is Bond.LIVE:
        revision = tail.revision
        size += tail.size
        mtime_ns = max(mtime_ns, tail.mtime_ns)
        for step in tail.steps:
            head = head if step.head is None else step.head
    try:
        found = codec.decode_card(head)
        _require_id(found.session_id, session_id)
    except (_Damage, SessionCorruptError) as error:
        raise _unsettled(error, session_id, file) from error
    return card(found, revision, Timestamp.from_nanoseconds(mtime_ns), size)


def _unsettled(
    error: Exception, session_id: str, file: _File, path: str | None = None
) -> Unsettled:
    """Return an error that names the file and what is wrong with it."""
    path = path or file.path
    reason = error.reason if isinstance(error, SessionCorruptError) else str(error)
    corrupt = SessionCorruptError(
        f"{path} is damaged: {reason}", session_id=session_id, path=path, reason=reason
    )
    corrupt.__cause__ = error
    return Unsettled(corrupt, file.stamp)
