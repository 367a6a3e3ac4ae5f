"""How late an event loop is: a task that wants to run each millisecond."""

from __future__ import annotations

import asyncio
from time import perf_counter
from types import TracebackType
from typing import Final, Self

__all__ = ["INTERVAL", "Ticker"]

INTERVAL: Final = 0.001
"""Seconds that the task sleeps."""


class Ticker:
    """Measures the loop that it runs in, from `async with` to its end.

    Attributes:
        gaps: Seconds from each tick to the next, the last one up to the end.
    """

    def __init__(self) -> None:
        self.gaps: list[float] = []

    @property
    def lags(self) -> list[float]:
        """Seconds by which each tick came too late."""
        return [max(gap - INTERVAL, 0.0) for gap in self.gaps]

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._tick())
        await asyncio.sleep(20 * INTERVAL)
        self.gaps.clear()
        self._last = perf_counter()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.gaps.append(perf_counter() - self._last)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _tick(self) -> None:
        self._last = perf_counter()
        while True:
            await asyncio.sleep(INTERVAL)
            now = perf_counter()
            self.gaps.append(now - self._last)
            self._last = now
