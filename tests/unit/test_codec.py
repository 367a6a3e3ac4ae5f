"""Nothing is lost between file and object, and what must be there is asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from codec_samples import USAGE, assert_damaged, at, document, put_file, read_file

from phi_sessions import FileSystemSessionStore, LoopStatus, Session
from phi_sessions.codec import decode_head, encode_head

NEW: dict[str, Any] = {
    "added_later": [1, 2.0, {"deep": None}],
    "~extra": {"~extra": 1},
    "ключ": "🜁",
    "extra": "not the attribute",
    "": 0,
}
RECORDS = {
    "session": (),
    "formation": ("formation",),
    "explicit formation": ("formation", "Explicit"),
    "spawn ref": ("parent_spawn_ref",),
    "loop": ("loops", 0),
    "continuation": ("loops", 0, "continuation_kind"),
    "continuation tag": ("loops", 0, "continuation_kind", "Branch"),
    "config": ("loops", 0, "config"),
    "turn": ("loops", 0, "turns", 0),
    "turn id": ("loops", 0, "turns", 0, "turn_id"),
    "usage of a turn": ("loops", 0, "turns", 0, "usage"),
    "usage": ("loops", 0, "usage"),
    "event": ("loops", 0, "events", 0),
    "child ref": ("loops", 0, "child_loop_refs", 0),
    "parallel group": ("loops", 0, "parallel_group"),
    "evaluation usage": ("loops", 0, "parallel_group", "evaluation_usage"),
    "compaction block": ("loops", 0, "compaction_block"),
    "compacted section": ("loops", 0, "compaction_block", "keep_recent"),
    "turn range": ("loops", 0, "compaction_block", "keep_recent", "range"),
    "first range": ("loops", 0, "compaction_block", "keep_first"),
    # plain JSON to the store
    "metadata": ("metadata",),
    "loop metadata": ("loops", 0, "metadata"),
    "message": ("loops", 0, "messages", 0),
    "event payload": ("loops", 0, "events", 0, "event"),
    "turn message": ("loops", 0, "turns", 0, "output_message"),
    "request payload": ("loops", 0, "turns", 0, "request_payload"),
    "compacted message": ("loops", 0, "compaction_block", "keep_recent", "messages", 0),
}


# Unknown keys -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", RECORDS.values(), ids=RECORDS.keys())
async def test_unknown_keys_of_every_record_survive(
    path: tuple[Any, ...], file_store: FileSystemSessionStore
) -> None:
    expected = document()
    at(expected, path).update(NEW)
    file = put_file(file_store, json.dumps(expected))
    session = await file_store.load("s")
    await file_store.save(session)
    assert read_file(file) == expected
    assert [record.loop_id for record in session.loops] == ["l"]
    await file_store.save(session)
    assert read_file(file) == expected
    session.loops[0].status = LoopStatus.COMPLETED
    session.metadata["changed"] = True
    await file_store.save(session)
    expected["loops"][0]["status"] = "Completed"
    expected["metadata"]["changed"] = True
    assert read_file(file) == expected


async def test_unknown_keys_are_shown_under_extra(file_store: FileSystemSessionStore) -> None:
    value = document()
    for path in RECORDS.values():
        at(value, path).update(NEW)
    file = put_file(file_store, json.dumps(value))
    session = await file_store.load("s")
    loop = session.loops[0]
    assert loop.config is not None
    assert loop.compaction_block is not None
    assert loop.compaction_block.keep_first is not None
    for record in (session, session.formation, loop, loop.usage, loop.turns[0], loop.config):
        assert record.extra == NEW
    assert loop.turns[0].turn_id.extra == NEW
    assert loop.compaction_block.keep_first.extra == NEW
    assert loop.metadata == {"k": 1} | NEW
    await file_store.save(session)
    assert read_file(file) == value


async def test_an_unknown_key_can_be_added_changed_and_removed(
    file_store: FileSystemSessionStore,
) -> None:
    value = document()
    value["loops"][0]["usage"] |= {"audio": 5, "video": 6}
    file = put_file(file_store, json.dumps(value))
    session = await file_store.load("s")
    usage = session.loops[0].usage
    usage.extra["audio"] += 1
    del usage.extra["video"]
    usage.extra["image"] = 7
    session.extra["new"] = {"a": 1}
    await file_store.save(session)
    value["loops"][0]["usage"] = USAGE | {"audio": 6, "image": 7}
    assert read_file(file) == value | {"new": {"a": 1}}


@pytest.mark.parametrize("path", RECORDS.values(), ids=RECORDS.keys())
@pytest.mark.parametrize("key", ["~extra", "\\u007eextra", "~ext\\u0072a"])
async def test_a_key_that_is_spelt_as_our_own_mark_survives(
    path: tuple[Any, ...], key: str, file_store: FileSystemSessionStore
) -> None:
    for inner in ({"status": "Aborted", "loop_id": 9}, [1], None, "text"):
        expected = document()
        at(expected, path)["~extra"] = inner
        file = put_file(file_store, json.dumps(expected).replace("~extra", key))
        session = await file_store.load("s")
        assert session.loops[0].turn_count == 1
        await file_store.save(session)
        assert read_file(file) == expected


# Required, null and missing -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ((), "scope"),
        ((), "formation"),
        ((), "loops"),
        (("loops", 0), "turns"),
        (("loops", 0), "usage"),
        (("loops", 0), "messages"),
        (("loops", 0), "events"),
        (("loops", 0), "status"),
        (("loops", 0), "started_at"),
        (("loops", 0), "children_loop_ids"),
        (("loops", 0, "usage"), "input"),
        (("loops", 0, "usage"), "reasoning"),
        (("loops", 0, "usage"), "cache_read"),
        (("loops", 0, "usage"), "cache_write"),
        (("loops", 0, "usage"), "total_tokens"),
        (("loops", 0, "turns", 0), "turn_id"),
        (("loops", 0, "turns", 0), "output_message"),
        (("loops", 0, "compaction_block"), "createdAt"),
        (("loops", 0, "config"), "model"),
    ],
)
async def test_null_is_damage_where_a_value_must_be(
    path: tuple[Any, ...], key: str, file_store: FileSystemSessionStore
) -> None:
    value = document()
    at(value, path)[key] = None
    await assert_damaged(file_store, json.dumps(value))


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ((), "session_id"),
        ((), "agent_id"),
        ((), "created_at"),
        ((), "last_active_at"),
        ((), "formation"),
        ((), "loops"),
        (("loops", 0), "loop_id"),
        (("loops", 0), "session_id"),
        (("loops", 0), "agent_id"),
        (("loops", 0, "turns", 0), "turn_id"),
        (("loops", 0, "turns", 0), "output_message"),
        (("loops", 0, "turns", 0, "turn_id"), "turnIndex"),
        (("loops", 0, "events", 0), "sequence"),
        (("loops", 0, "events", 0), "event"),
        (("loops", 0, "config"), "model"),
        (("loops", 0, "compaction_block", "keep_recent"), "range"),
        (("loops", 0, "child_loop_refs", 0), "child_session_id"),
    ],
)
async def test_a_missing_key_is_damage_where_nothing_can_stand_for_it(
    path: tuple[Any, ...], key: str, file_store: FileSystemSessionStore
) -> None:
    value = document()
    del at(value, path)[key]
    await assert_damaged(file_store, json.dumps(value))


async def test_keys_that_phi_core_may_leave_out_have_its_defaults(
    file_store: FileSystemSessionStore,
) -> None:
    value = document()
    loop = value["loops"][0]
    for key in ("parent_loop_id", "continuation_kind", "ended_at", "rejection", "config"):
        del loop[key]
    for key in ("turns", "metadata", "parallel_group", "compaction_block"):
        del loop[key]
    loop["usage"] = {"input": 1, "output": 2}
    for key in ("parent_spawn_ref", "scope", "metadata"):
        del value[key]
    put_file(file_store, json.dumps(value))
    session = await file_store.load("s")
    record = session.loops[0]
    assert str(session.scope) == "ephemeral"
    assert session.parent_spawn_ref is None
    assert record.continuation_kind == "Initial"
    assert (record.turns, record.metadata, record.config) == ([], None, None)
    assert (record.usage.input, record.usage.output, record.usage.reasoning) == (1, 2, 0)


async def test_a_null_continuation_kind_is_read_as_phi_core_does(
    file_store: FileSystemSessionStore,
) -> None:
    value = document()
    value["loops"][0]["continuation_kind"] = None
    file = put_file(file_store, json.dumps(value))
    session = await file_store.load("s")
    assert session.loops[0].continuation_kind in (None, "Initial")
    await file_store.save(session)
    assert read_file(file)["loops"][0]["continuation_kind"] in (None, "Initial")


def test_a_head_is_compact_json_without_a_line_break() -> None:
    session = Session("s", "a", metadata={"text": "line\nbreak\u2028", "k": [1.0]})
    text = encode_head(session)
    assert b"\n" not in text
    assert decode_head(text).metadata == session.metadata
    assert json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False) == text.decode()
