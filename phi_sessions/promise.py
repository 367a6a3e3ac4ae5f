"""What a store may be unable to promise, as values that programs and tests can ask for."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Promise"]


class Promise(StrEnum):
    """A promise that depends on where a store keeps its sessions.

    All else that `SessionStore` says holds for every store.
    """

    PROCESSES = "processes"
    """Any number of processes of one machine may share the sessions."""

    HOSTS = "hosts"
    """Any number of machines may share the sessions."""

    RESTART = "restart"
    """What was acknowledged outlives the processes, killed or not, that stored it."""

    POWER_LOSS = "power loss"
    """What was acknowledged outlives a power cut where it is kept."""
