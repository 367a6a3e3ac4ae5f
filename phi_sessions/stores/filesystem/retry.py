"""When to try again, and when to give up: the same answer for tasks and for threads."""

from __future__ import annotations

import random
import time
from typing import Final

from ...errors import SessionLockedError
from ..flock import Contended
from .reader import Stamp, Unsettled

__all__ = ["Retry", "TryAgain"]

TryAgain = (Contended, Unsettled)
"""What a job raises that may succeed a little later."""

_SHORTEST: Final = 0.0002
_LONGEST: Final = 0.01
_LONGEST_AT_LAST: Final = 0.002
_SETTLING: Final = 0.05
_SETTLED_AFTER: Final = 2.0


class Retry:
    """One caller's attempts at one session.

    The pauses are drawn at random, and are shorter the longer the caller has waited: with one
    fixed interval the oldest waiter lands last, and with a long one the lock lies idle.
    """

    def __init__(self, session_id: str, *, timeout: float, interval: float) -> None:
        self._session_id = session_id
        self._timeout = timeout
        self._interval = interval
        self._begun = time.monotonic()
        self._seen: Stamp | None = None

    @property
    def waited(self) -> float:
        """Seconds since the first attempt."""
        return time.monotonic() - self._begun

    def pause(self, reason: Exception) -> float:
        """Return how many seconds to wait before the next attempt.

        Raises:
            SessionLockedError: The lock was held for `timeout` seconds.
            SessionCorruptError: The file is damaged, and nobody is writing to it.
        """
        left = self._timeout - self.waited
        if isinstance(reason, Unsettled):
            if reason.stamp == self._seen or self.waited > max(self._timeout, _SETTLED_AFTER):
                raise reason.error from reason.error.__cause__
            self._seen = reason.stamp
            return _SETTLING
        if left <= 0:
            raise self.locked() from reason
        longest = min(self._interval, _LONGEST) * left / self._timeout
        spread = random.uniform(_SHORTEST, max(longest, _LONGEST_AT_LAST))  # noqa: S311 - no secret
        return min(spread, left)

    def locked(self) -> SessionLockedError:
        """Return the error that says that the session could not be had."""
        return SessionLockedError(
            f"session {self._session_id!r} is held by another writer, waited {self.waited:.2f} s",
            session_id=self._session_id,
            waited=self.waited,
        )
