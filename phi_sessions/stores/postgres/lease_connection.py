"""The connection that holds a loop's leases: advisory locks, which end with it.

PostgreSQL frees them when the connection breaks, so also when the holder's process dies. All of a
store's leases in one loop share one connection, as the server has few. It knows no difference
between two holders on one connection: whoever calls makes sure that there is one for each session.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from ...lease import Lease
from ...record import dec_hook, enc_hook
from . import inheritance
from .connections import Connections, hang_up
from .driver import ERRORS, Connection, is_broken
from .rows import as_bytes
from .tables import Tables

__all__ = ["BorrowedLine", "Grip", "LeaseConnection", "LeaseStatements", "Line", "OwnLine"]

# The table's number makes leases of different tables of one database different ones.
_KEY: Final = "hashtextextended(encode($1::bytea, 'hex'), {leases}::regclass::oid::bigint)"

_TAKE: Final = """
WITH got AS MATERIALIZED (SELECT pg_try_advisory_lock({key}) AS taken), told AS (
    INSERT INTO {table} (session_id, pid, lease)
    SELECT $1, pg_backend_pid(), $2::bytea FROM got WHERE taken
    ON CONFLICT (session_id) DO UPDATE SET pid = excluded.pid, lease = excluded.lease
)
SELECT taken FROM got
"""

_LET_GO: Final = """
WITH told AS (DELETE FROM {table} WHERE session_id = $1 AND pid = pg_backend_pid())
SELECT pg_advisory_unlock({key})
"""

_UNLOCK: Final = "SELECT pg_advisory_unlock({key})"

# What the table says counts only while the one who wrote it holds the lock.
_HOLDER: Final = """
SELECT l.lease FROM {table} l JOIN pg_locks k ON k.pid = l.pid
WHERE l.session_id = $1 AND k.locktype = 'advisory' AND k.granted AND k.objsubid = 1
    AND (k.classid::bigint << 32 | k.objid::bigint) = {key}
