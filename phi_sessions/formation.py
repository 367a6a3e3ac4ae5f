"""How a session began, with the names of phi-core 0.10.0."""

from __future__ import annotations

from msgspec import field

from .record import U64, OneOf, Record, always
from .timestamp import Timestamp

__all__ = [
    "ExplicitFormation",
    "FirstLoopFormation",
    "InactivityTimeoutFormation",
    "SessionFormation",
    "SpawnRef",
]


class ExplicitFormation(Record):
    """The session was built by hand."""

    timestamp: Timestamp = field(default_factory=Timestamp.utc_now)


class FirstLoopFormation(Record):
    """The session was opened by its first loop."""

    timestamp: Timestamp = field(default_factory=Timestamp.utc_now)


class InactivityTimeoutFormation(Record):
    """The session was opened because the one before had been idle too long.

    Attributes:
        threshold_secs: The idle time that opens a new session, in seconds.
        previous_session_id: The session that went before, if known.
    """

    threshold_secs: U64
    previous_session_id: str | None = always(None)
    timestamp: Timestamp = field(default_factory=Timestamp.utc_now)


class SessionFormation(OneOf):
    """How a session began: exactly one of the three is set."""

    explicit: ExplicitFormation | None = field(default=None, name="Explicit")
    first_loop: FirstLoopFormation | None = field(default=None, name="FirstLoop")
    inactivity_timeout: InactivityTimeoutFormation | None = field(
        default=None, name="InactivityTimeout"
    )

    @classmethod
    def by_hand(cls, timestamp: Timestamp | None = None) -> SessionFormation:
        """Return the formation of a session that is built by hand, now by default."""
        return cls(explicit=ExplicitFormation(timestamp=timestamp or Timestamp.utc_now()))

    @property
    def kind(self) -> str:
        """`"Explicit"`, `"FirstLoop"`, `"InactivityTimeout"`, or a later version's name."""
        if self.explicit is not None:
            return "Explicit"
        if self.first_loop is not None:
            return "FirstLoop"
        return "InactivityTimeout" if self.inactivity_timeout else next(iter(self.extra), "")


class SpawnRef(Record, kw_only=False):
    """Where a sub-agent's session was started from; all four are ids or names."""

    parent_session_id: str
    parent_loop_id: str
    tool_call_id: str
    tool_name: str
