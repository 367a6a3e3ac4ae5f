"""A session and all that it holds, with the names of phi-core 0.10.0.

Field names, tags and which keys are always written follow phi-core's JSON. Messages, events,
payloads and metadata are plain JSON objects here: see `phi_sessions.messages` for functions that
build and read them. Enumerations are open: a variant of a later phi-core loads and saves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NewType

from msgspec import field

from .formation import SessionFormation, SpawnRef
from .loops import Loops
from .record import F32, U32, U64, JSONObject, OneOf, OpenEnum, Record, always, empty
from .timestamp import Timestamp
from .turn import CompactionBlock, Turn, Usage

__all__ = [
    "ApiProtocol",
    "ChildLoopRef",
    "ContinuationKind",
    "ContinuationTag",
    "LoopConfigSnapshot",
    "LoopEvent",
    "LoopRecord",
    "LoopStatus",
    "ParallelGroupRecord",
    "Revision",
    "Session",
    "SessionScope",
    "TaggedContinuation",
    "ThinkingLevel",
]

Revision = NewType("Revision", str)
"""Names one stored state of one session. Compare for equality only."""


class SessionScope(OpenEnum):
    """Whether the agent meant the session for its process only, or to be kept."""

    EPHEMERAL = "ephemeral"
    PERSISTENT = "persistent"


class LoopStatus(OpenEnum):
    """How far a loop has come."""

    PENDING = "Pending"
    RUNNING = "Running"
    COMPLETED = "Completed"
    REJECTED = "Rejected"
    ABORTED = "Aborted"


class ContinuationKind(OpenEnum):
    """How a loop follows from its parent, where a word says it all."""

    INITIAL = "Initial"
    DEFAULT = "Default"
    COMPACTION = "Compaction"


class ContinuationTag(Record, kw_only=False):
    """The free text of a rerun or a branch; phi-core writes an RFC 3339 time."""

    tag: str


class TaggedContinuation(OneOf):
    """How a loop follows from its parent, where a tag goes with it: one of the two is set."""

    rerun: ContinuationTag | None = field(default=None, name="Rerun")
    branch: ContinuationTag | None = field(default=None, name="Branch")


class ThinkingLevel(OpenEnum):
    """How much the model was told to think."""

    OFF = "off"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class ApiProtocol(OpenEnum):
    """The wire protocol that a model was called with."""

    ANTHROPIC_MESSAGES = "anthropic_messages"
    OPEN_AI_COMPLETIONS = "open_ai_completions"
    OPEN_AI_RESPONSES = "open_ai_responses"
    AZURE_OPEN_AI_RESPONSES = "azure_open_ai_responses"
    GOOGLE_GENERATIVE_AI = "google_generative_ai"
    GOOGLE_VERTEX = "google_vertex"
    BEDROCK_CONVERSE_STREAM = "bedrock_converse_stream"


class LoopConfigSnapshot(Record, kw_only=False):
    """The model that ran a loop, without its secrets."""

    model: str
    provider: str
    config_id: str | None = always(None)
    name: str | None = None
    api: ApiProtocol | None = None
    base_url: str | None = None
    reasoning: bool | None = None
    context_window: U32 | None = None
    max_tokens: U32 | None = None
    thinking_level: ThinkingLevel | None = None
    temperature: F32 | None = None


class ChildLoopRef(Record, kw_only=False):
    """A link to a loop of another session that a tool call started."""

    tool_call_id: str
    tool_name: str
    child_loop_id: str
    child_session_id: str


class ParallelGroupRecord(Record, kw_only=False):
    """A loop's place among alternatives that ran side by side."""

    all_loop_ids: list[str]
    selected_loop_id: str
    selected_config_index: U64
    evaluation_usage: Usage = field(default_factory=Usage)
    is_selected: bool = always(False)


class LoopEvent(Record, kw_only=False):
    """One event of a loop.

    Attributes:
        sequence: Rises within the loop; gaps are events that were not recorded.
        event: The event as plain JSON, its kind under `"type"`.
    """

    sequence: U64
    event: JSONObject


