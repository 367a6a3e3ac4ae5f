"""The contract: what every session store promises."""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import datetime, timedelta
from enum import Enum
from types import TracebackType
from typing import ClassVar, Literal, Self

from .change import Change, changed, put_loops, with_own_list
from .errors import (
    SessionConflictError,
    SessionCorruptError,
    SessionExistsError,
    SessionNotFoundError,
)
from .info import Selection, SessionInfo, card
from .model import LoopRecord, Revision, Session
from .promise import Promise
from .timestamp import Timestamp

__all__ = [
    "Expect",
    "Expectation",
    "OnError",
    "SessionStore",
]

_PAUSE = 0.001

OnError = Literal["raise", "skip"]
"""What a listing does with a damaged session: raise `SessionCorruptError`, or leave it out."""


class Expect(Enum):
    """What must be stored for a change to be made; a `Revision` asks for that very state."""

    UNCHANGED = "unchanged"
    """The state that the session object came from; anything, if it was built by hand."""

    ANYTHING = "anything"
    """Whatever is there, or nothing."""

    ABSENT = "absent"
    """Nothing: the session is new."""


Expectation = Expect | Revision
"""What a change asks of the stored state: a rule, or one revision."""


class SessionStore(ABC):
    """A place that keeps sessions.

    A backend writes `save`, `load`, `list_ids` and `delete`; the rest works through them.

    Every method may be called from many tasks at once. Cancelling a call is safe: when the
    `await` ends nothing of it still runs, and the session is the old one or the new one. After
    `aclose`, calls raise `SessionTaskError`.

    Attributes:
        lacks: What the store cannot promise, see `Promise`.
    """

    lacks: ClassVar[frozenset[Promise]] = frozenset()

    @abstractmethod
    async def save(self, session: Session, *, expect: Expectation = Expect.UNCHANGED) -> Revision:
        """Store `session` whole, or leave what was there untouched.

        Do not change the session until the call ends: it is encoded at once if the event loop has
        time for it, and otherwise loop record by loop record as it has. Afterwards
        `session.revision` is the new revision, and the same object can be saved again.

        Args:
            session: What to store.
            expect: What must be stored now, see `Expect`.

        Returns:
            The revision of the stored state.

        Raises:
            SessionConflictError: What is stored is not what was expected.
            SessionExistsError: `Expect.ABSENT`, and the session is there.
            SessionLockedError: Somebody else held the session for too long.
            SessionEncodeError: The session could not be read again; nothing was written.
            SessionCorruptError: What is stored is damaged; it was left as it is.
            SaveOutcomeUnknownError: The session can be seen, but may not survive a power cut.
            InvalidSessionIdError: The id can never name a session.
            SessionIOError: The storage failed; what was there is untouched.
            SessionTaskError: The store is closed.
        """

    @abstractmethod
    async def load(self, session_id: str) -> Session:
        """Return a fresh object of the stored session, its `revision` set.

        Raises:
            SessionNotFoundError: Nothing is stored under the id.
            SessionCorruptError: What is stored is damaged; it was left as it is.
            InvalidSessionIdError: The id can never name a session.
            SessionIOError: The storage failed.
            SessionTaskError: The store is closed.
        """

    @abstractmethod
    async def list_ids(self) -> list[str]:
        """Return the ids of all sessions, the most recently saved first, ties by id.

        Raises:
            SessionIOError: The storage failed.
            SessionTaskError: The store is closed.
        """

    @abstractmethod
    async def delete(self, session_id: str, *, expect: Expectation = Expect.ANYTHING) -> None:
        """Remove the session; a stale holder's next save does not bring it back.

        Raises:
            SessionNotFoundError: There was nothing to delete.
            SessionConflictError: What is stored is not what was expected.
            SessionLockedError: Somebody else held the session for too long.
            SessionCorruptError: What is stored is damaged; it was left as it is.
            SaveOutcomeUnknownError: The session is gone, but a power cut may bring it back.
            InvalidSessionIdError: The id can never name a session.
            SessionIOError: The storage failed; what was there is untouched.
            SessionTaskError: The store is closed.
        """

    async def list_for_agent(self, agent_id: str, *, on_error: OnError = "raise") -> list[Session]:
        """Return the sessions of one agent, the most recently saved first.

        Sessions that vanish meanwhile are left out. A damaged session that is known to be
        another agent's is no hindrance.

        Args:
            agent_id: Whose sessions.
            on_error: What to do with a damaged session that may be this agent's.

        Raises:
            SessionCorruptError: A session that may be this agent's is damaged.
            SessionIOError: The storage failed.
            SessionTaskError: The store is closed.
        """
        found: list[Session] = []
        for session_id in await self.list_ids():
            session = await self._find(session_id, on_error)
            if session is not None and session.agent_id == agent_id:
                found.append(session)
        return found

    async def exists(self, session_id: str) -> bool:
        """Return whether something is stored under the id, sound or damaged.

        Raises:
            InvalidSessionIdError: The id can never name a session.
            SessionIOError: The storage failed.
            SessionTaskError: The store is closed.
        """
        try:
            return await self.find(session_id) is not None
        except SessionCorruptError:
            return True

    async def find(self, session_id: str) -> Session | None:
        """Return what `load` returns, or None when nothing is stored under the id.

        Raises:
            As `load`, save for `SessionNotFoundError`.
        """
        try:
            return await self.load(session_id)
        except SessionNotFoundError:
            return None

    async def infos(
        self,
        *,
        agent_id: str | None = None,
        active_after: datetime | None = None,
        limit: int | None = None,
        on_error: OnError = "raise",
    ) -> AsyncIterator[SessionInfo]:
        """Yield the cards of the sessions, the most recently saved first.

        Args:
            agent_id: Only this agent's.
            active_after: Only those whose `last_active_at` is later; an aware time.
            limit: At most so many.
            on_error: What to do with a damaged session.

        Raises:
            As `list_for_agent`.
        """
        wanted = Selection(agent_id, active_after, limit)
        for session_id in await self.list_ids():
            if wanted.is_complete:
                return
            session = await self._find(session_id, on_error)
            if session is not None and wanted.takes(info := card(session, _revision(session))):
                yield info

    async def update(
        self,
        session_id: str,
        change: Change,
        *,
        create: Callable[[], Session] | None = None,
        attempts: int = 100,
    ) -> Session:
        """Change the stored session so that nobody's change is lost, and return it.

        Loads the session, calls `change`, and saves, expecting what was loaded. If somebody else
        was faster it starts again with what is stored then, after a short pause at random.

        Args:
            session_id: Which session.
            change: Edits the session in place and returns None, or returns the session to store;
                a plain or an async function. It may be called several times, each time with a
                fresh object. Whatever else it returns is refused with TypeError, and a session of
                another id with ValueError.
            create: Builds the session that `change` gets when nothing is stored.
            attempts: How often to try at the most.

        Raises:
            SessionConflictError: Somebody else was faster `attempts` times.
            SessionExistsError: The same, with the session made by somebody else each time.
            SessionNotFoundError: Nothing is stored, and there is no `create`.
            As `load` and `save` besides; what `change` and `create` raise is passed on.
        """
        for attempt in range(1, attempts + 1):
            made, expect = await self._changed(session_id, change, create)
            try:
                await self.save(made, expect=expect)
            except (SessionConflictError, SessionExistsError):
                if attempt == attempts:
                    raise
                await asyncio.sleep(random.uniform(0, _PAUSE * min(attempt, 16)))  # noqa: S311 - not a secret
            else:
                return made
        raise ValueError(f"attempts must be at least 1: {attempts}")

    async def _changed(
        self, session_id: str, change: Change, create: Callable[[], Session] | None
    ) -> tuple[Session, Expectation]:
        """Return what an update is to store, and in the place of what."""
        session = await (self.load(session_id) if create is None else self.find(session_id))
        expect: Expectation = Expect.ABSENT
        if session is None:
            assert create is not None
            session = create()
        elif session.revision is not None:
            expect = session.revision
        return await changed(change, session, session_id), expect

    async def append(self, session: str | Session, *loops: LoopRecord) -> Revision:
        """Add loop records at the end, or put them in the place of those with the same `loop_id`.

        The same call twice leaves the same session.

        Args:
            session: An id, to add to whatever is stored; or a session, whose stored state must be
                the one that the object came from. The object then has the new loops and the new
                revision; what else was changed in it waits for its next save. One that was never
                stored must not be stored yet, and is stored whole.
            loops: What to add; the last of several with one `loop_id` counts.

        Returns:
            The revision of the stored state.

        Raises:
            SessionNotFoundError: Given an id: nothing is stored under it.
            As `save` besides.
        """
        if isinstance(session, str):
            updated = await self.update(session, lambda stored: put_loops(stored, loops))
            assert updated.revision is not None
            return updated.revision
        if session.revision is None:
            return await self._store_first(session, loops)
        # Where nothing is stored, or another state, it is the save that says so.
        extended = await self.find(session.session_id) or with_own_list(session)
        put_loops(extended, loops)
        found = extended.revision
        try:
            return await self.save(extended, expect=session.revision)
        finally:
            if extended.revision != found:  # also when the caller is not told, as it was cancelled
                put_loops(session, loops)
                session.revision = extended.revision

    async def _store_first(self, session: Session, loops: Iterable[LoopRecord]) -> Revision:
        extended = with_own_list(session)
        put_loops(extended, loops)
        try:
            return await self.save(extended, expect=Expect.ABSENT)
        finally:
            if extended.revision is not None:  # also when the caller is not told
                put_loops(session, loops)
                session.loops.origin = extended.loops.origin
                session.revision = extended.revision

    async def prune(
        self,
        *,
        older_than: timedelta,
        keep_last: int = 0,
        agent_id: str | None = None,
        dry_run: bool = False,
        on_error: OnError = "raise",
    ) -> list[str]:
        """Delete sessions that were neither active nor saved for a while; return their ids.

        A session that is changed while this runs is left alone.

        Args:
            older_than: How long ago the last activity and the last save must be.
            keep_last: The most recently saved that are kept whatever their age.
            agent_id: Only this agent's.
            dry_run: Delete nothing, only tell what would be.
            on_error: What to do with a damaged session; it is never deleted.

        Raises:
            As `list_for_agent` and `delete`.
        """
        age = older_than // timedelta(microseconds=1) * 1000
        border = Timestamp.from_nanoseconds(time.time_ns() - age)  # or the nearest there is
        pruned: list[str] = []
        kept = 0
        async for info in self.infos(agent_id=agent_id, on_error=on_error):
            kept += 1
            latest = max(info.last_active_at, info.saved_at or info.last_active_at)
            if kept <= keep_last or latest >= border:
                continue
            if not dry_run:
                try:
                    await self.delete(info.session_id, expect=info.revision)
                except (SessionNotFoundError, SessionConflictError):
                    continue
                except SessionCorruptError:
                    if on_error != "skip":
                        raise
                    continue
            pruned.append(info.session_id)
        return pruned

    async def aclose(self) -> None:  # noqa: B027 - a store may have nothing to let go of
        """Let go of everything that the store opened. Closing twice is harmless."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _find(self, session_id: str, on_error: OnError) -> Session | None:
        try:
            return await self.find(session_id)
        except SessionCorruptError:
            if on_error != "skip":
                raise
            return None


def _revision(session: Session) -> Revision:
    assert session.revision is not None
    return session.revision
