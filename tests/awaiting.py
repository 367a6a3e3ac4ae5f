"""Waiting for what happens elsewhere, and looking at a call from suspension to suspension."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Steps(Generic[T]):
    """Awaits a coroutine and calls `at(n, waited)` when it is suspended for the n-th time."""

    def __init__(
        self, coroutine: Coroutine[Any, Any, T], at: Callable[[int, Any], object] | None = None
    ) -> None:
        self.count = 0
        self._coroutine = coroutine
        self._at = at

    def __await__(self) -> Generator[Any, Any, T]:
        inner = self._coroutine.__await__()
        try:
            waited = inner.send(None)
            while True:
                self.count += 1
                if self._at is not None:
                    self._at(self.count, waited)
                try:
                    got = yield waited
                except GeneratorExit:
                    self._coroutine.close()
                    raise
                except BaseException as error:
                    waited = inner.throw(error)
                else:
                    waited = inner.send(got)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    async def run(self) -> T:
        return await self


async def until(condition: Callable[[], bool | Awaitable[bool]], seconds: float = 10.0) -> None:
    """Return when `condition` holds; fail when it does not come to hold."""
    deadline = time.monotonic() + seconds
    while True:
        holds = condition()
        if await holds if isinstance(holds, Awaitable) else holds:
            return
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.001)


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Return when `condition` holds, in a thread that has no event loop."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.001)


async def ended(awaitable: Awaitable[T]) -> T | BaseException:
    """Return a call's result or its error, a cancellation included."""
    try:
        return await awaitable
    except BaseException as error:
        return error
