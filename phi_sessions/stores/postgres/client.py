"""What one event loop has of the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial
from typing import Final

from .connections import Connections, GivenPool, OwnPool
from .driver import Pool, connect
from .lease_connection import BorrowedLine, LeaseConnection, LeaseStatements, Line, OwnLine

__all__ = ["Client", "ClientMaker"]

_FOR_LEASES: Final = {
    # A host that dies says nothing: its leases are free after a minute, not after two hours.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "idle_session_timeout": "0",
}


class Client:
    """What one event loop has of the server. It closes itself when its loop ends properly.

    Attributes:
        connections: For single statements.
        leases: For what is held longer.
        is_closed: Whether it was closed.
    """

    def __init__(self, connections: Connections, leases: LeaseConnection) -> None:
        self.connections = connections
        self.leases = leases
        self.is_closed = False
        self._loop = asyncio.get_running_loop()
        self._until_the_end = self._close_at_the_end()

    async def find(self) -> Connections:
        """Return the connections."""
        return self.connections

    async def open(self) -> None:
        """Begin to watch for the loop's end."""
        await anext(self._until_the_end)

    async def aclose(self) -> None:
        """Close all; leases that are held keep their connection until they are given back."""
        await self._until_the_end.aclose()

    @property
    def is_over(self) -> bool:
        """Whether it was closed, or nothing can be closed any more as its loop is."""
        return self.is_closed or self._loop.is_closed()

    @property
    def has_something_open(self) -> bool:
        """Whether it holds what nobody else would close."""
        return not self.is_over and (self.connections.are_ours or self.leases.is_open)

    def abandon(self) -> None:
        """Have everything closed by the loop, when it runs next; for any thread."""
        if not self.is_over:
            self._loop.call_soon_threadsafe(self._abandon)

    def _abandon(self) -> None:
        self.connections.abandon()
        self.leases.abandon()

    async def _close_at_the_end(self) -> AsyncGenerator[None]:
        # The one thing that a loop closes by itself before it ends are its async generators.
        try:
            yield
        finally:
            self.is_closed = True
            await self.connections.aclose()
            await self.leases.aclose()


@dataclass(frozen=True, kw_only=True)
class ClientMaker:
    """Makes each loop's client.

    Attributes:
        source: Where connections come from, a DSN or a pool.
        lease_dsn: Where leases are held, if not there.
        pool_size: Connections at most.
        statement_cache_size: Statements that a connection keeps prepared.
        timeout: Seconds for one call.
        lease_statements: What leases are made with.
    """

    source: str | Pool
    lease_dsn: str | None
    pool_size: int
    statement_cache_size: int
    timeout: float
    lease_statements: LeaseStatements

    def __call__(self) -> Client:
        """Return a client of the running loop."""
        connections: Connections
        line: Line
        lease_dsn = self.lease_dsn
        if isinstance(self.source, str):
            size = self.statement_cache_size
            connections = OwnPool(
                partial(connect, self.source, statement_cache_size=size), self.pool_size
            )
            lease_dsn = lease_dsn or self.source
        else:
            connections = GivenPool(self.source, self.timeout)
        if lease_dsn is None:
            line = BorrowedLine(connections, self.timeout)
        else:
            dial = partial(connect, lease_dsn, statement_cache_size=100, **_FOR_LEASES)
            line = OwnLine(dial)
        return Client(connections, LeaseConnection(line, self.lease_statements, self.timeout))
