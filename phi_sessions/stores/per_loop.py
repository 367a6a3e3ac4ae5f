"""A driver's client for each event loop: a store outlives loops, and clients do not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Final, Generic, TypeVar

from .finishing import to_its_end
from .forking import renew_in_child

__all__ = ["PerLoop"]

T = TypeVar("T")

_GLANCE: Final = 0.1
"""Seconds after which one who waits for another loop looks whether it is still there."""

_of_parents: list[object] = []
"""Clients of the processes that this one was forked from.

They are kept, because a connection that is finalized here may say goodbye to the server, or take
itself off the poll (epoll is shared across a fork) that the parent waits on.
"""


class PerLoop(Generic[T]):
    """Makes a client when a loop first asks for one, and closes all that it made.

    Args:
        make: Makes a client that belongs to the running loop.
        close: Closes one, on its own loop.
    """

    def __init__(
        self, make: Callable[[], Awaitable[T]], close: Callable[[T], Awaitable[None]]
    ) -> None:
        self._make = make
        self._close = close
        self._made: dict[asyncio.AbstractEventLoop, asyncio.Task[T]] = {}
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """Forget all clients: a forked child must not use its parent's connections."""
        if self._made:
            _of_parents.append(self._made)
        self._mutex = threading.Lock()
        self._made = {}

    async def get(self) -> T:
        """Return the running loop's client.

        A failure to make one is raised to all who wait for it, and the next call tries again.
        """
        loop = asyncio.get_running_loop()
        making = self._made.get(loop)
        if making is not None and making.done():
            if _is_made(making):
                return making.result()
            making = None
        if making is None:
            making = loop.create_task(self._start())
            with self._mutex:
                self._made = {
                    known: task for known, task in self._made.items() if not known.is_closed()
                }
                self._made[loop] = making
        try:
            return await asyncio.shield(making)
        except BaseException:
            if making.done() and not _is_made(making):
                self._forget(loop, making)
            raise

    async def _start(self) -> T:
        return await self._make()

    def _forget(self, loop: asyncio.AbstractEventLoop, making: asyncio.Task[T]) -> None:
        with self._mutex:
            if self._made.get(loop) is making:
                del self._made[loop]

    async def aclose(self) -> None:
        """Close every client whose loop still runs, even when the call is cancelled.

        One that cannot be closed is raised when the others are.
        """
        with self._mutex:
            made, self._made = self._made, {}
        await to_its_end(self._end_all(made))

    async def _end_all(self, made: dict[asyncio.AbstractEventLoop, asyncio.Task[T]]) -> None:
        here = asyncio.get_running_loop()
        endings = [
            self._end(making) if loop is here else self._end_on(loop, making)
            for loop, making in made.items()
        ]
        for outcome in await asyncio.gather(*endings, return_exceptions=True):
            if outcome is not None:
                raise outcome

    async def _end(self, making: asyncio.Task[T]) -> None:
        await asyncio.wait([making])
        if _is_made(making):
            await self._close(making.result())

    async def _end_on(self, loop: asyncio.AbstractEventLoop, making: asyncio.Task[T]) -> None:
        ended: Future[BaseException | None] = Future()

        def end() -> None:
            loop.create_task(self._end(making)).add_done_callback(tell)

        def tell(ending: asyncio.Task[None]) -> None:
            ended.set_result(None if ending.cancelled() else ending.exception())

        if not loop.is_running():
            return
        try:
            loop.call_soon_threadsafe(end)
        except RuntimeError:  # it was closed meanwhile
            return
        # A loop that ends now may never come to it, and then its client is gone with it.
        heard = asyncio.wrap_future(ended)
        while not heard.done() and not loop.is_closed():
            await asyncio.wait([heard], timeout=_GLANCE)
        if heard.done() and (error := heard.result()) is not None:
            raise error


def _is_made(making: asyncio.Task[T]) -> bool:
    return making.done() and not making.cancelled() and making.exception() is None
