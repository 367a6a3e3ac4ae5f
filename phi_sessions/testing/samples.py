"""Sessions to store, built by hand, and how two of them are compared."""

from __future__ import annotations

import json
from typing import Any

from .. import codec
from ..formation import FirstLoopFormation, InactivityTimeoutFormation, SessionFormation, SpawnRef
from ..loops import Loops
from ..model import (
    ApiProtocol,
    ChildLoopRef,
    ContinuationKind,
    ContinuationTag,
    LoopConfigSnapshot,
    LoopEvent,
    LoopRecord,
    LoopStatus,
    ParallelGroupRecord,
    Session,
    SessionScope,
    TaggedContinuation,
    ThinkingLevel,
)
from ..record import JSONObject, OneOf, Record
from ..timestamp import Timestamp
from ..turn import CompactedSection, CompactionBlock, Turn, TurnId, TurnRange, TurnTrigger, Usage
from .messages_of_all_kinds import contents, messages

__all__ = [
    "LARGEST",
    "a_loop",
    "a_session",
    "plain",
    "rich_session",
    "with_unknown_keys",
]

LARGEST = 2**64 - 1
"""The largest integer that the format holds."""

_USAGE = Usage(1, 2, 3, 4, 5, LARGEST)
_EARLY = Timestamp.parse("1969-12-31T23:59:59.999999999Z")
_EXACT = Timestamp.parse("2024-02-29T12:34:56.123456789Z")
_ELSEWHERE = Timestamp.parse("2024-03-01T00:00:00.000000001+02:00")


def a_loop(
    session_id: str, number: int = 0, *, agent_id: str = "agent", text: str = ""
) -> LoopRecord:
    """Return a loop record with a turn, messages and usage; its metadata is its number."""
    loop_id = f"loop.{number}"
    reply: JSONObject = {
        "role": "assistant",
        "content": [{"type": "text", "text": text or f"reply {number}"}],
    }
    return LoopRecord(
        loop_id,
        session_id,
        agent_id,
        status=LoopStatus.COMPLETED,
        messages=[{"role": "user", "content": f"question {number}"}, reply],
        turns=[Turn(TurnId(loop_id, 0), reply, usage=Usage(input=number, output=1))],
        usage=Usage(input=number, output=1, total_tokens=number + 1),
        metadata={"number": number},
    )


def a_session(session_id: str, agent_id: str, *, loops: int = 1, **fields: Any) -> Session:
    """Return a session built by hand, its loops numbered from 0."""
    records = [a_loop(session_id, number, agent_id=agent_id) for number in range(loops)]
    return Session(session_id, agent_id, loops=Loops(records), **fields)


def rich_session(session_id: str, agent_id: str, *, formation: int = 0) -> Session:
    """Return a session in which every field of the model is set, every variant somewhere.

    There are three ways in which a session is formed, 0 to 2.
    """
    formations = [
        SessionFormation.by_hand(_EXACT),
        SessionFormation(first_loop=FirstLoopFormation(timestamp=_EARLY)),
        SessionFormation(
            inactivity_timeout=InactivityTimeoutFormation(
                threshold_secs=LARGEST, previous_session_id="before", timestamp=_ELSEWHERE
            )
        ),
    ]
    return Session(
        session_id,
        agent_id,
        created_at=_EXACT,
        last_active_at=_ELSEWHERE,
        formation=formations[formation],
        parent_spawn_ref=SpawnRef("parent", "parent.1", "call-7", "ask_colleague"),
        scope=SessionScope.PERSISTENT,
        metadata={"title": "größe \u2028 \U0001f600", "n": LARGEST, "f": 0.1, "none": None},
        loops=Loops(_loops(session_id, agent_id)),
    )


