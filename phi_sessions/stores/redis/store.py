"""Sessions on a Redis or Valkey server or cluster."""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

from ...codec import Parcel, StoredRecord, changes
from ...dependency import requires
from ...errors import (
    SaveOutcomeUnknownError,
    SessionCorruptError,
    SessionExistsError,
)
from ...info import Selection, SessionInfo
from ...lease import Lease, SupportsLease
from ...model import Revision, Session
from ...promise import Promise
from ...store import Expect, Expectation, OnError
from ..base import BaseStore, Outcome, Stored, new_revision, not_found, pack, require, unpack
from ..finishing import to_its_end
from ..patience import Patience
from ..turnstile import Passage, Turnstile
from .channels import Client
from .layout import Layout, digest_of
from .leasing import Grip
from .links import Links
from .listing import Listed, Listing
from .reading import card_of, damaged, stored_of
from .scripts import DROP, PATCH, PUT, READ, TRAIL_IS_FULL, Script
from .server import Server

with requires("redis"):
    from redis.asyncio import RedisCluster

__all__ = ["RedisSessionStore", "open_url"]

_CARDS: Final = 500
_SESSIONS: Final = 100
"""Read in one request of a listing."""

_LONGEST: Final = 1e12
"""Seconds; the server counts milliseconds in 63 bits, and its scripts all of them in 53."""

_EXPECTED: Final[dict[Expectation, bytes]] = {
    Expect.ANYTHING: b"*",
    Expect.UNCHANGED: b"?",
    Expect.ABSENT: b"-",
}


