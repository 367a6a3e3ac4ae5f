"""Many requests, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Final, TypeVar

__all__ = ["AT_ONCE", "for_each"]

S = TypeVar("S")
T = TypeVar("T")

AT_ONCE: Final = 16
"""Requests of one call that are under way together."""


async def for_each(items: Collection[S], job: Callable[[S], Awaitable[T]]) -> list[T]:
    """Return what `job` returns for each item, in their order.

    When one fails no further ones begin, and the error is raised once none is under way.
    """
    if len(items) < 2:
        return [await job(item) for item in items]
    todo = enumerate(items)
    done: dict[int, T] = {}
    failed = False

    async def work() -> None:
        nonlocal failed
        for place, item in todo:
            if failed:
                return
            try:
                done[place] = await job(item)
            except BaseException:
                failed = True
                raise

    workers = (work() for _ in range(min(AT_ONCE, len(items))))
    for result in await asyncio.gather(*workers, return_exceptions=True):
        if result is not None:
            raise result
    return [done[place] for place in range(len(items))]
