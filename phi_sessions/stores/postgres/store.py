"""Sessions in the tables of a PostgreSQL database."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from typing import Any, ClassVar

from ...codec import StoredRecord
from ...errors import SessionCorruptError
from ...info import Selection, SessionInfo
from ...lease import Lease, SupportsLease
from ...model import Session
from ...promise import Promise
from ...store import Expectation, OnError
from ..base import BaseStore, Outcome, Stored, pack, unpack
from ..finishing import to_its_end
from ..patience import Patience
from ..turnstile import Passage, Turnstile
from .attempts import Attempts
from .changes import Changes
from .client import ClientMaker
from .driver import address_of
from .lease_connection import LeaseStatements
from .leasing import Leasing
from .listing import Listing
from .rows import as_bytes, as_info, as_stored
from .server import Server
from .statements import Statements
from .tables import Tables

__all__ = ["PostgresSessionStore", "open_url"]


class PostgresSessionStore(BaseStore, SupportsLease):
    """Keeps each session in rows of a PostgreSQL database, version 14 or later.

    It makes its tables with the first call, if they are not there: a row for each session, and one
    for each loop record, so that an append costs what it adds. Texts and ids are kept as bytes;
    `convert_from(session_id, 'UTF8')` shows them. A role that may not make tables needs SELECT,
    INSERT, UPDATE and DELETE on them and USAGE on the sequence.

    When a change was acknowledged it survives a power cut of the server, unless the server runs
    with `fsync` off. Where the role or the database has `synchronous_commit` off, the store turns
    it on for its own changes; other values, which say what standby servers have to do, it leaves.

    Leases are advisory locks. All that are held in one event loop share one connection beside the
    pool, and end with it: at once when the holder's process dies, a minute after its host does.
    Does that connection break while a lease is held, the `async with` block ends with a
    `SessionIOError`, and another may have held the session meanwhile; what is stored is protected
    by revisions all the same.

    Through a proxy that pools transactions, such as PgBouncer, everything works but leases, with
    `statement_cache_size=0` (a PgBouncer that tracks prepared statements, from 1.21 on, does
    without). Leases need `lease_dsn`, which goes to the server itself: through the proxy a lease
    would be another client's. Also, should the connection to the proxy break amid a change, the
    server may carry the change out later than the store asks for its outcome.

    Args:
        dsn_or_pool: `postgresql://user:password@host:port/database`; or a pool of asyncpg's that
            was initialized. The pool is not closed by the store, works in its own event loop only,
            and lends one connection for as long as any lease is held if there is no `lease_dsn`.
        schema: Where the tables are; made if need be. None for the first one of `search_path`.
        prefix: What the names of the tables begin with.
        timeout: Seconds for one call to the server, waiting for a free connection included.
        lock_timeout: Seconds to wait for a session that another is changing.
        pool_size: Connections at most, in each event loop, where no pool is given.
        statement_cache_size: Statements that a connection keeps prepared, where no pool is given.
        durable: False leaves `synchronous_commit` as it is: with `off` a power cut may undo the
            last changes.
        lease_dsn: Where leases are held, if not by the first argument's connections. It has to
            lead to the same database.

    Raises:
        ValueError: A DSN is not percent-encoded, a name is too long, or there is no connection.
    """

    lacks: ClassVar[frozenset[Promise]] = frozenset()

    def __init__(
        self,
        dsn_or_pool: str | Any,
        *,
        schema: str | None = None,
        prefix: str = "phi_",
        timeout: float = 30.0,
        lock_timeout: float = 5.0,
        pool_size: int = 10,
        statement_cache_size: int = 100,
        durable: bool = True,
        lease_dsn: str | None = None,
    ) -> None:
        super().__init__()
        if pool_size < 1:
            raise ValueError(f"pool_size must be at least 1: {pool_size}")
        tables = Tables(schema, prefix)
        is_bound = not isinstance(dsn_or_pool, str)
        if lease_dsn is not None:
            address_of(lease_dsn)  # that of the store is what errors tell
        self._server = Server(
            ClientMaker(
                source=dsn_or_pool,
                lease_dsn=lease_dsn,
                pool_size=pool_size,
                statement_cache_size=statement_cache_size,
                timeout=timeout,
                lease_statements=LeaseStatements(tables),
            ),
            tables,
            address="the given pool" if is_bound else address_of(dsn_or_pool),
            timeout=timeout,
            is_bound=is_bound,
        )
        self._statements = Statements(tables)
        attempts = Attempts(self._server, self._statements, durable=durable)
        self._listing = Listing(self._server, self._statements)
        self._leasing = Leasing(self._server)
        self._lock_timeout = lock_timeout
        self._place = tables.names["sessions"]
        self._changes = Changes(self._server, attempts, self._statements, self._place)
        self._turnstile = Turnstile()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._server.address!r})"

    def __del__(self) -> None:
        if hasattr(self, "_server"):
            self._server.abandon(repr(self))

    async def list_ids(self) -> list[str]:
        self._check_open()
        return [name.decode() for name in await self._listing.ids()]

    async def exists(self, session_id: str) -> bool:
        self._check(session_id)
        query = self._statements.exists
        [[is_there]] = await self._server.fetch(query, as_bytes(session_id))
        return bool(is_there)

    async def list_for_agent(self, agent_id: str, *, on_error: OnError = "raise") -> list[Session]:
        self._check_open()
        found: list[Session] = []
        async for batch in self._listing.sessions(agent_id):
            for session_id, rows in batch:
                try:
                    stored = await as_stored(session_id, rows, self._place)
                except SessionCorruptError:
                    if on_error != "skip":
                        raise
                    continue
                if stored is not None and stored.header.agent_id == agent_id:
                    found.append(unpack(stored))
        return found

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
        if selection.is_complete:
            return
        rows = self._listing.cards(agent_id, limit)
        async with aclosing(rows):
            async for row in rows:
                try:
                    info = await as_info(row, self._place)
                except SessionCorruptError:
                    if on_error != "skip":
                        raise
                    continue
                if selection.takes(info):
                    yield info
                if selection.is_complete:
                    return

    @asynccontextmanager
    async def lease(
        self,
        session_id: str,
        *,
        owner: str | None = None,
        timeout: float = 0.0,  # noqa: ASYNC109 - the contract's word
    ) -> AsyncGenerator[Lease]:
        self._check(session_id)
        lease = Lease.of_this_process(session_id, owner)
        async with self._leasing.hold(lease, Patience.for_lease(timeout, session_id)):
            yield lease

    async def aclose(self) -> None:
        await super().aclose()
        await self._server.aclose()

    async def _write(self, session: Session, expect: Expectation, outcome: Outcome) -> None:
        async with self._turn(session.session_id) as patience:
            with patience.at_rest():
                outcome.parcel = parcel = await pack(session)
            await to_its_end(self._changes.save(parcel, expect, outcome, patience))

    async def _append(
        self, session_id: str, records: list[StoredRecord], expect: Expectation, outcome: Outcome
    ) -> None:
        async with self._turn(session_id) as patience:
            work = self._changes.append(session_id, records, expect, outcome, patience)
            await to_its_end(work)

    async def _read(self, session_id: str) -> Stored | None:
        rows = await self._server.fetch(self._statements.read, as_bytes(session_id))
        return await as_stored(session_id, rows, self._place)

    async def _remove(self, session_id: str, expect: Expectation) -> bool:
        async with self._turn(session_id) as patience:
            return await to_its_end(self._changes.delete(session_id, expect, patience))

    def _turn(self, session_id: str) -> Passage[Patience]:
        """Wait for this caller's turn among those of this store who change the session."""
        return self._turnstile.through(session_id, Patience(self._lock_timeout, session_id))


def open_url(url: str, **options: Any) -> PostgresSessionStore:
    """Return a store for a `postgresql:` or `postgres:` URL; `options` are the store's own."""
    return PostgresSessionStore(url, **options)
