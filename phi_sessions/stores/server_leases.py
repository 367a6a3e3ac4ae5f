"""Leases that a server keeps: who waits for one in this process, and how often it asks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from ..errors import SessionLockedError
from ..lease import Lease
from .finishing import to_its_end
from .patience import Patience
from .turnstile import Turnstile

__all__ = ["Held", "in_line", "until_given"]


class Held(NamedTuple):
    """Another has the lease.

    Attributes:
        by: Who; None if that is not known.
    """

    by: Lease | None


@asynccontextmanager
async def in_line(
    line: Turnstile,
    session_id: str,
    patience: Patience,
    holder_of: Callable[[str], Awaitable[Lease | None]],
) -> AsyncGenerator[None]:
    """Stand at the head of this process's line for a lease: nobody else in it asks the server.

    Raises:
        SessionLockedError: Those before did not leave in time; it tells what `holder_of` does.
    """
    try:
        turn = await line.enter(session_id, patience)
    except SessionLockedError as error:
        raise patience.locked(await holder_of(session_id)) from error
    try:
        yield
    finally:
        line.leave(session_id, turn)


async def until_given(
    take: Callable[[], Coroutine[Any, Any, Held | None]],
    patience: Patience,
    *,
    first: float,
    longest: float,
) -> None:
    """Take a lease, as often as it takes; each attempt is made to its end.

    Args:
        take: Takes it, and returns None; or says that another has it.
        patience: How long.
        first: About how many seconds to wait after the first attempt; the pauses grow.
        longest: The longest pause.

    Raises:
        SessionLockedError: Another has had it for too long.
    """
    pause = first
    while (held := await to_its_end(take())) is not None:
        if patience.left <= 0:
            raise patience.locked(held.by)
        await asyncio.sleep(min(pause * random.uniform(0.5, 1), patience.left))  # noqa: S311 - no secret
        pause = min(pause * 2, longest)
