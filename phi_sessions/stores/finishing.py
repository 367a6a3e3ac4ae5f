"""Work that is awaited to its end, even when its caller is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["to_its_end"]

T = TypeVar("T")


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns. A cancellation is raised once the work is done.

    A request that was sent to a server cannot be taken back: leaving it would let it take effect
    after the call that made it has ended. What bounds the wait is the driver's own time limit.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    try:
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is None:
            return task.result()
        if not task.cancelled():
            task.exception()  # the cancellation is what the caller hears of
        raise cancelled
    finally:
        del task, cancelled  # what is raised holds this frame, and would by them hold itself
