"""Holding a session for a whole run: a power of its own, apart from storing."""

from __future__ import annotations

import os
import socket
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from typing import Self

import msgspec

from .timestamp import Timestamp

__all__ = ["Lease", "SupportsLease"]


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a session for a run.

    Attributes:
        session_id: The session.
        owner: A name that the holder gave itself.
        pid: Its process.
        host: Its machine.
        since: When it took the lease.
    """

    session_id: str
    owner: str
    pid: int
    host: str
    since: Timestamp

    @classmethod
    def of_this_process(cls, session_id: str, owner: str | None) -> Self:
        """Return a lease that begins now; the owner is the process by default."""
        pid, host = os.getpid(), socket.gethostname()
        name = f"{host}:{pid}" if owner is None else owner
        return cls(session_id=session_id, owner=name, pid=pid, host=host, since=Timestamp.utc_now())


class SupportsLease(ABC):
    """A store whose sessions can be held for a whole run."""

    @abstractmethod
    def lease(
        self, session_id: str, *, owner: str | None = None, timeout: float = 0.0
    ) -> AbstractAsyncContextManager[Lease]:
        """Hold the session against other leases: `async with store.lease("s-1"): ...`.

        A lease keeps other leases out, not loads or saves, which revisions protect. The session
        need not be stored. A holder that dies frees it.

        Args:
            session_id: Which session.
            owner: A name that a second holder is told; by default host and process.
            timeout: Seconds to wait while another holds it.

        Raises:
            SessionLockedError: Another holds it; `.holder` is its `Lease` where that is known.
            InvalidSessionIdError: The id can never name a session.
            SessionIOError: The storage failed.
            SessionTaskError: The store is closed.
        """
