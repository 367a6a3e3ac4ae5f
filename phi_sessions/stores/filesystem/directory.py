"""A directory of session files: what happens in one hop, from the lock to the unlock.

Everything here blocks and runs in one thread from start to end. A change is a writer, see `flush`;
it waits for the disk and for nothing else. What may succeed a little later raises `Contended` or
`Unsettled`, and `retry` says when to try again.
"""

from __future__ import annotations

import logging
import os
import stat
from typing import Final

from ...codec import Parcel, StoredRecord, changes, put_records
from ...errors import SessionEncodeError, SessionError
from ...model import Revision
from ...store import Expect, Expectation
from ..base import Outcome, Stored, new_revision, not_found, require
from ..flock import acquire, held, release
from ..grip import Grip
from . import disk, document, tailfile
from .failures import translating
from .flush import Writing
from .known import Known, KnownStates
from .layout import Paths
from .publish import NotDurable, publish, withdraw
from .reader import SessionReader
from .state import Bond, Stamp, State, Unsettled
from .tail import step_line
from .tailfile import Ending

__all__ = ["SessionDirectory"]

_SMALL: Final = 65536
"""Bytes below which a session file is rewritten rather than extended by a save."""

_PART: Final = 8
"""A save goes to the tail if it changes less than this part of the session file."""

