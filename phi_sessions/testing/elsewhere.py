"""Work in tasks and threads of its own, which an event loop waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, cast

__all__ = ["first_of", "in_thread", "together"]

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what `job` returns in a new thread.

    The thread is a daemon: if a store never lets it end, the program can end nevertheless.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def deliver(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]

    def run() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = job(*args, **kwargs)
        except BaseException as raised:  # noqa: BLE001 - whoever waits is told
            error = raised
        try:
            loop.call_soon_threadsafe(deliver, result, error)
        except RuntimeError:  # nobody waits any more: the loop was closed
            return

    threading.Thread(target=run, name="phi_sessions.testing", daemon=True).start()
    return await done


async def together(*work: Coroutine[Any, Any, T]) -> list[T]:
    """Return what all of `work` return, done at once; the first error ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except BaseExceptionGroup as errors:
        raise first_of(errors) from None
    return [task.result() for task in tasks]


def first_of(error: BaseException) -> BaseException:
    """Return the first error in a group of errors, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return first_of(group.exceptions[0])
    return error
