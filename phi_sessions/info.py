"""What a listing tells of a session, and which sessions it tells of."""

from __future__ import annotations

from datetime import datetime

import msgspec

from .codec import Card, Header
from .model import Revision, Session
from .record import JSONObject
from .timestamp import Timestamp

__all__ = ["Selection", "SessionInfo", "card"]


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


def card(
    session: Session | Header | Card,
    revision: Revision,
    saved_at: Timestamp | None = None,
    size: int | None = None,
) -> SessionInfo:
    """Return the card of a session in the state `revision`, by what was read of it."""
    return SessionInfo(
        session_id=session.session_id,
        agent_id=session.agent_id,
        created_at=session.created_at,
        last_active_at=session.last_active_at,
        saved_at=saved_at,
        metadata=session.metadata or {},
        revision=revision,
        size=size,
    )


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
        self.limit = limit
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
