"""How long a call waits for a database that another holds, and how often it asks."""

from __future__ import annotations

import random
import time
from typing import Final

from ...errors import SessionLockedError

__all__ = ["Patience"]

_SHORTEST: Final = 0.0002
_LONGEST: Final = 0.01
_LONGEST_AT_LAST: Final = 0.002


class Patience:
    """One call's wait.

    The pauses are drawn at random, and are shorter the longer the call has waited: otherwise the
    one who has waited longest is the last to be served.
    """

    def __init__(self, timeout: float, session_id: str | None = None) -> None:
        self._timeout = timeout
        self._session_id = session_id
        self._begun = time.monotonic()

    @property
    def waited(self) -> float:
        """Seconds since the call began."""
        return time.monotonic() - self._begun

    @property
    def left(self) -> float:
        """Seconds that the call will wait still."""
        return max(self._timeout - self.waited, 0.0)

    def pause(self) -> float:
        """Return how many seconds to wait before asking again.

        Raises:
            SessionLockedError: Another has held the database for the whole time.
        """
        left = self.left
        if left <= 0:
            raise self.locked()
        longest = max(_LONGEST * left / self._timeout, _LONGEST_AT_LAST)
        return min(random.uniform(_SHORTEST, longest), left)  # noqa: S311 - no secret

    def locked(self) -> SessionLockedError:
        """Return the error that says that another has held what is wanted for too long."""
        return SessionLockedError(
            f"the database is held by another, waited {self.waited:.2f} s",
            session_id=self._session_id,
            waited=self.waited,
        )
