"""Which sessions are to be copied, and in which order."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime
from inspect import isawaitable

from ..errors import SessionError
from ..info import Selection, SessionInfo, card
from ..model import Revision, Session
from ..store import OnError, SessionStore

__all__ = ["Wanted", "Where"]

Where = Callable[[SessionInfo], bool | Awaitable[bool]]
"""Says of a card whether its session is wanted; plain or async."""


class Wanted:
    """Which sessions were asked for."""

    def __init__(
        self,
        source: SessionStore,
        agent_id: str | None,
        active_after: datetime | None,
        where: Where | None,
        on_error: OnError,
    ) -> None:
        self._source = source
        self._agent_id = agent_id
        self._active_after = active_after
        self._selection = Selection(agent_id, active_after)
        self._where = where
        self._on_error: OnError = on_error

    async def ids(self, only: set[str] | None) -> tuple[list[str], list[str]]:
        """Return the ids to copy, the oldest first, and those of `only` that there are not."""
        found = (await self._source.list_ids())[::-1]
        missing: list[str] = []
        if only is not None:
            missing = sorted(only.difference(found))
            found = [session_id for session_id in found if session_id in only]
        if self._agent_id is None and self._active_after is None and self._where is None:
            return found, missing
        # With ids, a damaged session that nobody asked for is no hindrance.
        skip = self._on_error == "skip" or only is not None
        return await self._taken(found, skip=skip), missing

    def has_still(self, session: Session) -> bool:
        """Return whether a session, which may have changed since it was listed, is asked for.

        `where` is not asked again: it was shown the card that the session had then.
        """
        return self._selection.takes(_card_of(session))

    async def _taken(self, found: list[str], *, skip: bool) -> list[str]:
        # Among the cards of all sessions, the damaged ones are those that are missing.
        cards = self._source.infos(
            agent_id=None if skip else self._agent_id,
            active_after=None if skip else self._active_after,
            on_error="skip" if skip else "raise",
        )
        asked = set(found)
        takes: dict[str, bool] = {}
        try:
            async for info in cards:
                if info.session_id in asked:
                    takes[info.session_id] = await self._takes(info)
        finally:
            if isinstance(cards, AsyncGenerator):  # `where` may have raised
                await cards.aclose()
        if skip:
            for session_id in found:
                if session_id not in takes:
                    takes[session_id] = await self._may_take(session_id)
        return [session_id for session_id in found if takes.get(session_id)]

    async def _takes(self, info: SessionInfo) -> bool:
        if not self._selection.takes(info):
            return False
        if self._where is None:
            return True
        verdict = self._where(info)
        return await verdict if isawaitable(verdict) else verdict

    async def _may_take(self, session_id: str) -> bool:
        try:
            session = await self._source.find(session_id)
        except SessionError:
            return True  # to be met again, and reported, when it is copied
        return session is not None and await self._takes(_card_of(session))


def _card_of(session: Session) -> SessionInfo:
    return card(session, session.revision or Revision(""))
