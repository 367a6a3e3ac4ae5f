"""Which sessions there are, the most recently saved first.

The server lists objects by key and tells when each was put, in whole seconds if it is S3.
Sessions that were put in one second are put in order by what their manifests say, which costs a
short read for each of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Collection
from typing import Final

from .bucket import Bucket
from .crowd import for_each
from .layout import SESSIONS, agent_folder, marker_of, session_of
from .manifest import TOMBSTONE_SIZE
from .reading import Card, Reader

__all__ = ["cards", "cards_of_agent", "ids", "ids_of_agent"]

_BATCH: Final = 64


async def ids(bucket: Bucket, reader: Reader) -> list[str]:
    """Return the ids of all sessions."""
    seconds = await _by_second(bucket)
    ties = [session_id for tied in seconds.values() if len(tied) > 1 for session_id in tied]
    order = {card.session_id: card.order for card in await _read(ties, reader)}
    found: list[str] = []
    for second in sorted(seconds, reverse=True):
        of_second = seconds[second]
        found += sorted(order.keys() & of_second, key=order.__getitem__) or of_second
    return found


async def cards(bucket: Bucket, reader: Reader, limit: int | None = None) -> AsyncGenerator[Card]:
    """Yield the cards of all sessions, damaged ones among them; read no more than about `limit`."""
    seconds = await _by_second(bucket)
    least = _BATCH if limit is None else min(max(limit, 1), _BATCH)
    batch: list[str] = []
    for second in sorted(seconds, reverse=True):
        batch += seconds.pop(second)
        if len(batch) >= least or not seconds:
            for card in await _read(batch, reader):
                yield card
            batch = []


async def cards_of_agent(bucket: Bucket, reader: Reader, agent_id: str) -> AsyncGenerator[Card]:
    """Yield the cards of all sessions that may be an agent's; that they are is for them to say."""
    for card in await _read(await ids_of_agent(bucket, agent_id), reader):
        yield card


async def ids_of_agent(bucket: Bucket, agent_id: str) -> set[str]:
    """Return the ids of all sessions that may be an agent's."""
    markers = (marker_of(each.key) for each in await bucket.list_all(agent_folder(agent_id)))
    return {marker.session_id for marker in markers if marker is not None}


async def _by_second(bucket: Bucket) -> dict[int, list[str]]:
    """Return the ids of all sessions by the second in which they were put."""
    seconds: dict[int, list[str]] = defaultdict(list)
    for each in await bucket.list_all(SESSIONS):
        session_id = session_of(each.key)
        if session_id is not None and each.size != TOMBSTONE_SIZE:
            seconds[each.modified].append(session_id)
    return seconds


async def _read(session_ids: Collection[str], reader: Reader) -> list[Card]:
    """Return the cards of those that are there, in order."""
    read = await for_each(session_ids, reader.card)
    return sorted((card for card in read if card is not None), key=lambda card: card.order)
