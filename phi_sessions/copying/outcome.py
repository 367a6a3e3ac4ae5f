"""What became of the sessions that were to be copied."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from ..errors import SessionError

__all__ = ["CopyFailure", "CopyOutcome", "CopyProgress", "CopySummary"]


class CopyOutcome(StrEnum):
    """What became of one session."""

    COPIED = "copied"
    """It was not in the target, and now is."""

    REPLACED = "replaced"
    """It differed in the target, and was replaced."""

    EQUAL = "equal"
    """It was in the target already; nothing was written."""

    SKIPPED = "skipped"
    """It differs in the target, and was left as it is."""

    GONE = "gone"
    """It was deleted from the source meanwhile, or became another agent's who was not asked for."""

    FAILED = "failed"
    """It could not be copied."""


class CopyFailure(msgspec.Struct, frozen=True):
    """A session that could not be copied, and why."""

    session_id: str
    error: SessionError


class _Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many sessions came to which outcome."""

    copied: int = 0
    replaced: int = 0
    equal: int = 0
    skipped: int = 0
    gone: int = 0
    failed: int = 0


class CopyProgress(_Counts, frozen=True, kw_only=True):
    """One more session is done; the counts of all so far, by outcome, are fields, too.

    Attributes:
        session_id: The session.
        outcome: What became of it.
        error: Why it failed, if it did.
        done: How many are done.
        total: How many there are to do.
    """

    session_id: str
    outcome: CopyOutcome
    error: SessionError | None = None
    done: int
    total: int


class CopySummary(_Counts, frozen=True, kw_only=True):
    """What became of all sessions: a count for each outcome.

    Attributes:
        failures: Those that could not be copied.
    """

    failures: list[CopyFailure] = []
