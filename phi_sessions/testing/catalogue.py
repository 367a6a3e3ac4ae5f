"""All checks, theme by theme."""

from __future__ import annotations

from typing import Final

from .check import Check
from .checks import (
    appending,
    cancelling,
    changing_listings,
    closing,
    event_loops,
    finding,
    hostile_content,
    identifiers,
    isolation,
    killed_writers,
    leasing,
    listing,
    many_tasks,
    preconditions,
    processes,
    pruning,
    refusing,
    restarting,
    round_trips,
    telling,
    updating,
)

__all__ = ["CHECKS"]

_THEMES: Final = (
    round_trips,
    preconditions,
    finding,
    refusing,
    telling,
    identifiers,
    hostile_content,
    isolation,
    listing,
    changing_listings,
    pruning,
    updating,
    appending,
    many_tasks,
    cancelling,
    leasing,
    closing,
    restarting,
    event_loops,
    processes,
    killed_writers,
)

CHECKS: Final[tuple[Check, ...]] = tuple(
    value for theme in _THEMES for value in vars(theme).values() if isinstance(value, Check)
)
"""Every check, in the order in which they are made: the simple ones first."""