class LoopRecord(Record, kw_only=False):
    """One run of an agent loop: made from its own, its session's and its agent's id.

    Attributes:
        messages: What the loop added to the conversation, as plain JSON.
        turns: One for each call of the model.
        events: All that happened, in order.
        metadata: Any JSON that the caller gave along.
    """

    loop_id: str
    session_id: str
    agent_id: str
    parent_loop_id: str | None = always(None)
    continuation_kind: ContinuationKind | TaggedContinuation | None = always(
        ContinuationKind.INITIAL
    )
    started_at: Timestamp = field(default_factory=Timestamp.utc_now)
    ended_at: Timestamp | None = always(None)
    status: LoopStatus = always(LoopStatus.PENDING)
    rejection: str | None = always(None)
    config: LoopConfigSnapshot | None = always(None)
    messages: list[JSONObject] = field(default_factory=empty)
    turns: list[Turn] = field(default_factory=empty)
    usage: Usage = field(default_factory=Usage)
    metadata: Any = always(None)
    events: list[LoopEvent] = field(default_factory=empty)
    children_loop_ids: list[str] = field(default_factory=empty)
    child_loop_refs: list[ChildLoopRef] = field(default_factory=empty)
    parallel_group: ParallelGroupRecord | None = always(None)
    compaction_block: CompactionBlock | None = None

    def get_turn(self, turn_index: int) -> Turn | None:
        """Return the turn at `turn_index`, from 0, or None."""
        return self.turns[turn_index] if 0 <= turn_index < len(self.turns) else None

    @property
    def turn_count(self) -> int:
        """How many turns are recorded."""
        return len(self.turns)

    def __repr__(self) -> str:
        return (
            f"LoopRecord({self.loop_id!r}, status={str(self.status)!r}, turns={len(self.turns)}, "
            f"messages={len(self.messages)}, events={len(self.events)})"
        )


class Session(Record, kw_only=False):
    """One conversation of one agent: `Session("s-1", "agent-1")`.

    Attributes:
        loops: The loop records, oldest first. Behaves as a list; records that came from a store
            are decoded when they are first looked at.
        metadata: JSON of the application's own, shown by listings; omitted when empty.
        revision: The stored state that this object came from or was last saved as; None for a
            session that was built by hand.
    """

    session_id: str
    agent_id: str
    created_at: Timestamp = field(default_factory=Timestamp.utc_now)
    last_active_at: Timestamp = field(default_factory=Timestamp.utc_now)
    formation: SessionFormation = field(default_factory=SessionFormation.by_hand)
    parent_spawn_ref: SpawnRef | None = always(None)
    scope: SessionScope = always(SessionScope.EPHEMERAL)
    metadata: JSONObject = {}
    loops: Loops[LoopRecord] = field(default_factory=Loops[LoopRecord])
    revision: Revision | None = None

    def __post_init__(self) -> None:
        self.loops = self.loops  # takes any iterable of records, see below

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "loops" and not isinstance(value, Loops):
            value = Loops[LoopRecord](value)
        super().__setattr__(name, value)

    def root_loops(self) -> list[LoopRecord]:
        """Return the loops that have no parent in this session."""
        ids = set(self.loops.ids())
        return [r for r in self.loops if r.parent_loop_id not in ids]

    def children_of(self, loop_id: str) -> list[LoopRecord]:
        """Return the loops that the loop `loop_id` names as its children."""
        parent = self.get_loop(loop_id)
        return self._named(parent.children_loop_ids if parent else ())

    def parallel_siblings(self, loop_id: str) -> list[LoopRecord]:
        """Return all loops of the parallel group of `loop_id`, itself included."""
        record = self.get_loop(loop_id)
        group = record.parallel_group if record else None
        return self._named(group.all_loop_ids if group else ())

    def get_loop(self, loop_id: str) -> LoopRecord | None:
        """Return the loop `loop_id`, or None."""
        return next(self._select({loop_id}), None)

    def loop_chain_to(self, target_loop_id: str) -> list[str]:
        """Return the ids from the root down to `target_loop_id`, following parents.

        The chain ends at a parent that is not in this session, which it names, or before it
        would come round to a loop a second time.
        """
        chain: list[str] = []
        current: str | None = target_loop_id
        while current is not None and current not in chain:
            chain.append(current)
            record = self.get_loop(current)
            current = record.parent_loop_id if record else None
        return chain[::-1]

    def total_usage(self) -> Usage:
        """Return the tokens of all loops together."""
        return sum((record.usage for record in self.loops), Usage())

    def all_messages(self) -> list[JSONObject]:
        """Return the messages of all loops, in order."""
        return [message for record in self.loops for message in record.messages]

    def _named(self, loop_ids: Iterable[str]) -> list[LoopRecord]:
        return list(self._select(set(loop_ids)))

    def _select(self, loop_ids: set[str]) -> Iterator[LoopRecord]:
        return (self.loops[i] for i, name in enumerate(self.loops.ids()) if name in loop_ids)

    def __repr__(self) -> str:
        return (
            f"Session({self.session_id!r}, {self.agent_id!r}, loops={len(self.loops)}, "
            f"revision={self.revision!r})"
        )
