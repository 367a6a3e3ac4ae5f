"""A driver's client for each event loop: a store outlives loops, and clients do not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from .forking import renew_in_child

__all__ = ["PerLoop"]

T = TypeVar("T")


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
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """Forget all clients: a forked child must not use its parent's connections."""
        self._mutex = threading.Lock()
        self._made: dict[asyncio.AbstractEventLoop, asyncio.Task[T]] = {}

    async def get(self) -> T:
        """Return the running loop's client.

        A failure to make one is raised to all who wait for it, and the next call tries again.
        """
        loop = asyncio.get_running_loop()
        making = self._made.get(loop)
        if making is None:
            making = loop.create_task(self._start())
            with self._mutex:
                self._made = {
                    known: task for known, task in self._made.items() if not known.is_closed()
                }
                self._made[loop] = making
        elif making.done() and not making.cancelled() and making.exception() is None:
            return making.result()
        try:
            return await asyncio.shield(making)
        except BaseException:
            if making.done() and (making.cancelled() or making.exception() is not None):
                self._forget(loop, making)
            raise

    async def _start(self) -> T:
        return await self._make()

    def _forget(self, loop: asyncio.AbstractEventLoop, making: asyncio.Task[T]) -> None:
        with self._mutex:
            if self._made.get(loop) is making:
                del self._made[loop]

    async def aclose(self) -> None:
        """Close every client whose loop still runs."""
        with self._mutex:
            made, self._made = self._made, {}
        here = asyncio.get_running_loop()
        for loop, making in made.items():
            if loop is here:
                await self._end(making)
            elif loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._end(making), loop))

    async def _end(self, making: asyncio.Task[T]) -> None:
        await asyncio.wait([making])
        if not making.cancelled() and making.exception() is None:
            await self._close(making.result())
