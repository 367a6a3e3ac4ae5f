"""A directory of session files: what happens in one hop, from the lock to the unlock.

Everything here blocks and runs in one thread from start to end; nothing waits. What may succeed
a little later raises `Contended` or `Unsettled`, and `retry` says when to try again.
"""

from __future__ import annotations

import logging
from typing import Final

from ...codec import Parcel, StoredRecord, changes, put_records
from ...errors import SessionEncodeError, SessionError
from ...model import Revision
from ...store import Expect, Expectation
from ..base import Outcome, new_revision, not_found, require
from . import disk, document, tailfile
from .layout import Paths
from .lock import acquire, release
from .publish import NotDurable, publish, withdraw
from .reader import Bond, SessionReader, State, Unsettled, translate
from .tail import step_line

__all__ = ["SessionDirectory"]

_SMALL: Final = 65536
"""Bytes below which a session file is rewritten rather than extended by a save."""

_PART: Final = 8
"""A save goes to the tail if it changes less than this part of the session file."""

_log = logging.getLogger(__name__)


class SessionDirectory(SessionReader):
    """The sessions in one directory. Arguments are those of `FileSystemSessionStore`."""

    def __init__(
        self,
        path: str,
        *,
        fsync: bool,
        mode: int,
        indent: int | None,
        max_bytes: int,
        tails: bool = True,
    ) -> None:
        super().__init__(path, max_bytes)
        self._fsync = fsync
        self._mode = mode
        self._indent = indent
        self._is_rooted = False
        self._tails = indent is None and tails

    def save(self, parcel: Parcel, expect: Expectation, outcome: Outcome) -> None:
        """Store `parcel` whole, or leave what was there untouched.

        Raises:
            Contended, Unsettled: Try again.
            SessionError: As `SessionStore.save`.
        """
        session_id = parcel.session_id
        paths = Paths(self.path, session_id)
        revision = new_revision()
        try:
            lock = self._acquire(paths)
            try:
                state = self.state(paths, session_id, expect)
                require(expect, state and state.revision, session_id)
                line = self._line(parcel, state, revision)
                if line is not None and state is not None:
                    self._extend(paths, session_id, state, line, revision, outcome)
                else:
                    texts = [record.text for record in parcel.records]
                    self._rewrite(paths, session_id, parcel.head, texts, state, revision, outcome)
            finally:
                release(lock)
        except OSError as error:
            raise translate(error, session_id) from error

    def append(
        self, session_id: str, records: list[StoredRecord], expect: Expectation, outcome: Outcome
    ) -> None:
        """Add `records`, or put them in the place of those with their `loop_id`.

        Raises:
            Contended, Unsettled: Try again.
            SessionError: As `SessionStore.append`.
        """
        paths = Paths(self.path, session_id)
        revision = new_revision()
        try:
            if not disk.exists(paths.session):
                require(expect, None, session_id)
                raise not_found(session_id)
            lock = acquire(paths.lock)
            try:
                state = self.state(paths, session_id, expect, at_its_ends=True)
                require(expect, state and state.revision, session_id)
                if state is None:
                    raise not_found(session_id)
                line = step_line(revision, None, [record.text for record in records])
                if self._tails and state.is_own and self._fits(state, line):
                    self._extend(paths, session_id, state, line, revision, outcome)
                else:
                    self._rewrite_with(paths, session_id, records, state, revision, outcome)
            finally:
                release(lock)
        except OSError as error:
            raise translate(error, session_id) from error

    def compact(self, session_id: str) -> None:
        """Take the tail into the session file; the state and its revision stay.

        Raises:
            Contended, Unsettled: Try again.
            SessionError: As `FileSystemSessionStore.compact`.
        """
        paths = Paths(self.path, session_id)
        try:
            if not disk.exists(paths.session):
                raise not_found(session_id)
            lock = acquire(paths.lock)
            try:
                self._fold(paths, session_id)
            finally:
                release(lock)
        except OSError as error:
            raise translate(error, session_id) from error

    def delete(self, session_id: str, expect: Expectation) -> bool:
        """Remove the session; False when there was none.

        Raises:
            Contended, Unsettled: Try again.
            SessionError: As `SessionStore.delete`.
        """
        paths = Paths(self.path, session_id)
        try:
            if not disk.exists(paths.session):
                return False  # and no lock file is made for it
            lock = acquire(paths.lock)
            try:
                thorough = Expect.UNCHANGED if expect is Expect.ANYTHING else expect
                state = self.state(paths, session_id, thorough)
                if state is not None:
                    require(expect, state.revision, session_id)
                    self._set_aside(paths, state)
                    withdraw(paths.session, durable=self._fsync)
                    if state.ending is not None and state.bond is not Bond.ORPHAN:
                        tailfile.remove(paths)
                return state is not None
            finally:
                release(lock)
        except OSError as error:
            raise translate(error, session_id) from error

    def _line(self, parcel: Parcel, state: State | None, revision: Revision) -> bytes | None:
        """Return a tail's line that says what a save changes, if that is a small part of it."""
        if not self._tails or state is None or not state.is_own or parcel.origin is None:
            return None
        if parcel.origin.revision != state.revision or state.size < _SMALL:
            return None
        changed = changes(parcel)
        if changed is None:
            return None
        head, records = changed
        if sum(len(record.text) for record in records) * _PART > state.size:
            return None
        line = step_line(revision, head, [record.text for record in records])
        return line if self._fits(state, line) else None

    def _fits(self, state: State, line: bytes) -> bool:
        """Whether files with `line` are not too large, even if it replaces nothing."""
        return state.size + (state.ending.size if state.ending else 0) + len(line) <= self.max_bytes

    def _extend(
        self,
        paths: Paths,
        session_id: str,
        state: State,
        line: bytes,
        revision: Revision,
        outcome: Outcome,
    ) -> None:
        ending = state.ending if state.bond is Bond.LIVE else None

        def visible() -> None:
            outcome.revision = revision

        try:
            if ending is not None:
                tailfile.add_line(paths, ending, line, durable=self._fsync, on_visible=visible)
            else:
                self._clear(paths, state)
                tailfile.start(
                    paths,
                    state.snapshot,
                    line,
                    mode=self._mode,
                    durable=self._fsync,
                    on_visible=visible,
                )
        except NotDurable:
            # Never again through this file: the kernel takes what failed for written. A new one
            # is written from what is seen, and if that reaches the disk all is well.
            if not self._try_to_fold(paths, session_id):
                raise
            return
        if len(line) + (ending.size if ending else 0) > max(state.size, _SMALL):
            self._try_to_fold(paths, session_id)

    def _rewrite(
        self,
        paths: Paths,
        session_id: str,
        head: bytes,
        texts: list[bytes],
        state: State | None,
        revision: Revision,
        outcome: Outcome,
    ) -> None:
        self._set_aside(paths, state)
        # What the tail led to, so that it is known for taken in should it be left behind.
        ending = state.ending if state and state.bond in (Bond.LIVE, Bond.TAKEN_IN) else None
        supersedes = ending.revision if ending and ending.has_steps else None
        if self._indent is None:
            chunks = document.join(head, revision, supersedes, texts)
        else:
            data, revision = document.join_indented(head, supersedes, texts, self._indent)
            chunks = [data]
        self._require_size(session_id, sum(map(len, chunks)))

        def visible() -> None:
            outcome.revision = revision

        publish(
            paths.session,
            paths.temporary(),
            chunks,
            mode=self._mode,
            durable=self._fsync,
            on_visible=visible,
        )
        if ending is not None:
            tailfile.remove(paths)

    def _rewrite_with(
        self,
        paths: Paths,
        session_id: str,
        records: list[StoredRecord],
        state: State,
        revision: Revision,
        outcome: Outcome,
    ) -> None:
        stored = self.read(paths, session_id)
        assert stored is not None, "it was there, and the lock is held"
        merged = put_records(stored.origin.records, records)
        texts = [record.text for record in merged]
        self._rewrite(paths, session_id, stored.origin.head, texts, state, revision, outcome)

    def _fold(self, paths: Paths, session_id: str) -> None:
        state = self.state(paths, session_id, Expect.UNCHANGED)
        if state is None:
            raise not_found(session_id)
        if state.bond is Bond.LIVE:
            self._rewrite_with(paths, session_id, [], state, state.revision, Outcome())

    def _try_to_fold(self, paths: Paths, session_id: str) -> bool:
        try:
            self._fold(paths, session_id)
        except (OSError, SessionError, Unsettled) as error:
            _log.warning("could not take in %s: %s", paths.tail, error)
            return False  # the next append tries again
        return True

    def _clear(self, paths: Paths, state: State) -> None:
        self._set_aside(paths, state)
        if state.bond is Bond.TAKEN_IN and state.ending is not None:
            tailfile.clear(paths, state.ending, durable=self._fsync)

    def _set_aside(self, paths: Paths, state: State | None) -> None:
        if state is None:
            if disk.exists(paths.tail):
                tailfile.set_aside(paths)
        elif state.bond is Bond.ORPHAN:
            tailfile.set_aside(paths)

    def _require_size(self, session_id: str, size: int) -> None:
        if size > self.max_bytes:
            raise SessionEncodeError(
                f"session {session_id!r} takes {size:,} bytes, max_bytes is {self.max_bytes:,}",
                session_id=session_id,
            )

    def _acquire(self, paths: Paths) -> int:
        # Once, also when the directory is there: who made it may have died before its parent knew.
        if not self._is_rooted:
            disk.make_directories(self.path, durable=self._fsync)
            self._is_rooted = True
        try:
            return acquire(paths.lock)
        except FileNotFoundError:
            disk.make_directories(self.path, durable=self._fsync)
            return acquire(paths.lock)
