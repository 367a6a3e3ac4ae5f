"""Calls of the model, what they cost, and ranges of them, with the names of phi-core 0.10.0."""

from __future__ import annotations

from datetime import timedelta

from msgspec import field

from .record import U32, U64, JSONObject, OpenEnum, Record, always, empty
from .timestamp import Timestamp

__all__ = [
    "CompactedSection",
    "CompactionBlock",
    "Turn",
    "TurnId",
    "TurnRange",
    "TurnTrigger",
    "Usage",
]


class Usage(Record, kw_only=False):
    """Tokens that were spent; two usages can be added."""

    input: U64 = always(0)
    output: U64 = always(0)
    reasoning: U64 = always(0)
    cache_read: U64 = always(0)
    cache_write: U64 = always(0)
    total_tokens: U64 = always(0)

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input + other.input,
            self.output + other.output,
            self.reasoning + other.reasoning,
            self.cache_read + other.cache_read,
            self.cache_write + other.cache_write,
            self.total_tokens + other.total_tokens,
        )


class TurnTrigger(OpenEnum):
    """What made a turn begin."""

    USER = "User"
    SUB_AGENT = "SubAgent"
    CONTINUATION = "Continuation"
    FOLLOW_UP = "FollowUp"
    BRANCH = "Branch"


class TurnId(Record, kw_only=False, rename="camel"):
    """A turn's loop and its place in it, from 0."""

    loop_id: str
    turn_index: U32


class Turn(Record, kw_only=False):
    """One call of the model and the tools that it led to. Messages are plain JSON."""

    turn_id: TurnId
    output_message: JSONObject
    input_messages: list[JSONObject] = field(default_factory=empty)
    tool_results: list[JSONObject] = field(default_factory=empty)
    triggered_by: TurnTrigger = always(TurnTrigger.USER)
    usage: Usage = field(default_factory=Usage)
    started_at: Timestamp = field(default_factory=Timestamp.utc_now)
    ended_at: Timestamp = field(default_factory=Timestamp.utc_now)
    request_payload: JSONObject | None = None

    @property
    def index(self) -> int:
        """The turn's place in its loop, from 0."""
        return self.turn_id.turn_index

    @property
    def duration(self) -> timedelta:
        """From the turn's start to its end."""
        return self.ended_at - self.started_at

    @property
    def has_tool_calls(self) -> bool:
        """Whether a tool ran in this turn."""
        return bool(self.tool_results)

    def all_messages(self) -> list[JSONObject]:
        """Return the messages in the order in which they came: input, output, tool results."""
        return [*self.input_messages, self.output_message, *self.tool_results]


class TurnRange(Record, kw_only=False, rename="camel"):
    """Turns from `start_turn` to `end_turn`, both included."""

    start_turn: U32
    end_turn: U32


class CompactedSection(Record, kw_only=False):
    """What stands for a range of turns after compaction."""

    range: TurnRange
    messages: list[JSONObject] = field(default_factory=empty)


class CompactionBlock(Record):
    """A shorter reading of a loop's messages, laid over them; the messages stay."""

    keep_first: TurnRange | None = None
    keep_recent: CompactedSection | None = None
    keep_compacted: CompactedSection | None = None
    created_at: Timestamp = field(default_factory=Timestamp.utc_now, name="createdAt")
