"""Listings: of cards, in pages; of one agent's sessions, with few statements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Final

from .driver import Row
from .rows import as_bytes, as_list
from .server import Server
from .statements import FIRST_BYTES, Statements

__all__ = ["Listing"]

_PAGE: Final = 500
"""Cards that one statement returns."""

# Columns of `Statements.of_agent`.
_NAME, _POSITION, _SIZE, _SAVED, _IS_FIRST = 0, 1, 5, 7, 8


class Listing:
    """Asks for many sessions at once."""

    def __init__(self, server: Server, statements: Statements) -> None:
        self._server = server
        self._statements = statements

    async def ids(self, agent_id: str | None = None) -> list[bytes]:
        """Return the ids of all sessions, or of an agent's, newest first."""
        if agent_id is None:
            rows = await self._server.fetch(self._statements.ids)
        else:
            rows = await self._server.fetch(self._statements.ids_of_agent, as_bytes(agent_id))
        return [name for [name] in rows]

    async def cards(self, agent_id: str | None, limit: int | None) -> AsyncGenerator[Row]:
        """Yield the rows of cards, newest first; the first `limit` cost no more than that."""
        size = _PAGE if limit is None else min(limit, _PAGE)
        if agent_id is None:
            page = await self._server.fetch(self._statements.cards, size)
        else:
            query = self._statements.cards_of_agent
            page = await self._server.fetch(query, size, as_bytes(agent_id))
        for row in page:
            yield row
        if len(page) < size:
            return
        # What is saved meanwhile moves to the front: pages go by the ids of one moment.
        seen = {row[_NAME] for row in page}
        ids = [name for name in await self.ids(agent_id) if name not in seen]
        for start in range(0, len(ids), _PAGE):
            wanted = ids[start : start + _PAGE]
            rows = await self._server.fetch(self._statements.cards_by_id, *as_list(wanted))
            found = {row[_NAME]: row for row in rows}
            for name in wanted:
                if name in found:
                    yield found[name]

    async def sessions(self, agent_id: str) -> AsyncGenerator[list[tuple[str, list[Row]]]]:
        """Yield the ids and rows of an agent's sessions, newest first, many at once."""
        rows = await self._server.fetch(self._statements.of_agent, as_bytes(agent_id))
        heads = [row for row in rows if row[_POSITION] is None]
        heads.sort(key=itemgetter(_SAVED), reverse=True)
        found = _by_session(rows)
        for batch in _batches(heads):
            names = [row[_NAME] for row in batch]
            if not batch[0][_IS_FIRST]:
                query = self._statements.read_many
                found = _by_session(await self._server.fetch(query, *as_list(names)))
            yield [(name.decode(), found[name]) for name in names if name in found]


def _by_session(rows: list[Row]) -> dict[bytes, list[Row]]:
    found: dict[bytes, list[Row]] = defaultdict(list)
    for row in rows:
        found[row[_NAME]].append(row)
    return found


def _batches(heads: list[Row]) -> Iterator[list[Row]]:
    """Part sessions by what one statement returns: those that are here, and the rest by size."""
    before = 0

    def batch(row: Row) -> tuple[bool, int]:
        nonlocal before
        before += row[_SIZE]
        return not row[_IS_FIRST], 0 if row[_IS_FIRST] else (before - row[_SIZE]) // FIRST_BYTES

    for _, group in groupby(heads, batch):
        yield list(group)
