"""Where a loop's connections come from: a pool of the caller's, or a few of our own."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from ...errors import SessionTaskError
from . import inheritance
from .driver import ERRORS, Connection, Pool

__all__ = ["Connections", "GivenPool", "OwnPool", "hang_up"]

_FRESH: Final = 300.0
"""Seconds after which an idle connection is not used again: who knows what forgot it meanwhile."""

_PARTING: Final = 1.0
"""Seconds for a server to take its leave, or to hear that a statement is not wanted any more."""


async def hang_up(connection: Connection) -> None:
    """Close a connection, whatever state it is in; a statement that still runs is cancelled."""
    with suppress(*ERRORS):  # it is aborted then, which is all that is asked for
        await connection.close(timeout=_PARTING)


class Connections(ABC):
    """Connections of one event loop."""

    are_ours: bool
    """Whether they are opened, and so closed, here."""

    @asynccontextmanager
    async def borrow(self, patience: float) -> AsyncGenerator[Connection]:
        """Lend a connection. What comes back broken or amid something is closed.

        Raises:
            SessionTaskError: They were closed, or are not this loop's.
            One of `ERRORS`: None could be had within `patience` seconds.
        """
        async with asyncio.timeout(patience):
            connection = await self.take()
        try:
            yield connection
        except (TimeoutError, asyncio.CancelledError):
            await hang_up(connection)  # the statement runs on, until the server is told
            raise
        finally:
            await self.give_back(connection)

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