_UNSAFE: Final = "u"
"""Revisions of a store without fsync begin so: a power cut may undo what they stand for."""

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
        self._known = KnownStates()
        self._tails = indent is None and tails

    def load_alone(self, session_id: str, grip: Grip) -> Stored | None:
        """Return what is stored, which nobody else can change while `grip` has the lock.

        Raises:
            Contended, Unsettled: Try again.
            SessionError: As `SessionStore.load`.
        """
        paths = Paths(self.path, session_id)
        with translating(session_id):
            fd = self._acquire(paths)
            try:
                stored = self.read(paths, session_id)
            except BaseException:
                release(fd)
                raise
        grip.keep(fd)
        return stored

    def save(
        self, parcel: Parcel, expect: Expectation, outcome: Outcome, grip: Grip | None = None
    ) -> Writing[None]:
        """Store `parcel` whole, or leave what was there untouched.

        The lock is that of `grip`, if it has it, and is given back in any case.

        Raises:
            Contended, Unsettled: Try again.
            SessionError: As `SessionStore.save`.
        """
        session_id = parcel.session_id
        paths = Paths(self.path, session_id)
        revision = self._new_revision()
        with translating(session_id):
            fd = grip.hand_over() if grip else None
            with held(self._acquire(paths) if fd is None else fd):
                state = self._state(paths, session_id, expect)
                require(expect, state and state.revision, session_id)
                line = self._line(parcel, state, revision)
                if line is not None and state is not None:
                    yield from self._extend(paths, session_id, state, line, revision, outcome)
                else:
                    head, texts = parcel.head, [record.text for record in parcel.records]
                    yield from self._rewrite(
                        paths, session_id, head, texts, state, revision, outcome
                    )

    def append(
        self, session_id: str, records: list[StoredRecord], expect: Expectation, outcome: Outcome
    ) -> Writing[None]:
        """Add `records`, or put them in the place of those with their `loop_id`.

        Raises:
            Contended, Unsettled: Try again.
            SessionError: As `SessionStore.append`.
        """
        paths = Paths(self.path, session_id)
        revision = self._new_revision()
        with translating(session_id):
            if not disk.exists(paths.session):  # and no lock file is made for it
                require(expect, None, session_id)
                raise not_found(session_id)
            with held(self._acquire(paths)):
                state = self._state(paths, session_id, expect, at_its_ends=True)
                require(expect, state and state.revision, session_id)
                if state is None:
                    raise not_found(session_id)
                line = step_line(revision, None, [record.text for record in records])
                if self._may_extend(state) and self._fits(state, line):
                    yield from self._extend(paths, session_id, state, line, revision, outcome)
                else:
                    yield from self._rewrite_with(
                        paths, session_id, records, state, revision, outcome
                    )

    def compact(self, session_id: str) -> Writing[None]:
        """Take the tail into the session file; the state and its revision stay.

        Raises:
            Contended, Unsettled: Try again.
            SessionError: As `FileSystemSessionStore.compact`.
        """
        paths = Paths(self.path, session_id)
        with translating(session_id):
            if not disk.exists(paths.session):  # and no lock file is made for it
                raise not_found(session_id)
            with held(acquire(paths.lock)):
                yield from self._fold(paths, session_id)

    def delete(self, session_id: str, expect: Expectation) -> Writing[bool]:
        """Remove the session; False when there was none.

        Raises:
            Contended, Unsettled: Try again.
            SessionError: As `SessionStore.delete`.
        """
        paths = Paths(self.path, session_id)
        with translating(session_id):
            if not disk.exists(paths.session):  # and no lock file is made for it
                return False
            with held(acquire(paths.lock)):
                # Who deletes may know no more than a card: what is damaged is not for it to remove.
                state = self._state(paths, session_id, expect, thorough=True)
                if state is not None:
                    require(expect, state.revision, session_id)
                    self._set_aside(paths, state)
                    yield from withdraw(paths.session, durable=self._fsync)
                    if state.ending is not None and state.bond is not Bond.ORPHAN:
                        tailfile.remove(paths)
                return state is not None

    def _state(
        self,
        paths: Paths,
        session_id: str,
        expect: Expectation,
        *,
        at_its_ends: bool = False,
        thorough: bool = False,
    ) -> State | None:
        """Return what `state` returns, without reading what was written here and is there still.

        It is forgotten then: whatever comes of the change says what is known next.
        """
        known = self._known.take(session_id)
        if (
            known is not None
            and (at_its_ends or known.state.revision == expect)
            and known.is_current(paths)
        ):
            return known.state
        if thorough:
            expect = Expect.UNCHANGED
        return self.state(paths, session_id, expect, at_its_ends=at_its_ends)

    def _line(self, parcel: Parcel, state: State | None, revision: Revision) -> bytes | None:
        """Return a tail's line that says what a save changes, if that is a small part of it."""
        if state is None or not self._may_extend(state) or parcel.origin is None:
            return None
        if parcel.origin.revision != state.revision or state.stamp.size < _SMALL:
            return None
        changed = changes(parcel)
        if changed is None:
            return None
        head, records = changed
        if head is not None and not document.name_one_agent(head, parcel.origin.head):
            return None  # whoever looks for an agent's sessions reads the session files' heads
        if sum(len(record.text) for record in records) * _PART > state.stamp.size:
            return None
        line = step_line(revision, head, [record.text for record in records])
        return line if self._fits(state, line) else None

    def _may_extend(self, state: State) -> bool:
        # What is to survive a power cut has nothing before it that may not: all is written anew.
        return self._tails and state.is_own and (_is_safe(state.revision) or not self._fsync)

    def _fits(self, state: State, line: bytes) -> bool:
        """Whether files with `line` are not too large, even if it replaces nothing."""
        tail = state.ending.size if state.ending else 0
        return state.stamp.size + tail + len(line) <= self.max_bytes

    def _extend(
        self,
        paths: Paths,
        session_id: str,
        state: State,
        line: bytes,
        revision: Revision,
        outcome: Outcome,
    ) -> Writing[None]:
        ending = state.ending if state.bond is Bond.LIVE else None

        def visible() -> None:
            outcome.revision = revision

        try:
            if ending is not None:
                status = yield from tailfile.add_line(
                    paths, ending, line, durable=self._fsync, on_visible=visible
                )
            else:
                yield from self._clear(paths, state)
                status = yield from tailfile.start(
                    paths,
                    state.snapshot,
                    line,
                    mode=self._mode | stat.S_IRUSR | stat.S_IWUSR,  # it is opened again
                    durable=self._fsync,
                    on_visible=visible,
                )
        except NotDurable:
            # Never again through this file: the kernel takes what failed for written. A new one
            # is written from what is seen, and if that reaches the disk all is well.
            if not (yield from self._try_to_fold(paths, session_id)):
                raise
            return
        if status is not None:
            size = status.st_size
            ending = Ending(state.snapshot, revision, size, has_steps=True, is_torn=False)
            now = state._replace(revision=revision, ending=ending, bond=Bond.LIVE)
            self._known.keep(session_id, Known(now, Stamp.of(status)))
            if size > max(state.stamp.size, _SMALL):
                yield from self._try_to_fold(paths, session_id)

    def _rewrite(
        self,
        paths: Paths,
        session_id: str,
        head: bytes,
        texts: list[bytes],
        state: State | None,
        revision: Revision,
        outcome: Outcome,
        saved: int | None = None,
    ) -> Writing[None]:
        self._set_aside(paths, state)
        durable = self._fsync or _is_safe(revision)  # a state that another store promised to keep
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

        status = yield from publish(
            paths.session,
            paths.temporary(),
            chunks,
            mode=self._mode,
            durable=durable,
            saved=saved,
            on_visible=visible,
        )
        if ending is not None:
            if ending.is_torn:
                tailfile.set_aside(paths)
            else:
                tailfile.remove(paths)
        if self._indent is None:
            stored = State(revision, revision, None, Bond.NONE, is_own=True, stamp=Stamp.of(status))
            self._known.keep(session_id, Known(stored, None))

    def _rewrite_with(
        self,
        paths: Paths,
        session_id: str,
        records: list[StoredRecord],
        state: State,
        revision: Revision,
        outcome: Outcome,
        saved: int | None = None,
    ) -> Writing[None]:
        stored = self.read(paths, session_id)
        assert stored is not None, "it was there, and the lock is held"
        merged = put_records(stored.origin.records, records)
        texts = [record.text for record in merged]
        yield from self._rewrite(
            paths, session_id, stored.origin.head, texts, state, revision, outcome, saved
        )

    def _fold(self, paths: Paths, session_id: str) -> Writing[None]:
        state = self._state(paths, session_id, Expect.UNCHANGED)
        if state is None:
            raise not_found(session_id)
        if state.bond is Bond.LIVE:
            # It was saved when it was saved last; a file is told by its time, so it is a new one.
            saved = max(state.stamp.mtime_ns + 1, os.lstat(paths.tail).st_mtime_ns)
            yield from self._rewrite_with(
                paths, session_id, [], state, state.revision, Outcome(), saved
            )

    def _try_to_fold(self, paths: Paths, session_id: str) -> Writing[bool]:
        try:
            yield from self._fold(paths, session_id)
        except (OSError, SessionError, Unsettled) as error:
            _log.warning("could not take in %s: %s", paths.tail, error)
            return False  # the next append tries again
        return True

    def _clear(self, paths: Paths, state: State) -> Writing[None]:
        self._set_aside(paths, state)
        if state.bond is Bond.TAKEN_IN and state.ending is not None:
            yield from tailfile.clear(paths, state.ending, durable=self._fsync)

    def _set_aside(self, paths: Paths, state: State | None) -> None:
        if state is None:
            if disk.exists(paths.tail):
                tailfile.set_aside(paths)
        elif state.bond is Bond.ORPHAN:
            tailfile.set_aside(paths)

    def _new_revision(self) -> Revision:
        revision = new_revision()
        return revision if self._fsync else Revision(_UNSAFE + revision[1:])

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


def _is_safe(revision: Revision) -> bool:
    return not revision.startswith(_UNSAFE)
