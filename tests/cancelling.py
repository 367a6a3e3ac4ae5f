"""Cancelling a call at one of its awaits, in all ways in which that can happen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from awaiting import Steps, ended

Cancel = Callable[["asyncio.Task[Any]", Any], None]


def at_once(task: asyncio.Task[Any], waited: Any) -> None:
    task.cancel()


def soon(task: asyncio.Task[Any], waited: Any) -> None:
    asyncio.get_running_loop().call_soon(task.cancel)


def in_the_middle(task: asyncio.Task[Any], waited: Any) -> None:
    asyncio.get_running_loop().call_later(0.0002, task.cancel)


def with_the_answer(task: asyncio.Task[Any], waited: Any) -> None:
    # What was waited for is done, and before the task can hear of it, it is cancelled.
    if isinstance(waited, asyncio.Future):
        waited.add_done_callback(lambda _: task.cancel())
    else:
        task.cancel()


def again_and_again(task: asyncio.Task[Any], waited: Any) -> None:
    loop = asyncio.get_running_loop()

    def again(left: int) -> None:
        if not task.done():
            task.cancel()
            if left:
                loop.call_soon(again, left - 1)

    again(20)


CANCELS: list[Cancel] = [at_once, soon, in_the_middle, with_the_answer, again_and_again]


async def cancelled_at(
    call: Coroutine[Any, Any, Any],
    step: int,
    cancel: Cancel,
    each_step: Callable[[int], object] = lambda n: None,
) -> tuple[bool, Any]:
    """Run `call`, cancel it when it is suspended for the `step`-th time.

    Returns whether it came so far, and how it ended.
    """
    reached = False

    def at(n: int, waited: Any) -> None:
        nonlocal reached
        each_step(n)
        if n == step:
            reached = True
            cancel(task, waited)

    task = asyncio.create_task(Steps(call, at).run())
    await asyncio.wait([task], timeout=15)
    assert task.done()
    return reached, await ended(task)
