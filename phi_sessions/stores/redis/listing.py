"""Listings: what the indexes name, merged, and read in pages."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from ...ids import id_from_name
from ..pace import pace
from .layout import Layout, Place, digest_of
from .scripts import LIST, READ
from .server import Server

__all__ = ["Found", "Listed", "Listing"]

_AT_ONCE: Final = 64
"""Names that are merged before the loop may go round."""

_MOST: Final = 1 << 50
"""Names that are asked for: the scripts count exactly as far as this, and more are not there."""


class Listed(NamedTuple):
    """A session as an index names it; they sort the most recently saved first, then by id."""

    age: int
    session_id: str
    name: bytes


class Found(NamedTuple):
    """A session as it was read for a listing."""

    listed: Listed
    place: Place
    answer: list[Any]


class Listing:
    """The sessions of one layout on one server."""

    def __init__(self, server: Server, layout: Layout) -> None:
        self._server = server
        self._layout = layout

    async def names(self, agent_id: str | None = None, most: int | None = None) -> list[Listed]:
        """Return the sessions, or an agent's, the most recently saved first.

        Each bucket is read as of one moment, so that no session moves past the listing.

        Raises:
            SessionIOError: The server could not be asked.
            SessionTaskError: The store is closed.
        """
        digest = b"" if agent_id is None else digest_of(agent_id)
        keys = [
            (bucket.times if agent_id is None else bucket.agents, bucket.expiry)
            for bucket in self._layout.buckets
        ]
        limit = -1 if most is None else min(most, _MOST)
        listed = await _merge(await self._server.read(LIST, keys, digest, limit))
        return listed if most is None else sorted(listed)[:most]

    async def read(self, listed: Iterable[Listed], *, records: bool) -> list[Found]:
        """Return what is stored of the sessions, in their order; those that are gone are left out.

        Raises:
            SessionIOError: The server could not be asked.
            SessionTaskError: The store is closed.
        """
        buckets: dict[bytes, list[tuple[Listed, Place]]] = {}
        for one in listed:
            place = self._layout.place_of_name(one.name)
            buckets.setdefault(place.bucket.tag, []).append((one, place))
        if not buckets:
            return []
        keys = [
            [key for _, place in pairs for key in (place.session, place.records)]
            for pairs in buckets.values()
        ]
        answers = await self._server.read(READ, keys, int(records))
        pairs = (pair for pairs in buckets.values() for pair in pairs)
        return sorted(
            Found(*pair, answer)
            for pair, answer in zip(pairs, answers, strict=True)
            if answer is not None
        )


async def _merge(buckets: Sequence[Sequence[bytes]]) -> list[Listed]:
    result: list[Listed] = []
    await pace.begin()
    try:
        for listed in heapq.merge(*map(_listed, buckets)):
            result.append(listed)
            if not len(result) % _AT_ONCE:
                await pace.step()
    finally:
        pace.end()
    return result


def _listed(bucket: Sequence[bytes]) -> Iterator[Listed]:
    for name, saved in zip(bucket[::2], bucket[1::2], strict=True):
        session_id = id_from_name(name.decode(errors="replace"))
        if session_id is not None:  # else it is not ours
            yield Listed(-int(saved), session_id, name)
