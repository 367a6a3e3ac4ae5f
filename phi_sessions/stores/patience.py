"""How long a caller waits for what another holds, and how often it asks."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, Self

from ..errors import SessionLockedError
from ..lease import Lease

__all__ = ["Patience"]

_SHORTEST: Final = 0.0002
_LONGEST: Final = 0.01
_LONGEST_AT_LAST: Final = 0.002


class Patience:
    """One caller's wait.

    Args:
        seconds: How long it may last.
        session_id: The session that is waited for, if it is one.
        reason: What the error is to say; by default that another writer holds the session.
        longest: The longest pause between two attempts, in seconds.

    Raises:
        ValueError: A time is not a number: that wait would never be over.
    """

    def __init__(
        self,
        seconds: float,
        session_id: str | None,
        reason: str | None = None,
        *,
        longest: float = _LONGEST,
    ) -> None:
        if math.isnan(seconds) or math.isnan(longest):
            raise ValueError("nobody can wait for a time that is not a number")
        self._seconds = seconds
        self._session_id = session_id
        self._reason = reason
        self._longest = min(longest, _LONGEST)
        self._begun = time.monotonic()

    @classmethod
    def for_lease(cls, seconds: float, session_id: str, *, longest: float = _LONGEST) -> Self:
        """Return the patience of one who wants a lease that another may hold."""
        reason = f"session {session_id!r} is leased by another"
        return cls(seconds, session_id, reason, longest=longest)

    @contextmanager
    def at_rest(self) -> Generator[None]:
        """Take what is done meanwhile for no wait: encoding may take long on a busy loop."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._begun += time.monotonic() - begun

    @property
    def waited(self) -> float:
        """Seconds since the call began, save for those at rest."""
        return time.monotonic() - self._begun

    @property
    def left(self) -> float:
        """Seconds that the call will wait still."""
        return max(self._seconds - self.waited, 0.0)

    def pause(self, cause: Exception | None = None) -> float:
        """Return how many seconds to wait before asking again, which `cause` is the reason for.

        The pauses are drawn at random, and are shorter the longer the caller has waited: with one
        fixed interval the oldest waiter is served last, and with a long one the lock lies idle.

        Raises:
            SessionLockedError: It is over.
        """
        left = self.left
        if left <= 0:
            raise self.locked() from cause
        share = 1.0 if math.isinf(left) else left / self._seconds
        longest = max(self._longest * share, _LONGEST_AT_LAST)
        return min(random.uniform(_SHORTEST, longest), left)  # noqa: S311 - no secret

    def locked(self, holder: Lease | None = None) -> SessionLockedError:
        """Return the error that says that another has held what is wanted for too long."""
        reason = self._reason or f"session {self._session_id!r} is held by another writer"
        if holder is not None:
            reason = f"session {self._session_id!r} is leased by {holder.owner}"
        waited = self.waited
        return SessionLockedError(
            f"{reason}, waited {waited:.2f} s",
            session_id=self._session_id,
            waited=waited,
            holder=holder,
        )
