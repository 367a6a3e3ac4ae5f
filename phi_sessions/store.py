"""The contract: what every session store promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from datetime import datetime
from enum import Enum
from types import TracebackType
from typing import Literal, Self

import msgspec

from .errors import SessionCorruptError, SessionNotFoundError
from .model import Revision, Session
from .record import JSONObject
from .timestamp import Timestamp

__all__ = ["Expect", "Expectation", "OnError", "SessionInfo", "SessionStore"]

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


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A session's card: what a listing tells without reading the session.

    Attributes:
        session_id: The session.
        agent_id: Its agent.
        created_at: When the session began.
        last_active_at: When its last loop began.
        saved_at: When it was last stored, by the store's clock; None where that is not kept.
        metadata: The application's own JSON.
        revision: The stored state that the card describes.
        size: Bytes stored, or None where that is not known.
    """

    session_id: str
    agent_id: str
    created_at: Timestamp
    last_active_at: Timestamp
    saved_at: Timestamp | None = None
    metadata: JSONObject = {}
    revision: Revision
    size: int | None = None


class SessionStore(ABC):
    """A place that keeps sessions.

    A backend writes `save`, `load`, `list_ids` and `delete`; the rest works through them.

    Every method may be called from many tasks at once. Cancelling a call is safe: when the
    `await` ends nothing of it still runs, and the session is the old one or the new one. After
    `aclose`, calls raise `SessionTaskError`.
    """

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
            if session is not None and wanted.takes(info := _info(session)):
                yield info

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
            if on_error == "raise":
                raise
            return None


class Selection:
    """Which cards `infos` yields, and how many more."""

    def __init__(
        self,
        agent_id: str | None = None,
        active_after: datetime | None = None,
        limit: int | None = None,
    ) -> None:
        if active_after is not None and active_after.tzinfo is None:
            raise ValueError("active_after needs a time zone: use datetime.now(timezone.utc)")
        if limit is not None and limit < 0:
            raise ValueError(f"limit cannot be negative: {limit}")
        self.agent_id = agent_id
        self._active_after = active_after
        self._left = limit

    @property
    def is_complete(self) -> bool:
        """Whether `limit` cards were taken."""
        return self._left == 0

    def takes(self, info: SessionInfo) -> bool:
        """Return whether `info` is asked for, and count it."""
        if self.is_complete or (self.agent_id is not None and info.agent_id != self.agent_id):
            return False
        if self._active_after is not None and not info.last_active_at > self._active_after:
            return False
        if self._left is not None:
            self._left -= 1
        return True


def _info(session: Session) -> SessionInfo:
    assert session.revision is not None
    return SessionInfo(
        session_id=session.session_id,
        agent_id=session.agent_id,
        created_at=session.created_at,
        last_active_at=session.last_active_at,
        metadata=session.metadata,
        revision=session.revision,
    )
