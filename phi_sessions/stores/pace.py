"""Sharing an event loop: work on its own thread, in slices, whoever does it."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Final

__all__ = ["Pace", "pace"]

_SLICE: Final = 0.001
"""Seconds of work in one pass of the loop, after which it goes round once."""


class Pace(threading.local):
    """How much of this pass of this thread's loop was spent.

    Many calls that begin together share one slice: each alone would be short, and all of them in
    one pass would keep the loop from everything else.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._spent = 0.0
        self._since = 0.0

    async def begin(self) -> None:
        """Wait for a pass of the loop with time left, and start to count."""
        loop = asyncio.get_running_loop()
        while self._loop is loop and self._spent > _SLICE:  # noqa: ASYNC110 - a pass, not an event
            await asyncio.sleep(0)  # until the pass is over, which nothing tells but the loop
        if self._loop is not loop:
            self._loop, self._spent = loop, 0.0
            loop.call_soon(self._renew, loop)
        self._since = time.perf_counter()

    async def step(self) -> None:
        """Count the work since the last call; let the loop go round if the slice is used up."""
        self.end()
        if self._spent > _SLICE:
            await self.begin()
        else:
            self._since = time.perf_counter()

    def end(self) -> None:
        """Count the work since the last call; nothing more comes."""
        self._spent += time.perf_counter() - self._since

    def _renew(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is loop:
            self._loop = None


pace: Final = Pace()
"""What all that encodes or decodes on an event loop goes by: it is one loop that they share."""
