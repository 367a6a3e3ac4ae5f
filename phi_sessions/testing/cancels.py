"""Cancelling a call at each place where it waits, and telling what of it is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

from .claims import must
from .trial import Trial

__all__ = ["Ending", "Leftovers", "cancelled_everywhere"]

T = TypeVar("T")

_TURNS = 2
"""Passes of the loop in which a task that has ended may still be cleared away."""


class _Steps(Generic[T]):
    """Awaits a coroutine, and tells each time that it is suspended."""

    def __init__(self, call: Coroutine[Any, Any, T], suspended: Callable[[], None]) -> None:
        self._call = call
        self._suspended = suspended

    def __await__(self) -> Generator[Any, Any, T]:
        inner = self._call.__await__()
        try:
            waited = inner.send(None)
            while True:
                self._suspended()
                try:
                    got = yield waited
                except GeneratorExit:
                    self._call.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - the call is told
                    waited = inner.throw(error)
                else:
                    waited = inner.send(got)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    async def run(self) -> T:
        return await self


class Ending:
    """How a call ended that was cancelled, or was not because it ended before."""

    def __init__(self, place: str, task: asyncio.Task[Any]) -> None:
        self.place = place
        self.was_cancelled = task.cancelled()
        self.error = None if task.cancelled() else task.exception()


async def cancelled_everywhere(
    trial: Trial, call: Callable[[], Coroutine[Any, Any, Any]], places: int
) -> AsyncGenerator[Ending]:
    """Make calls, cancel each at another place, and tell how each ended.

    First each is cancelled when it is suspended for the n-th time, until one ends before that;
    then each so many passes of the event loop after it has begun.

    Raises:
        BrokenPromiseError: A call did not end soon after it was cancelled, or swallowed it.
    """
    for place in range(places):
        task, reached = _suspended_so_often(trial, call(), place)
        where = f"cancelled when it was suspended for the {place + 1}. time"
        await _ends(task, trial.scale.promptly, where)
        if reached():
            must(
                task.cancelled() or task.exception() is not None,
                f"a call that was {where} swallowed the cancellation and went on",
            )
        yield Ending(where, task)
        if not reached():
            break
    for turns in range(places):
        task = trial.start(call())
        for _ in range(turns):
            await asyncio.sleep(0)
        too_late = task.done()
        task.cancel()
        where = f"cancelled after {turns} turns of the event loop"
        await _ends(task, trial.scale.promptly, where)
        yield Ending(where, task)
        if too_late:
            break


def _suspended_so_often(
    trial: Trial, call: Coroutine[Any, Any, Any], place: int
) -> tuple[asyncio.Task[Any], Callable[[], bool]]:
    seen = 0

    def suspended() -> None:
        nonlocal seen
        seen += 1
        if seen == place + 1:
            task = asyncio.current_task()  # an eager one runs before anybody else knows it
            assert task is not None
            task.cancel()

    return trial.start(_Steps(call, suspended).run()), lambda: seen > place


async def _ends(task: asyncio.Task[Any], patience: float, where: str) -> None:
    await asyncio.wait([task], timeout=patience)
    must(task.done(), f"a call that was {where} did not end within {patience:g} s")


class Leftovers:
    """Tells tasks that a call has left behind from those that a store keeps."""

    def __init__(self) -> None:
        self._known = asyncio.all_tasks()
        self._services = {_name(task) for task in self._known}

    async def must_be_none(self, where: str) -> None:
        """Say that no task works on a call any more that has ended.

        Raises:
            BrokenPromiseError: One does, and it is not one of a kind that was there before.
        """
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        left = [
            _name(task)
            for task in asyncio.all_tasks() - self._known
            if not task.done() and _name(task) not in self._services
        ]
        must(not left, f"a call that was {where} has left tasks at work: {', '.join(left)}")


def _name(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    return getattr(coroutine, "__qualname__", repr(coroutine))
