"""Nothing is lost between file and object, and damage is found when a session is loaded."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from phi_sessions import (
    FileSystemSessionStore,
    LoopRecord,
    LoopStatus,
    Session,
    SessionCorruptError,
    Turn,
    TurnId,
)
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
TIME = "2031-07-19T04:05:06.123456789Z"
USAGE = dict.fromkeys(["input", "output", "reasoning", "cache_read", "cache_write"], 1)
USAGE["total_tokens"] = 1


def document() -> dict[str, Any]:
    """A file with one of every record."""
    turn = {
        "turn_id": {"loopId": "l", "turnIndex": 0},
        "triggered_by": "User",
        "usage": dict(USAGE),
        "input_messages": [],
        "output_message": {"role": "x"},
        "tool_results": [],
        "started_at": TIME,
        "ended_at": TIME,
        "request_payload": {"model_id": "m"},
    }
    loop = {
        "loop_id": "l",
        "session_id": "s",
        "agent_id": "a",
        "parent_loop_id": None,
        "continuation_kind": {"Branch": {"tag": "t"}},
        "started_at": TIME,
        "ended_at": None,
        "status": "Pending",
        "rejection": None,
        "config": {"model": "m", "provider": "p", "config_id": None},
        "messages": [{"role": "x"}],
        "turns": [turn],
        "usage": dict(USAGE),
        "metadata": {"k": 1},
        "events": [{"sequence": 1, "event": {"type": "x"}}],
        "children_loop_ids": [],
        "child_loop_refs": [
            {"tool_call_id": "t", "tool_name": "n", "child_loop_id": "c", "child_session_id": "c"}
        ],
        "parallel_group": {
            "all_loop_ids": ["l"],
            "selected_loop_id": "l",
            "selected_config_index": 0,
            "evaluation_usage": dict(USAGE),
            "is_selected": True,
        },
        "compaction_block": {
            "keep_first": {"startTurn": 0, "endTurn": 1},
            "keep_recent": {"range": {"startTurn": 2, "endTurn": 3}, "messages": [{"role": "x"}]},
            "createdAt": TIME,
        },
    }
    return {
        "session_id": "s",
        "agent_id": "a",
        "created_at": TIME,
        "last_active_at": TIME,
        "formation": {"Explicit": {"timestamp": TIME}},
        "parent_spawn_ref": {
            "parent_session_id": "p",
            "parent_loop_id": "p.1",
            "tool_call_id": "t",
            "tool_name": "n",
        },
        "scope": "ephemeral",
        "metadata": {"title": "trip"},
        "loops": [loop],
    }


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def put_file(store: FileSystemSessionStore, text: str | bytes) -> Path:
    store.dir.mkdir(exist_ok=True)
    path = store.dir / "s.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read_file(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_bytes())
    value.pop("revision", None)
    return value


async def assert_damaged(store: FileSystemSessionStore, text: str | bytes) -> None:
    """Assert that loading says so, names the file and leaves it alone."""
    path = put_file(store, text)
    before = path.read_bytes()
    with pytest.raises(SessionCorruptError) as caught:
        await store.load("s")
    assert caught.value.session_id == "s"
    assert caught.value.path == str(path)
    assert caught.value.reason
    assert path.read_bytes() == before


async def those_that_load(
    store: FileSystemSessionStore, files: dict[str, str | bytes]
) -> list[str]:
    """Put each text into a file of its own; return the names of those that load and can be read.

    All are loaded at once, as a damaged file is looked at a second time a moment later.
    """
    store.dir.mkdir(exist_ok=True)
    paths = [store.dir / f"s{number}.json" for number in range(len(files))]
    for number, (path, text) in enumerate(zip(paths, files.values(), strict=True)):
        data = text.encode() if isinstance(text, str) else text
        path.write_bytes(data.replace(b'"session_id": "s"', b'"session_id": "s%d"' % number, 1))
    before = [path.read_bytes() for path in paths]
    found = await asyncio.gather(*(store.load(path.stem) for path in paths), return_exceptions=True)
    assert [path.read_bytes() for path in paths] == before
    loaded: list[str] = []
    for name, path, result in zip(files, paths, found, strict=True):
        if not isinstance(result, SessionCorruptError):
            assert isinstance(result, Session), (name, result)
            loaded.append(name)
            continue
        assert result.session_id == path.stem
        assert result.path == str(path)
        assert result.reason
    return loaded


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


# Damage -------------------------------------------------------------------------------------------


def with_value(path: tuple[Any, ...], key: str, raw: str) -> str:
    """Return the document with the JSON text `raw` at a place."""
    value = document()
    at(value, path)[key] = "@@"
    return json.dumps(value).replace('"@@"', raw)


OPAQUE = [
    (("metadata",), "k"),
    (("loops", 0), "metadata"),
    (("loops", 0, "messages", 0), "k"),
    (("loops", 0, "events", 0, "event"), "k"),
    (("loops", 0, "turns", 0, "output_message"), "k"),
    (("loops", 0), "unknown"),
    ((), "unknown"),
]


TOO_LARGE = ["1e400", "-1e400", "[1e999]"]
NOT_JSON = ["NaN", "Infinity", "-Infinity", '"\\ud800"', "[1,]"]
NOT_JSON += [
    '"\\udc00x"',
    '"\\ud800\\u0041"',
    '"\\x"',
    '"a\tb"',
    "01",
    "1.",
    ".5",
    "+1",
    '{"a":1,}',
]
NOT_JSON += ["{a:1}", "'a'", "tru", "", "[", "]", '"', '{"a"}', "1 2", "undefined", '"\x00"', "0x1"]


@pytest.mark.parametrize(("path", "key"), OPAQUE)
async def test_what_is_not_json_is_found_when_a_session_is_loaded(
    path: tuple[Any, ...], key: str, file_store: FileSystemSessionStore
) -> None:
    files: dict[str, str | bytes] = {raw: with_value(path, key, raw) for raw in NOT_JSON}
    assert await those_that_load(file_store, files) == []
    assert await those_that_load(file_store, {"true": with_value(path, key, "true")}) == ["true"]


@pytest.mark.parametrize(("path", "key"), [place for place in OPAQUE if place[0][:1] == ("loops",)])
async def test_a_number_that_no_double_holds_is_found_when_its_record_is_looked_at(
    path: tuple[Any, ...], key: str, file_store: FileSystemSessionStore
) -> None:
    for raw in TOO_LARGE:
        written = put_file(file_store, with_value(path, key, raw))
        session = await file_store.load("s")
        with pytest.raises(SessionCorruptError):
            list(session.loops)
        await file_store.save(session)
        assert raw.encode() in written.read_bytes(), "what nobody could read was kept"


@pytest.mark.parametrize(
    ("path", "key"),
    [
        (("loops", 0, "usage"), "input"),
        (("loops", 0, "usage"), "cache_read"),
        (("loops", 0, "turns", 0, "usage"), "output"),
        (("loops", 0, "turns", 0, "turn_id"), "turnIndex"),
        (("loops", 0, "events", 0), "sequence"),
        (("loops", 0, "parallel_group"), "selected_config_index"),
        (("loops", 0, "compaction_block", "keep_first"), "endTurn"),
        (("loops", 0, "config"), "max_tokens"),
    ],
)
async def test_a_typed_integer_out_of_range_is_damage(
    path: tuple[Any, ...], key: str, file_store: FileSystemSessionStore
) -> None:
    wrong = ["-1", "1.0", "1e3", '"1"', "true", "[]", "1e400"]
    files: dict[str, str | bytes] = {raw: with_value(path, key, raw) for raw in wrong}
    assert await those_that_load(file_store, files) == []
    largest = str(2**32 - 1 if key in ("turnIndex", "endTurn", "max_tokens") else 2**64 - 1)
    assert await those_that_load(file_store, {"max": with_value(path, key, largest)}) == ["max"]


@pytest.mark.parametrize("raw", ["1", "0.5", "-2", "1e-3", "3.4028235e38", "0"])
async def test_a_temperature_may_be_any_single(
    raw: str, file_store: FileSystemSessionStore
) -> None:
    put_file(file_store, with_value(("loops", 0, "config"), "temperature", raw))
    config = (await file_store.load("s")).loops[0].config
    assert config is not None
    assert config.temperature == float(raw)


@pytest.mark.parametrize("number", ["18446744073709551616", "-9223372036854775809", "9" * 400])
async def test_an_opaque_integer_beyond_64_bits_is_kept_while_nobody_touches_it(
    number: str, file_store: FileSystemSessionStore
) -> None:
    file = put_file(file_store, with_value(("loops", 0), "metadata", number))
    session = await file_store.load("s")
    await file_store.save(session)
    assert f'"metadata":{number}'.encode() in file.read_bytes().replace(b": ", b":")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b"1",
        b'"s"',
        b"{}",
        b'{"session_id":"s"}',
        b"\x00" * 100,
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf" + json.dumps(document()).encode(),
        json.dumps(document()).encode("utf-16"),
        json.dumps(document()).encode() + b"x",
        json.dumps(document()).encode() * 2,
        json.dumps(document()).encode()[:-1],
        json.dumps(document()).encode().replace(b"trip", b"\xff"),
        json.dumps(document()).encode().replace(b"trip", b"\xed\xa0\x80"),
        json.dumps(document()).encode().replace(b'"s"', b'"other"', 1),
        json.dumps(document()).encode().replace(b'"loops": [', b'"loops": {"0":', 1),
    ],
)
async def test_a_damaged_file_is_named_and_left_alone(
    data: bytes, file_store: FileSystemSessionStore
) -> None:
    await assert_damaged(file_store, data)


@pytest.mark.parametrize(
    ("key", "twin"),
    [
        ("session_id", "session_id"),
        ("agent_id", "agent\\u005fid"),
        ("loops", "loops"),
        ("scope", "sc\\u006fpe"),
        ("created_at", "created_at"),
        ("metadata", "metadata"),
    ],
)
@pytest.mark.parametrize("own_layout", [False, True])
async def test_a_key_of_the_header_that_occurs_twice_is_damage(
    key: str, twin: str, own_layout: bool, file_store: FileSystemSessionStore
) -> None:
    if own_layout:
        put_file(file_store, json.dumps(document()))
        await file_store.save(await file_store.load("s"))
        text = (file_store.dir / "s.json").read_text()
        raw = json.dumps(document()[key], separators=(",", ":"))
        text = text.replace(',"revision"', f',"{twin}":{raw},"revision"', 1)
    else:
        text = f'{json.dumps(document())[:-1]},"{twin}":{json.dumps(document()[key])}}}'
    await assert_damaged(file_store, text)


@pytest.mark.parametrize("indent", [None, 2])
async def test_every_cut_of_a_file_is_damage(indent: int | None, tmp_path: Path) -> None:
    turn = Turn(TurnId("l", 0), {"role": "x", "text": "é"})
    loops = [LoopRecord(name, "s", "a", turns=[turn]) for name in "ab"]
    async with FileSystemSessionStore(tmp_path / "sessions", fsync=False, indent=indent) as store:
        await store.save(Session("s", "a", loops=loops))
        data = (
            (store.dir / "s.json")
            .read_bytes()
            .replace(b'"session_id":"s"', b'"session_id": "s"', 1)
        )
        assert await those_that_load(store, {"whole": data}) == ["whole"]
        cuts = [*range(0, len(data) - 40, 31), *range(len(data) - 40, len(data))]
        assert await those_that_load(store, {str(cut): data[:cut] for cut in cuts}) == []


def test_a_head_is_compact_json_without_a_line_break() -> None:
    session = Session("s", "a", metadata={"text": "line\nbreak\u2028", "k": [1.0]})
    text = encode_head(session)
    assert b"\n" not in text
    assert decode_head(text).metadata == session.metadata
    assert json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False) == text.decode()
