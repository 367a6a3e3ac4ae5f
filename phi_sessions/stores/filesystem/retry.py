"""When to try again, and when to give up: the same answer for tasks and for threads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from ..flock import Contended
from ..patience import Patience
from .state import Stamp, Unsettled

__all__ = ["Retry", "TryAgain", "insist"]

T = TypeVar("T")

TryAgain = (Contended, Unsettled)
"""What a job raises that may succeed a little later."""

_SETTLING: Final = 0.05
_SETTLED_AFTER: Final = 2.0


class Retry(Patience):
    """One caller's attempts at one session.

    Args:
        session_id: The session.
        timeout: Seconds to wait while another holds its lock.
        interval: The longest pause between two attempts, in seconds.
    """

    def __init__(self, session_id: str, *, timeout: float, interval: float) -> None:
        super().__init__(timeout, session_id, longest=interval)
        self._seen: Stamp | None = None

    def pause_after(self, reason: Exception) -> float:
        """Return how many seconds to wait before the next attempt.

        Raises:
            SessionLockedError: The lock was held for `timeout` seconds.
            SessionCorruptError: The file is damaged, and nobody is writing to it.
        """
        if not isinstance(reason, Unsettled):
            return self.pause(reason)
        if reason.stamp == self._seen or self.waited > max(self._seconds, _SETTLED_AFTER):
            raise reason.error from reason.error.__cause__
        self._seen = reason.stamp
        return _SETTLING


async def insist(retry: Retry, attempt: Callable[[], Awaitable[T]]) -> T:
    """Return what `attempt` gives, made again for as long as `retry` allows.

    Raises:
        SessionLockedError, SessionCorruptError: As `Retry.pause_after`.
    """
    while True:
        try:
            return await attempt()
        except TryAgain as reason:
            pause = retry.pause_after(reason)
        await asyncio.sleep(pause)
