"""Listings of a directory: many hops to the store's threads, so that they can be cancelled soon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Final

from ...errors import SessionCorruptError, SessionIOError
from ...info import Selection, SessionInfo
from ...store import OnError
from ..workers import Workers
from . import scan
from .agents import AgentIndex
from .reader import SessionReader
from .retry import Retry, insist

__all__ = ["Listing"]

_BATCH: Final = 1024
"""Files that are looked at in one hop."""

_CARDS: Final = 64
"""Cards that are made in one hop: so few that those of the last are gone before the garbage
collector, which counts what is made and not yet gone, thinks of looking through all there is."""

_Card = tuple[str, SessionInfo | Exception | None]


class Listing:
    """The listings of one store.

    Args:
        reader: Of the directory.
        workers: The store's threads.
        retry: Says how long to look at a session whose files are in motion.
    """

    def __init__(
        self,
        reader: SessionReader,
        workers: Workers,
        retry: Callable[[str], Retry],
    ) -> None:
        self._reader = reader
        self._workers = workers
        self._retry = retry
        self._index = AgentIndex(reader.path)

    async def ids(self) -> list[str]:
        """Return the ids of all sessions, newest first."""
        return await self._workers.run(scan.ids_newest_first, self._reader)

    async def ids_of_agent(self, agent_id: str) -> list[str]:
        """Return the ids of those that may be the agent's, newest first."""
        names, moment = await self._workers.run(
            scan.names_for_agent, self._reader, self._index, agent_id
        )
        found: list[str] = []
        for start in range(0, len(names), _BATCH):
            batch = names[start : start + _BATCH]
            found += await self._workers.run(scan.placed_of_agent, self._reader, batch, agent_id)
        if len(found) > _BATCH:  # too many to be put in order on the event loop
            ids = await self._workers.run(scan.ids_in_order, found)
        else:
            ids = scan.ids_in_order(found)
        if moment is not None:
            self._index.keep(moment, agent_id, tuple(ids))
        return ids

    async def infos(self, selection: Selection, on_error: OnError) -> AsyncGenerator[SessionInfo]:
        """Yield what `selection` takes, newest first."""
        agent_id, limit = selection.agent_id, selection.limit
        ids = await (self.ids() if agent_id is None else self.ids_of_agent(agent_id))
        size = _CARDS if limit is None else min(max(limit, 16), _CARDS)
        for start in range(0, len(ids), size):
            if selection.is_complete:
                return
            batch = ids[start : start + size]
            cards = await self._workers.run(scan.read_cards, self._reader, batch)
            async for info in self._settled(cards, on_error):
                if selection.takes(info):
                    yield info
                    if selection.is_complete:
                        return

    async def _settled(self, cards: list[_Card], on_error: OnError) -> AsyncIterator[SessionInfo]:
        if on_error == "skip":  # all at once: a damaged file takes a moment to be known for one
            settling = (self._settle(*card, on_error) for card in cards)
            cards = [("", info) for info in await asyncio.gather(*settling)]
        for session_id, found in cards:
            info = await self._settle(session_id, found, on_error)
            if info is not None:
                yield info

    async def _settle(
        self, session_id: str, found: SessionInfo | Exception | None, on_error: OnError
    ) -> SessionInfo | None:
        """Return `found` unless it is an error: then look again, as the file may be in motion."""
        if not isinstance(found, Exception):
            return found
        try:
            return await insist(
                self._retry(session_id),
                lambda: self._workers.run(self._reader.card, session_id),
            )
        except (SessionCorruptError, SessionIOError):
            if on_error != "skip":
                raise
            return None
