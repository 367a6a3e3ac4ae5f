"""The server as a store sees it: statements that are carried out, or errors that say why not."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Callable

from ...errors import SessionError, SessionTaskError
from ..finishing import to_its_end
from ..forking import renew_in_child
from ..per_loop import PerLoop
from .client import Client
from .connections import Connections, Loan
from .driver import ERRORS, Row, is_a_lost_connection, translate
from .tables import Tables

__all__ = ["Server"]


class Server:
    """Carries out statements on the running loop's connections.

    Args:
        make: Makes a loop's client.
        tables: Made with the first statement, if need be.
        address: What errors call the server.
        timeout: Seconds for one call.
        is_bound: Whether the connections belong to one loop of one process: the caller's pool.
    """

    def __init__(
        self,
        make: Callable[[], Client],
        tables: Tables,
        *,
        address: str,
        timeout: float,
        is_bound: bool,
    ) -> None:
        self.address = address
        self.timeout = timeout
        self._make = make
        self._tables = tables
        self._is_bound = is_bound
        self._bound_to: asyncio.AbstractEventLoop | None = None
        self._opened: set[Client] = set()
        self._is_foreign = False
        self._closed = False
        self._mutex = threading.Lock()
        self._clients = PerLoop(self._open, self._close)
        renew_in_child(self)

    def renew(self) -> None:
        """Forget what the parent opened, which `PerLoop` keeps from being collected."""
        self._opened = set()
        self._is_foreign = self._is_bound
        self._mutex = threading.Lock()

    async def fetch(self, query: str, *args: object) -> list[Row]:
        """Return what a statement that changes nothing finds.

        Raises:
            SessionIOError: It could not be carried out.
            SessionTaskError: The store is closed.
        """
        return await to_its_end(self._fetch(query, args, may_retry=True))

    async def _fetch(self, query: str, args: tuple[object, ...], *, may_retry: bool) -> list[Row]:
        try:
            async with self.connection() as (connection, left):
                return await connection.fetch(query, *args, timeout=left)
        except SessionError:
            raise
        except ERRORS as error:
            # A connection may have broken long ago, unnoticed until it was used.
            if not (may_retry and is_a_lost_connection(error)):
                raise translate(error, self.address) from error
        return await self._fetch(query, args, may_retry=False)

    def connection(self, patience: float | None = None) -> Loan:
        """Lend a connection for `patience` seconds, a call's time limit by default."""
        return Loan(self._find, self.timeout if patience is None else patience)

    async def _find(self) -> Connections:
        return (await self.client()).connections

    async def client(self) -> Client:
        """Return the running loop's client.

        Raises:
            SessionIOError: The tables cannot be used.
            SessionTaskError: The store is closed, or the given pool is another loop's.
            One of `ERRORS`.
        """
        if self._closed:  # a call that was under way must not open what nobody closes
            raise SessionTaskError("the store is closed")
        return await self._clients.get()

    async def aclose(self) -> None:
        """Close all clients whose loops run."""
        self._closed = True
        await self._clients.aclose()

    def abandon(self, name: str) -> None:
        """Warn if somebody forgot to close this, and do it."""
        forgotten = [client for client in self._opened if client.has_something_open]
        if forgotten:
            warnings.warn(f"unclosed {name}: use `async with`", ResourceWarning, 3, source=self)
        for client in forgotten:
            client.abandon()

    async def _open(self) -> Client:
        loop = asyncio.get_running_loop()
        if self._is_bound:
            self._bound_to = self._bound_to or loop
            if self._bound_to is not loop or self._is_foreign:
                raise SessionTaskError("the given pool belongs to another event loop or process")
        client = self._make()
        await client.open()
        with self._mutex:
            self._opened = {known for known in self._opened if not known.is_over} | {client}
        try:
            async with Loan(client.find, self.timeout) as (connection, _):
                await self._tables.prepare(connection, self.timeout, self.address)
        except BaseException:
            await self._close(client)
            raise
        return client

    async def _close(self, client: Client) -> None:
        with self._mutex:
            self._opened.discard(client)
        await client.aclose()
