"""Where a loop's connections come from: a pool of the caller's, or a few of our own."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from ...errors import SessionTaskError
from . import inheritance
from .driver import ERRORS, Connection, Pool

__all__ = ["Connections", "GivenPool", "Loan", "OwnPool", "hang_up"]

_FRESH: Final = 300.0
"""Seconds after which an idle connection is not used again: who knows what forgot it meanwhile."""

_PARTING: Final = 1.0
"""Seconds for a server to take its leave, or to hear that a statement is not wanted any more."""


async def hang_up(connection: Connection) -> None:
    """Close a connection, whatever state it is in; a statement that still runs is cancelled."""
    try:
        async with asyncio.timeout(_PARTING):  # asyncpg's own limit does not cover all of it
            await connection.close(timeout=_PARTING)
    except ERRORS:
        connection.terminate()


class Connections(ABC):
    """Connections of one event loop."""

    are_ours: bool
    """Whether they are opened, and so closed, here."""

    @property
    def is_ready(self) -> bool:
        """Whether `take` has one at once."""
        return False

    @abstractmethod
    async def take(self) -> Connection:
        """Return a connection that nobody else uses, to be given back."""

    @abstractmethod
    async def give_back(self, connection: Connection) -> None:
        """Take a connection back, closed or not."""

    @abstractmethod
    async def aclose(self) -> None:
        """Wait for connections that are lent, and close what was opened."""

    @abstractmethod
    def abandon(self) -> None:
        """Close what was opened and is idle, at once."""


class Loan:
    """Lends a connection: `async with Loan(...) as (connection, left)`, `left` being seconds.

    What comes back broken or amid something is closed. (A class, as `asynccontextmanager` and a
    time limit for what takes no time cost a tenth of a small statement.)

    Args:
        find: Returns the connections.
        patience: Seconds for all that is done with one, waiting for it included.

    Raises:
        SessionTaskError: They were closed, or are not this loop's.
        One of `ERRORS`: None could be had in time.
    """

    __slots__ = ("_connection", "_connections", "_deadline", "_find")

    _connections: Connections
    _connection: Connection

    def __init__(self, find: Callable[[], Awaitable[Connections]], patience: float) -> None:
        self._find = find
        self._deadline = time.monotonic() + patience

    async def __aenter__(self) -> tuple[Connection, float]:
        self._connections = await self._find()
        if self._connections.is_ready:
            self._connection = await self._connections.take()
        else:
            async with asyncio.timeout(self._left):
                self._connection = await self._connections.take()
        return self._connection, self._left

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        try:
            if isinstance(error, TimeoutError | asyncio.CancelledError):
                await hang_up(self._connection)  # the statement runs on until the server is told
        finally:
            await self._connections.give_back(self._connection)

    @property
    def _left(self) -> float:
        return max(self._deadline - time.monotonic(), 0.001)


class OwnPool(Connections):
    """At most `size` connections, made as they are needed.

    asyncpg's own pool takes a tenth of a millisecond for each loan, a fifth of an append.

    Args:
        dial: Makes a connection.
        size: How many there may be at once.
    """

    are_ours = True

    def __init__(self, dial: Callable[[], Awaitable[Connection]], size: int) -> None:
        self._dial = dial
        self._size = size
        self._free = asyncio.Semaphore(size)
        self._idle: list[tuple[Connection, float]] = []
        self._closed = False

    @property
    def is_ready(self) -> bool:
        if self._free.locked() or not self._idle:
            return False
        connection, since = self._idle[-1]
        return not connection.is_closed() and time.monotonic() - since < _FRESH

    async def take(self) -> Connection:
        await self._free.acquire()
        try:
            if self._closed:
                raise SessionTaskError("the store is closed")
            while self._idle:
                connection, since = self._idle.pop()
                if connection.is_closed():
                    continue
                if time.monotonic() - since < _FRESH:
                    return connection
                await hang_up(connection)
            connection = await self._dial()
        except BaseException:
            self._free.release()
            raise
        inheritance.keep_from_children(connection)
        return connection

    async def give_back(self, connection: Connection) -> None:
        if connection.is_closed() or connection.is_in_transaction():
            connection.terminate()
        else:
            self._idle.append((connection, time.monotonic()))
        self._free.release()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        for _ in range(self._size):
            await self._free.acquire()
        idle, self._idle = self._idle, []
        await asyncio.gather(*(hang_up(connection) for connection, _ in idle))
        for _ in range(self._size):
            self._free.release()  # whoever waits is told

    def abandon(self) -> None:
        self._closed = True
        for connection, _ in self._idle:
            connection.terminate()


class GivenPool(Connections):
    """A pool of the caller's, which is never closed here.

    Args:
        pool: The pool.
        timeout: Seconds for it to take a connection back.
    """

    are_ours = False

    def __init__(self, pool: Pool, timeout: float) -> None:
        self._pool = pool
        self._timeout = timeout

    async def take(self) -> Connection:
        return await self._pool.acquire()

    async def give_back(self, connection: Connection) -> None:
        with suppress(*ERRORS):  # what was closed does not answer any more
            if connection.is_in_transaction():
                connection.terminate()
        with suppress(*ERRORS):  # what could not be reset was dropped
            await self._pool.release(connection, timeout=self._timeout)

    async def aclose(self) -> None:
        """Leave it as it is."""

    def abandon(self) -> None:
        """Leave it as it is."""