"""

# However long nothing is said over it; undone before the pool gets its connection back, as what the
# pool does then may be its owner's own.
_STAY: Final = """
/* phi_sessions stay */ WITH was AS MATERIALIZED (SELECT current_setting('idle_session_timeout'))
SELECT was.*, set_config('idle_session_timeout', '0', false) FROM was
"""
_AS_BEFORE: Final = (
    "/* phi_sessions as_before */ SELECT set_config('idle_session_timeout', $1, false)"
)


class LeaseStatements:
    """The statements for one set of tables."""

    def __init__(self, tables: Tables) -> None:
        table = tables.names["leases"]
        key = _KEY.format(leases="'" + table.replace("'", "''") + "'")

        def made(name: str, text: str) -> str:
            return f"/* phi_sessions {name} */ " + text.strip().format(key=key, table=table)

        self.take = made("take", _TAKE)
        self.let_go = made("let_go", _LET_GO)
        self.unlock = made("unlock", _UNLOCK)
        self.holder = made("holder", _HOLDER)


class Line(ABC):
    """How a connection that is held for long is had."""

    @abstractmethod
    async def open(self) -> Connection:
        """Return a connection."""

    @abstractmethod
    async def close(self, connection: Connection) -> None:
        """Give it up."""

    is_kept: bool
    """Whether it stays open while no lease is held."""


class OwnLine(Line):
    """A connection beside the pool."""

    is_kept = True

    def __init__(self, dial: Callable[[], Awaitable[Connection]]) -> None:
        self._dial = dial

    async def open(self) -> Connection:
        connection = await self._dial()
        inheritance.keep_from_children(connection)
        return connection

    async def close(self, connection: Connection) -> None:
        await hang_up(connection)


class BorrowedLine(Line):
    """A connection of the pool, taken out of it for as long as a lease is held."""

    is_kept = False

    def __init__(self, connections: Connections, timeout: float) -> None:
        self._connections = connections
        self._timeout = timeout
        self._before = ""

    async def open(self) -> Connection:
        connection = await self._connections.take()
        try:
            [[self._before, _]] = await connection.fetch(_STAY)
        except BaseException:
            await self._connections.give_back(connection)
            raise
        return connection

    async def close(self, connection: Connection) -> None:
        try:
            if not is_broken(connection):
                await connection.fetch(_AS_BEFORE, self._before, timeout=self._timeout)
        except ERRORS:
            await hang_up(connection)
        finally:
            await self._connections.give_back(connection)


class Grip:
    """Where a taken lease is kept, even if its caller is gone by then."""

    __slots__ = ("connection", "keeper", "session_id")

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.keeper: LeaseConnection | None = None
        self.connection: Connection | None = None

    @property
    def is_firm(self) -> bool:
        """Whether the lease was taken, and not given back."""
        return self.connection is not None

    async def let_go(self) -> bool:
        """Give the lease back; False when it was lost before, as its connection broke."""
        assert self.keeper is not None
        assert self.connection is not None
        connection, self.connection = self.connection, None
        return await self.keeper.let_go(self.session_id, connection)


class LeaseConnection:
    """Takes leases and gives them back, over one connection that is opened with the first.

    Args:
        line: Where the connection comes from.
        statements: What is said over it.
        timeout: Seconds for one statement.
    """

    def __init__(self, line: Line, statements: LeaseStatements, timeout: float) -> None:
        self._line = line
        self._statements = statements
        self._timeout = timeout
        self._turn = asyncio.Lock()  # a connection takes one statement at a time
        self._connection: Connection | None = None
        self._held = 0
        self._closed = False

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    async def take(self, grip: Grip, lease: Lease) -> None:
        """Take the lease if it is free; `grip` is firm then.

        Raises:
            One of `ERRORS`.
        """
        text = msgspec.json.encode(lease, enc_hook=enc_hook)
        async with asyncio.timeout(self._timeout), self._turn:
            connection = await self._ready()
            args = (as_bytes(grip.session_id), text)
            try:
                [[taken]] = await connection.fetch(self._statements.take, *args)
                if taken:
                    self._held += 1
                    grip.keeper, grip.connection = self, connection
            except BaseException:
                await self._undo(connection, args[0])
                raise
            finally:
                await self._rest()

    async def holder_of(self, session_id: str) -> Lease | None:
        """Return what the holder says of itself, None if nobody holds it just now.

        Raises:
            One of `ERRORS`.
        """
        async with asyncio.timeout(self._timeout), self._turn:
            connection = await self._ready()
            try:
                rows = await connection.fetch(self._statements.holder, as_bytes(session_id))
            finally:
                await self._rest()
        try:
            [[text]] = rows
            return msgspec.json.decode(text, type=Lease, dec_hook=dec_hook)
        except (ValueError, msgspec.MsgspecError):
            return None  # whoever asks is told that it is held, if not by whom

    async def let_go(self, session_id: str, connection: Connection) -> bool:
        """Give back a lease that was taken over `connection`; False when that broke meanwhile."""
        held = False
        async with self._turn:
            self._held -= 1
            if not is_broken(connection):
                query, held = self._statements.let_go, True
                try:
                    args = (as_bytes(session_id),)
                    [[held]] = await connection.fetch(query, *args, timeout=self._timeout)
                except ERRORS:
                    await hang_up(connection)  # which gives it back as well
            await self._rest()
        return held

    async def aclose(self) -> None:
        """Close the connection once no lease is held."""
        async with self._turn:
            self._closed = True
            await self._rest()

    def abandon(self) -> None:
        """Close the connection at once, and with it all leases."""
        if self._connection is not None:
            self._connection.terminate()

    async def _ready(self) -> Connection:
        if self._connection is not None and is_broken(self._connection):
            await self._line.close(self._connection)
            self._connection = None
        if self._connection is None:
            self._connection = await self._line.open()
        return self._connection

    async def _rest(self) -> None:
        """Close the connection if nobody needs it."""
        if self._connection is None or self._held or (self._line.is_kept and not self._closed):
            return
        connection, self._connection = self._connection, None
        await self._line.close(connection)

    async def _undo(self, connection: Connection, session_id: bytes) -> None:
        """Make sure that a lease that was half taken is not held."""
        try:
            await connection.fetch(self._statements.unlock, session_id, timeout=self._timeout)
        except ERRORS:
            await hang_up(connection)
