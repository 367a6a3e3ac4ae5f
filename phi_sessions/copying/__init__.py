"""From one store to another: whole, in order, and again where it was interrupted."""

from .outcome import CopyFailure, CopyOutcome, CopyProgress, CopySummary
from .run import OnConflict, copy_sessions

__all__ = [
    "CopyFailure",
    "CopyOutcome",
    "CopyProgress",
    "CopySummary",
    "OnConflict",
    "copy_sessions",
]