def _loops(session_id: str, agent_id: str) -> list[LoopRecord]:
    kinds: list[ContinuationKind | TaggedContinuation | None] = [
        *ContinuationKind,
        TaggedContinuation(rerun=ContinuationTag("2031-07-19T04:05:06.070809+00:00")),
        TaggedContinuation(branch=ContinuationTag("try the other parser")),
        None,
    ]
    statuses, levels = list(LoopStatus), list(ThinkingLevel)
    metadata: list[Any] = [None, {}, [], "text", False, 0.5, {"deep": [{"a": [None]}]}]
    loops: list[LoopRecord] = []
    for n, api in enumerate(ApiProtocol):
        loop_id = f"main.{n}"
        loops.append(
            LoopRecord(
                loop_id,
                session_id,
                agent_id,
                parent_loop_id=None if n == 0 else f"main.{n - 1}",
                continuation_kind=kinds[n % len(kinds)],
                started_at=_EXACT,
                ended_at=None if n == 0 else _ELSEWHERE,
                status=statuses[n % len(statuses)],
                rejection="too \x00 long\n" if n == 3 else None,
                config=_config(api, levels[n % len(levels)]),
                messages=messages(n),
                turns=[_turn(loop_id, index, kind) for index, kind in enumerate(TurnTrigger)],
                usage=_USAGE,
                metadata=metadata[n],
                events=_events(loop_id),
                children_loop_ids=["main.0", "elsewhere"],
                child_loop_refs=[ChildLoopRef("call-7", "ask_colleague", "child.1", "child")],
                parallel_group=ParallelGroupRecord(["a", "b"], "b", LARGEST, _USAGE, n == 1),
                compaction_block=_compaction() if n % 2 else CompactionBlock(created_at=_EARLY),
            )
        )
    return loops


def _config(api: ApiProtocol, level: ThinkingLevel) -> LoopConfigSnapshot:
    return LoopConfigSnapshot(
        "opus-4",
        "acme",
        config_id="nightly",
        name="",
        api=api,
        base_url="https://models.example/v2?a=b&c=%20",
        reasoning=False,
        context_window=2**32 - 1,
        max_tokens=0,
        thinking_level=level,
        temperature=0.25,
    )


def _turn(loop_id: str, index: int, trigger: TurnTrigger) -> Turn:
    said = messages(index)
    return Turn(
        TurnId(loop_id, index),
        said[1],
        input_messages=said[:1],
        tool_results=said[2:3],
        triggered_by=trigger,
        usage=_USAGE,
        started_at=_EXACT,
        ended_at=_ELSEWHERE,
        request_payload={"system_prompt": "…", "messages": said, "max_tokens": None},
    )


def _events(loop_id: str) -> list[LoopEvent]:
    return [
        LoopEvent(0, {"type": "TurnStart", "loop_id": loop_id, "turn_index": 0}),
        LoopEvent(7, {"type": "MessageEnd", "loop_id": loop_id, "message": contents()[0]}),
        LoopEvent(LARGEST, {"type": "OfALaterVersion", "amount": 12.5, "by": {"who": [None]}}),
    ]


def _compaction() -> CompactionBlock:
    section = CompactedSection(TurnRange(2, 2**32 - 1), messages(0)[:2])
    return CompactionBlock(
        keep_first=TurnRange(0, 1),
        keep_recent=CompactedSection(TurnRange(9, 9)),
        keep_compacted=section,
        created_at=_EXACT,
    )


def with_unknown_keys(session: Session) -> Session:
    """Return the session after adding keys of a later version to each of its records."""
    todo: list[Any] = [session]
    while todo:
        value = todo.pop()
        if isinstance(value, Record):
            value.extra = {"added_later": [1, {"deep": 2.0}], "Ünknown": None, "~extra": {"k": 0}}
            todo += [
                getattr(value, name)
                for name in value.__struct_fields__
                if name not in ("extra", "revision")
            ]
            if isinstance(value, OneOf):
                value.extra = {}  # a key beside the choice would be a second choice
        elif not isinstance(value, str | bytes | dict) and hasattr(value, "__iter__"):
            todo += list(value)
    return session


def plain(session: Session) -> JSONObject:
    """Return all of a session but its revision as plain JSON."""
    head: JSONObject = json.loads(codec.encode_head(session))
    head["loops"] = [json.loads(record.text) for record in codec.encode_records(session)]
    return head