class RedisSessionStore(BaseStore, SupportsLease):
    """Keeps sessions on a Redis (5 or later) or Valkey server, or on a cluster of them.

    Each save, append and delete is one script and one round trip: it happens whole or not at all,
    on a cluster, too. Loads ask the primary and see every acknowledged change. Sessions whose slot
    is on its way to another node of a cluster are waited for, for half of `timeout`.

    *What survives* is the server's matter, and set there. `appendonly yes` with
    `appendfsync always` keeps every acknowledged change in a power cut: the server answers when
    its disk has it. With `appendfsync everysec`, the default of `appendonly yes`, a power cut
    takes back the last second or two, but a crash of the server process nothing; with snapshots
    only (`appendonly no`, Redis's default), a crash takes back what came after the last one.
    `durable=True` makes each change wait for the disk whatever `appendfsync` says. Replication is
    asynchronous: a replica that is promoted may lack the last acknowledged changes
    (`min-replicas-to-write` narrows that), and a lease.

    The server must not evict keys: `maxmemory-policy noeviction`. An ACL user needs
    `~{PREFIX:* +@read +@write +@scripting +time`, besides `+waitaof` for `durable`. One save takes
    at most half a million loop records, each of at most 512 MB.

    When the answer to a change is lost, as when the server is restarted, the script is sent
    again for up to `timeout` seconds; it knows what it has done. A change of which nothing is
    known by then raises `SaveOutcomeUnknownError`.

    A lease is a key that expires. A background task of the holder's event loop renews it; when
    the holder dies, or its loop or the server stands still for `lease_expiry` seconds, it is free.
    A holder whose lease was lost is told by a warning in the log `phi_sessions` only, and its
    saves are still checked by revision.

    Args:
        server: `redis://`, `rediss://` or `unix://` URL as redis-py takes it. Or a client of
            redis-py's asyncio side, also of a cluster: it is never closed here, and serves the
            event loop and process in which it was first used. Or a function that makes a client
            for the running loop; these are closed with the store. A client that sends requests
            again by itself (redis-py's default) hides whether an unreachable server had been
            reached before: prefer `retry=Retry(NoBackoff(), 0)`.
        prefix: What all keys begin with, so that stores can share a server; no braces.
        ttl: Seconds after the last save or append when a session vanishes; None keeps sessions.
            A store that has none keeps those that it saves.
        timeout: Seconds that one request may take, waiting for a connection included. The call
            that makes a change may take twice as long.
        lock_timeout: Seconds to wait for earlier saves, appends and deletes of the same session
            through this store, which take effect in the order of the calls.
        lease_expiry: Seconds that a lease outlives its holder.
        max_connections: Requests under way at once in each event loop, where the URL does not
            say; others wait. A client of your own that is not a cluster's has its own limit.
        durable: Acknowledge a change when the disk of the server has it, which takes WAITAOF
            (Redis 7.2, Valkey) with `appendonly yes` and is not for clusters. A change that can
            be seen but was not written in time raises `SaveOutcomeUnknownError`.
    """

    lacks = frozenset({Promise.POWER_LOSS})

    def __init__(
        self,
        server: str | Client | Callable[[], Client],
        *,
        prefix: str = "phi",
        ttl: float | None = None,
        timeout: float = 10.0,
        lock_timeout: float = 5.0,
        lease_expiry: float = 30.0,
        max_connections: int = 16,
        durable: bool = False,
    ) -> None:
        super().__init__()
        if ttl is not None and not 0 < ttl <= _LONGEST:
            raise ValueError(f"ttl must be positive, and at most {_LONGEST:g}: {ttl}")
        if not 0 < lease_expiry <= _LONGEST:
            raise ValueError(
                f"lease_expiry must be positive, and at most {_LONGEST:g}: {lease_expiry}"
            )
        self._layout = Layout(prefix)
        self._ttl = b"" if ttl is None else b"%d" % max(1, round(ttl * 1000))
        self._lock_timeout = lock_timeout
        self._lease_expiry = lease_expiry
        self._turnstile = Turnstile()
        self._lease_line = Turnstile()
        if durable and isinstance(server, RedisCluster):
            raise ValueError("durable=True needs one server, not a cluster")
        self._links = Links(server, connections=max_connections)
        self._server = Server(self._links, timeout=timeout, durable=durable)
        self._listing = Listing(self._server, self._layout)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._links.address!r})"

    def __del__(self) -> None:
        links: Links | None = getattr(self, "_links", None)
        if links is not None and links.are_open:
            links.abandon()
            warnings.warn(f"unclosed {self!r}: use `async with`", ResourceWarning, 2, source=self)

    async def aclose(self) -> None:
        await super().aclose()
        await self._links.aclose()

    async def exists(self, session_id: str) -> bool:
        self._check(session_id)
        key = self._layout.place(session_id).session
        return bool(await self._server.ask("EXISTS", key, session_id=session_id))

    async def list_ids(self) -> list[str]:
        self._check_open()
        return [listed.session_id for listed in await self._listing.names()]

    async def list_for_agent(self, agent_id: str, *, on_error: OnError = "raise") -> list[Session]:
        self._check_open()
        sessions: list[Session] = []
        listed = await self._listing.names(agent_id)
        for page in _pages(listed, _SESSIONS):
            for found in await self._listing.read(page, records=True):
                try:
                    stored = await stored_of(found.listed.session_id, found.place, found.answer)
                except SessionCorruptError:
                    if on_error != "skip":
                        raise
                    continue
                if stored.header.agent_id == agent_id:  # else it was changed meanwhile
                    sessions.append(unpack(stored))
        return sessions

    async def infos(
        self,
        *,
        agent_id: str | None = None,
        active_after: datetime | None = None,
        limit: int | None = None,
        on_error: OnError = "raise",
    ) -> AsyncIterator[SessionInfo]:
        self._check_open()
        selection = Selection(agent_id, active_after, limit)
        most = limit if active_after is None else None
        seen: set[str] = set()
        while not selection.is_complete:
            listed = await self._listing.names(agent_id, most)
            news = [one for one in listed if one.session_id not in seen]
            seen.update(one.session_id for one in news)
            for page in _pages(news, _CARDS):
                for found in await self._listing.read(page, records=False):
                    try:
                        info = card_of(found.listed.session_id, found.place, found.answer)
                    except SessionCorruptError:
                        if on_error != "skip":
                            raise
                        continue
                    if selection.takes(info):
                        yield info
                if selection.is_complete:
                    return
            if most is None or len(listed) < most:
                return
            most = None  # some of the first are gone, or damaged: look at the others, too

    @asynccontextmanager
    async def lease(
        self,
        session_id: str,
        *,
        owner: str | None = None,
        timeout: float = 0.0,  # noqa: ASYNC109 - the contract's word
    ) -> AsyncGenerator[Lease]:
        self._check(session_id)
        grip = Grip(
            self._server,
            await self._links.get(),
            self._layout.place(session_id),
            Lease.of_this_process(session_id, owner),
            self._lease_expiry,
        )
        async with grip.held(self._lease_line, Patience.for_lease(timeout, session_id)):
            yield grip.lease

    async def _write(self, session: Session, expect: Expectation, outcome: Outcome) -> None:
        async with self._turn(session.session_id):
            outcome.parcel = parcel = await pack(session)
            await to_its_end(self._put(parcel, expect, outcome))

    async def _put(self, parcel: Parcel, expect: Expectation, outcome: Outcome) -> None:
        digest = digest_of(parcel.agent_id)
        news = None
        if parcel.origin is not None and expect == parcel.origin.revision:
            news = changes(parcel)
        if news is None:
            end = (digest, parcel.head, *_pairs(parcel.records))
            await self._change(PUT, parcel.session_id, expect, end, outcome)
            return
        head, records = news
        begin = (b"", b"") if head is None else (digest, head)
        await self._change(PATCH, parcel.session_id, expect, (*begin, *_pairs(records)), outcome)

    async def _append(
        self, session_id: str, records: list[StoredRecord], expect: Expectation, outcome: Outcome
    ) -> None:
        async with self._turn(session_id):
            end = (b"", b"", *_pairs(records))
            await to_its_end(self._change(PATCH, session_id, expect, end, outcome))

    async def _read(self, session_id: str) -> Stored | None:
        place = self._layout.place(session_id)
        keys = [(place.session, place.records)]
        (answer,) = await self._server.read(READ, keys, 1, session_id=session_id)
        return None if answer is None else await stored_of(session_id, place, answer)

    async def _remove(self, session_id: str, expect: Expectation) -> bool:
        if expect is Expect.ANYTHING:
            expect = Expect.UNCHANGED  # what is damaged is left as it is
        async with self._turn(session_id):
            work = self._change(DROP, session_id, expect, (), Outcome())
            return await to_its_end(work)

    async def _change(
        self,
        script: Script,
        session_id: str,
        expect: Expectation,
        args: Iterable[bytes],
        outcome: Outcome,
    ) -> bool:
        """Run a script that changes the session; False if there was none to delete."""
        place, token = self._layout.place(session_id), new_revision()
        keys = (place.session, place.records, place.gone, *place.bucket[1:])
        told = (place.name, token, _told(expect)), (self._ttl, *args)
        changed = await self._server.change(script, keys, told, session_id)
        if changed.word == b"damaged":
            raise damaged(session_id, place, changed.details[0].decode(errors="replace"))
        if changed.word == b"done":
            outcome.revision = token
            if changed.doubt is not None:
                raise changed.doubt
            return True
        found, trail = changed.details
        if script is DROP and found is None:
            return False
        if changed.was_lost and _has_forgotten(trail, expect):
            raise SaveOutcomeUnknownError(
                f"{self._links.address}: the server's answer was lost, and so many others"
                f" changed session {session_id!r} since that it cannot be known any more",
                session_id=session_id,
                filename=self._links.address,
            )
        if expect is Expect.ABSENT:
            raise SessionExistsError(
                f"session {session_id!r} already exists", session_id=session_id
            )
        require(expect, None if found is None else Revision(found.decode()), session_id)
        raise not_found(session_id)

    def _turn(self, session_id: str) -> Passage[Patience]:
        """Wait for this caller's turn among those who change the session."""
        return self._turnstile.through(session_id, Patience(self._lock_timeout, session_id))


def _pages(listed: Sequence[Listed], size: int) -> Iterator[Sequence[Listed]]:
    for start in range(0, len(listed), size):
        yield listed[start : start + size]


def _pairs(records: Iterable[StoredRecord]) -> Iterator[bytes]:
    for record in records:
        yield record.loop_id.encode()
        yield record.text


def _told(expect: Expectation) -> bytes:
    return _EXPECTED.get(expect) or f"={expect}".encode(errors="surrogatepass")


def _has_forgotten(trail: bytes, expect: Expectation) -> bool:
    """Whether a change that was made upon the expected state may have left the trail."""
    if len(trail) < TRAIL_IS_FULL:
        return False
    return expect is Expect.ABSENT or b"+" + _told(expect)[1:] not in trail


def open_url(url: str, **options: Any) -> RedisSessionStore:
    """Return a store of the server at a `redis:`, `rediss:` or `unix:` URL.

    Args:
        url: As redis-py takes it.
        options: As `RedisSessionStore` takes them.
    """
    return RedisSessionStore(url, **options)
