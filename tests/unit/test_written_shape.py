"""What is built here is written with exactly phi-core's keys, casing and omissions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from phi_sessions import (
    ApiProtocol,
    ChildLoopRef,
    CompactedSection,
    CompactionBlock,
    ContinuationKind,
    ContinuationTag,
    ExplicitFormation,
    FileSystemSessionStore,
    FirstLoopFormation,
    InactivityTimeoutFormation,
    LoopConfigSnapshot,
    LoopEvent,
    LoopRecord,
    LoopStatus,
    ParallelGroupRecord,
    Session,
    SessionFormation,
    SessionScope,
    SpawnRef,
    TaggedContinuation,
    ThinkingLevel,
    Timestamp,
    Turn,
    TurnId,
    TurnRange,
    TurnTrigger,
    Usage,
    save_session,
)

NOON = Timestamp.parse("2031-07-19T12:00:00Z")
NOON_TEXT = "2031-07-19T12:00:00Z"
NO_USAGE = {
    "input": 0,
    "output": 0,
    "reasoning": 0,
    "cache_read": 0,
    "cache_write": 0,
    "total_tokens": 0,
}
BARE_LOOP: dict[str, Any] = {
    "loop_id": "l",
    "session_id": "s",
    "agent_id": "a",
    "parent_loop_id": None,
    "continuation_kind": "Initial",
    "started_at": NOON_TEXT,
    "ended_at": None,
    "status": "Pending",
    "rejection": None,
    "config": None,
    "messages": [],
    "turns": [],
    "usage": NO_USAGE,
    "metadata": None,
    "events": [],
    "children_loop_ids": [],
    "child_loop_refs": [],
    "parallel_group": None,
}


async def written(store: FileSystemSessionStore, session: Session) -> dict[str, Any]:
    await store.save(session)
    (file,) = store.dir.glob("*.json")
    value = json.loads(file.read_bytes())
    assert value.pop("revision") == session.revision
    return value


async def written_loop(store: FileSystemSessionStore, **fields: Any) -> dict[str, Any]:
    record = LoopRecord("l", "s", "a", started_at=NOON, **fields)
    (loop,) = (await written(store, Session("s", "a", loops=[record])))["loops"]
    return loop


async def test_a_session_writes_all_its_keys_and_omits_empty_metadata(
    file_store: FileSystemSessionStore,
) -> None:
    session = Session(
        "s",
        "a",
        created_at=NOON,
        last_active_at=NOON,
        formation=SessionFormation.by_hand(NOON),
    )
    assert await written(file_store, session) == {
        "session_id": "s",
        "agent_id": "a",
        "created_at": NOON_TEXT,
        "last_active_at": NOON_TEXT,
        "formation": {"Explicit": {"timestamp": NOON_TEXT}},
        "parent_spawn_ref": None,
        "scope": "ephemeral",
        "loops": [],
    }
    session.metadata["title"] = "trip"
    session.scope = SessionScope.PERSISTENT
    session.parent_spawn_ref = SpawnRef("p", "p.1", "call", "ask")
    value = await written(file_store, session)
    assert value["metadata"] == {"title": "trip"}
    assert value["scope"] == "persistent"
    assert value["parent_spawn_ref"] == {
        "parent_session_id": "p",
        "parent_loop_id": "p.1",
        "tool_call_id": "call",
        "tool_name": "ask",
    }


@pytest.mark.parametrize(
    ("formation", "expected"),
    [
        (
            SessionFormation(explicit=ExplicitFormation(timestamp=NOON)),
            {"Explicit": {"timestamp": NOON_TEXT}},
        ),
        (
            SessionFormation(first_loop=FirstLoopFormation(timestamp=NOON)),
            {"FirstLoop": {"timestamp": NOON_TEXT}},
        ),
        (
            SessionFormation(
                inactivity_timeout=InactivityTimeoutFormation(
                    threshold_secs=2**64 - 1, timestamp=NOON
                )
            ),
            {
                "InactivityTimeout": {
                    "threshold_secs": 2**64 - 1,
                    "previous_session_id": None,
                    "timestamp": NOON_TEXT,
                }
            },
        ),
    ],
    ids=lambda value: value.kind if isinstance(value, SessionFormation) else "",
)
async def test_a_formation_is_one_object_under_its_name(
    formation: SessionFormation, expected: dict[str, Any], file_store: FileSystemSessionStore
) -> None:
    value = await written(file_store, Session("s", "a", formation=formation))
    assert value["formation"] == expected


async def test_a_bare_loop_record_writes_eighteen_keys(file_store: FileSystemSessionStore) -> None:
    loop = await written_loop(file_store)
    assert loop == BARE_LOOP
    assert len(loop) == 18


async def test_a_bare_loop_record_read_back_still_writes_eighteen_keys(
    file_store: FileSystemSessionStore,
) -> None:
    await written_loop(file_store)
    session = await file_store.load("s")
    assert session.loops[0].loop_id == "l"
    assert (await written(file_store, session))["loops"] == [BARE_LOOP]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (ContinuationKind.INITIAL, "Initial"),
        (ContinuationKind.DEFAULT, "Default"),
        (ContinuationKind.COMPACTION, "Compaction"),
        (TaggedContinuation(rerun=ContinuationTag("t")), {"Rerun": {"tag": "t"}}),
        (TaggedContinuation(branch=ContinuationTag("")), {"Branch": {"tag": ""}}),
    ],
)
async def test_continuation_kinds(
    kind: Any, expected: Any, file_store: FileSystemSessionStore
) -> None:
    loop = await written_loop(file_store, continuation_kind=kind)
    assert loop == BARE_LOOP | {"continuation_kind": expected}


@pytest.mark.parametrize("status", list(LoopStatus))
async def test_statuses_are_written_as_words(
    status: LoopStatus, file_store: FileSystemSessionStore
) -> None:
    loop = await written_loop(file_store, status=status)
    assert loop == BARE_LOOP | {"status": str(status)}


async def test_a_config_omits_what_is_not_known(file_store: FileSystemSessionStore) -> None:
    loop = await written_loop(file_store, config=LoopConfigSnapshot("m", "p"))
    assert loop["config"] == {"model": "m", "provider": "p", "config_id": None}
    full = LoopConfigSnapshot(
        "m",
        "p",
        config_id="c",
        name="n",
        api=ApiProtocol.OPEN_AI_COMPLETIONS,
        base_url="u",
        reasoning=False,
        context_window=2**32 - 1,
        max_tokens=0,
        thinking_level=ThinkingLevel.OFF,
        temperature=0.7,
    )
    loop = await written_loop(file_store, config=full)
    assert loop["config"] == {
        "model": "m",
        "provider": "p",
        "config_id": "c",
        "name": "n",
        "api": "open_ai_completions",
        "base_url": "u",
        "reasoning": False,
        "context_window": 2**32 - 1,
        "max_tokens": 0,
        "thinking_level": "off",
        "temperature": 0.7,
    }


async def test_turns_have_camel_case_ids_in_snake_case_keys(
    file_store: FileSystemSessionStore,
) -> None:
    message = {"role": "extension", "kind": "k", "data": None}
    bare = {
        "turn_id": {"loopId": "l", "turnIndex": 3},
        "triggered_by": "User",
        "usage": NO_USAGE,
        "input_messages": [],
        "output_message": message,
        "tool_results": [],
        "started_at": NOON_TEXT,
        "ended_at": NOON_TEXT,
    }
    turn = Turn(TurnId("l", 3), message, started_at=NOON, ended_at=NOON)
    full = Turn(
        TurnId("l", 4),
        message,
        [message],
        [message, message],
        triggered_by=TurnTrigger.SUB_AGENT,
        usage=Usage(1, 2, 3, 4, 5, 6),
        started_at=NOON,
        ended_at=NOON,
        request_payload={"model_id": "m"},
    )
    loop = await written_loop(file_store, turns=[turn, full])
    assert loop["turns"] == [
        bare,
        {
            "turn_id": {"loopId": "l", "turnIndex": 4},
            "triggered_by": "SubAgent",
            "usage": dict(zip(NO_USAGE, (1, 2, 3, 4, 5, 6), strict=True)),
            "input_messages": [message],
            "output_message": message,
            "tool_results": [message, message],
            "started_at": NOON_TEXT,
            "ended_at": NOON_TEXT,
            "request_payload": {"model_id": "m"},
        },
    ]


async def test_compaction_blocks_mix_cases_as_phi_core_does(
    file_store: FileSystemSessionStore,
) -> None:
    loop = await written_loop(file_store, compaction_block=CompactionBlock(created_at=NOON))
    assert loop["compaction_block"] == {"createdAt": NOON_TEXT}
    block = CompactionBlock(
        keep_first=TurnRange(0, 1),
        keep_recent=CompactedSection(TurnRange(8, 2**32 - 1)),
        keep_compacted=CompactedSection(TurnRange(2, 7), [{"role": "x"}]),
        created_at=NOON,
    )
    loop = await written_loop(file_store, compaction_block=block)
    assert loop["compaction_block"] == {
        "keep_first": {"startTurn": 0, "endTurn": 1},
        "keep_recent": {"range": {"startTurn": 8, "endTurn": 2**32 - 1}, "messages": []},
        "keep_compacted": {"range": {"startTurn": 2, "endTurn": 7}, "messages": [{"role": "x"}]},
        "createdAt": NOON_TEXT,
    }


async def test_links_and_events(file_store: FileSystemSessionStore) -> None:
    loop = await written_loop(
        file_store,
        child_loop_refs=[ChildLoopRef("call", "ask", "c.1", "c")],
        parallel_group=ParallelGroupRecord(["l", "r"], "r", 1),
        events=[LoopEvent(2**64 - 1, {"type": "Quiet"})],
        children_loop_ids=["c.1"],
    )
    assert loop == BARE_LOOP | {
        "child_loop_refs": [
            {
                "tool_call_id": "call",
                "tool_name": "ask",
                "child_loop_id": "c.1",
                "child_session_id": "c",
            }
        ],
        "parallel_group": {
            "all_loop_ids": ["l", "r"],
            "selected_loop_id": "r",
            "selected_config_index": 1,
            "evaluation_usage": NO_USAGE,
            "is_selected": False,
        },
        "events": [{"sequence": 2**64 - 1, "event": {"type": "Quiet"}}],
        "children_loop_ids": ["c.1"],
    }


def test_the_indented_layout_is_phi_cores_to_the_byte(tmp_path: Path) -> None:
    message = {"text": 'é"\\/\n\x01\x7f\u2028🜁', "numbers": [1, 1.0, -0.5, True, None], "no": {}}
    session = Session("s", "a", loops=[LoopRecord("l", "s", "a", messages=[message])])
    text = save_session(session, tmp_path).read_bytes()
    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False).encode()
    assert not text.endswith(b"\n")


async def test_the_revision_stands_before_the_loops(file_store: FileSystemSessionStore) -> None:
    await file_store.save(Session("s", "a", loops=[LoopRecord("l", "s", "a")]))
    keys = list(json.loads((file_store.dir / "s.json").read_bytes()))
    assert keys[0] == "session_id"
    assert keys[-2:] == ["revision", "loops"]
