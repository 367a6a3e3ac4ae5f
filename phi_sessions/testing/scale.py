"""How much the checks do, and how long they wait."""

from __future__ import annotations

import msgspec

__all__ = ["Scale"]


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """Counts and times of the checks; more of them find more.

    Attributes:
        tasks: Tasks that work at once.
        rounds: What each task or process does, so many times.
        processes: Child processes that work at once.
        kills: Child processes that are killed in the middle of their work.
        sessions: Sessions that a listing is watched over.
        cancels: Places at which each kind of call is cancelled, at the most.
        large: Bytes of the large session.
        promptly: Seconds within which a call that nothing hinders has to end.
        lease_expiry: Seconds after which the lease of a killed process has to be free.
        stall: Seconds that the event loop may stand still for.
        settling: Seconds after which what a store has left running has taken effect.
        check_timeout: Seconds after which a check that has not ended is broken.
    """

    tasks: int = 8
    rounds: int = 10
    processes: int = 8
    kills: int = 3
    sessions: int = 30
    cancels: int = 24
    large: int = 1_000_000
    promptly: float = 5.0
    lease_expiry: float = 60.0
    stall: float = 0.1
    settling: float = 0.15
    check_timeout: float = 120.0
