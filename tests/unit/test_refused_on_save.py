"""What could not be read again is refused before anything is written."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from phi_sessions import (
    ChildLoopRef,
    CompactionBlock,
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
    SessionEncodeError,
    SessionFormation,
    SessionStore,
    SpawnRef,
    TaggedContinuation,
    Timestamp,
    Turn,
    TurnId,
    TurnRange,
    Usage,
    save_session,
)


def bare() -> Session:
    turn = Turn(TurnId("l", 0), {"role": "x"})
    return Session(
        "s", "a", loops=[LoopRecord("first", "s", "a"), LoopRecord("l", "s", "a", turns=[turn])]
    )


Put = Callable[[Session, Any], None]

OPAQUE: dict[str, Put] = {
    "session metadata": lambda s, v: s.metadata.update(v=v),
    "loop metadata": lambda s, v: setattr(s.loops[1], "metadata", v),
    "message": lambda s, v: s.loops[1].messages.append({"role": "x", "data": v}),
    "event": lambda s, v: s.loops[1].events.append(LoopEvent(1, {"type": "x", "v": v})),
    "turn input": lambda s, v: s.loops[1].turns[0].input_messages.append({"v": v}),
    "turn output": lambda s, v: s.loops[1].turns[0].output_message.update(v=v),
    "request payload": lambda s, v: setattr(s.loops[1].turns[0], "request_payload", {"v": v}),
    "unknown key of the session": lambda s, v: s.extra.update(v=v),
    "unknown key of a loop": lambda s, v: s.loops[1].extra.update(v=v),
    "unknown key of a usage": lambda s, v: s.loops[1].usage.extra.update(v=v),
    "deep inside": lambda s, v: s.metadata.update(v=[{"a": [0, (v,)]}]),
}
each_place = pytest.mark.parametrize("put", OPAQUE.values(), ids=OPAQUE.keys())


class Unknown:
    """Not JSON in any way."""


NOT_JSON: list[object] = [math.nan, math.inf, -math.inf, (math.nan,), "\ud800", {"\udc80": 1}]
NOT_JSON += [2**64, -(2**63) - 1, 10**400, Unknown(), Unknown, 1j, range(3), {None: 1}, {(1, 2): 3}]


async def assert_refused(store: SessionStore, session: Session) -> None:
    """Assert that nothing of `session` is stored, and that what is there stays."""
    with pytest.raises(SessionEncodeError) as caught:
        await store.save(session)
    assert caught.value.session_id == "s"
    assert session.session_id in str(caught.value) or "loop" in str(caught.value)
    assert session.revision is None
    assert await store.list_ids() == []
    if isinstance(store, FileSystemSessionStore):
        assert not store.dir.exists()
    before = Session("s", "before")
    revision = await store.save(before)
    with pytest.raises(SessionEncodeError):
        await store.save(session)
    stored = await store.load("s")
    assert (stored.agent_id, stored.revision) == ("before", revision)
    await store.delete("s")


@each_place
@pytest.mark.parametrize(
    "value",
    NOT_JSON,
    ids=lambda value: ascii(value)[:20],
)
async def test_a_value_that_is_not_json_is_refused_anywhere(
    put: Put, value: object, store: SessionStore
) -> None:
    session = bare()
    put(session, value)
    await assert_refused(store, session)


@pytest.mark.parametrize(
    ("value", "json_value"),
    [
        (b"bytes", "Ynl0ZXM="),
        ((1, "two"), [1, "two"]),
        ({1}, [1]),
        ({1: "one"}, {"1": "one"}),
        (datetime(2031, 7, 19, tzinfo=UTC), "2031-07-19T00:00:00Z"),
        (LoopStatus.ABORTED, "Aborted"),
    ],
    ids=["bytes", "tuple", "set", "number as key", "time", "enumeration"],
)
async def test_a_python_value_is_stored_as_the_json_that_stands_for_it(
    value: object, json_value: object, store: SessionStore
) -> None:
    session = bare()
    session.loops[0].metadata = value
    await store.save(session)
    assert (await store.load(session.session_id)).loops[0].metadata == json_value


@pytest.mark.parametrize("value", [None, 5])
def test_loops_that_are_no_sequence_cannot_be_assigned(value: Any) -> None:
    session = bare()
    with pytest.raises(TypeError):
        session.loops = value


@each_place
async def test_a_circle_is_refused(put: Put, store: SessionStore) -> None:
    session = bare()
    circle: list[Any] = []
    circle.append({"again": circle})
    put(session, circle)
    await assert_refused(store, session)


@each_place
async def test_a_hundred_thousand_levels_are_refused(put: Put, store: SessionStore) -> None:
    session = bare()
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    put(session, deep)
    await assert_refused(store, session)
    while deep:  # a long chain of lists is taken apart by hand, not by one deep destructor
        deep = deep.pop()


def nested(levels: int) -> Any:
    value: Any = 0
    for level in range(levels):
        value = [value] if level % 2 else {"k": value}
    return value


DEPTHS = {  # levels of the document around the value
    "session metadata": 2,
    "loop metadata": 3,
    "message": 5,
    "event": 6,
    "turn input": 7,
    "turn output": 6,
    "request payload": 6,
    "unknown key of the session": 1,
    "unknown key of a loop": 3,
    "unknown key of a usage": 4,
}


@pytest.mark.parametrize("place", DEPTHS)
@pytest.mark.parametrize("long", [False, True])
async def test_127_levels_are_stored_and_128_are_refused(
    place: str, long: bool, file_store: FileSystemSessionStore
) -> None:
    fits = 127 - DEPTHS[place]
    session = bare()
    OPAQUE[place](session, nested(fits))
    if long:
        session.metadata["long"] = session.loops[1].metadata = "x" * 20_000
        if place == "loop metadata":
            session.loops[1].metadata = nested(fits)
    await file_store.save(session)
    again = await file_store.load("s")
    assert again.loops == session.loops
    assert (again.metadata, again.extra) == (session.metadata, session.extra)
    (path,) = file_store.dir.glob("*.json")
    assert levels(json.loads(path.read_bytes())) == 127
    await file_store.delete("s")

    deeper = bare()
    OPAQUE[place](deeper, nested(fits + 1))
    with pytest.raises(SessionEncodeError, match="127"):
        await file_store.save(deeper)
    assert await file_store.list_ids() == []


def levels(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(map(levels, inner), default=0) if isinstance(value, dict | list) else 0


# Typed fields -------------------------------------------------------------------------------------

NAIVE = datetime(2031, 7, 19)  # noqa: DTZ001 - a naive time


def unmade(choice: Any, **fields: Any) -> Any:
    """Change a choice after it was made, so that none or two of its fields are set."""
    for name, value in fields.items():
        setattr(choice, name, value)
    return choice


SESSION_FIELDS: list[tuple[str, Any]] = [
    ("agent_id", None),
    ("agent_id", 5),
    ("agent_id", "\ud800"),
    ("created_at", None),
    ("created_at", 0),
    ("created_at", "yesterday"),
    ("created_at", NAIVE),
    ("last_active_at", NAIVE),
    ("created_at", datetime.min.replace(tzinfo=timezone(timedelta(hours=2)))),
    ("formation", None),
    ("formation", "Explicit"),
    ("formation", unmade(SessionFormation.by_hand(), explicit=None)),
    ("formation", unmade(SessionFormation.by_hand(), first_loop=FirstLoopFormation())),
    ("formation", SessionFormation(explicit=ExplicitFormation(timestamp=NAIVE))),  # type: ignore[arg-type]
    (
        "formation",
        SessionFormation(inactivity_timeout=InactivityTimeoutFormation(threshold_secs=-1)),
    ),
    (
        "formation",
        SessionFormation(inactivity_timeout=InactivityTimeoutFormation(threshold_secs=2**64)),
    ),
    ("parent_spawn_ref", "parent"),
    ("parent_spawn_ref", SpawnRef("p", "l", "t", None)),  # type: ignore[arg-type]
    ("scope", None),
    ("scope", 1),
    ("metadata", []),
    ("metadata", "text"),
    ("extra", None),
    ("extra", 5),
    ("extra", {"loops": 1}),
    ("extra", {"revision": "mine"}),
    ("loops", "text"),
    ("loops", [None]),
    ("loops", [{}]),
    ("loops", [Session("s", "a")]),
]


@pytest.mark.parametrize(("field", "value"), SESSION_FIELDS)
async def test_a_wrong_value_in_a_field_of_the_session_is_refused(
    field: str, value: object, store: SessionStore
) -> None:
    session = bare()
    setattr(session, field, value)
    await assert_refused(store, session)


LOOP_FIELDS: list[tuple[str, Any]] = [
    ("loop_id", None),
    ("loop_id", 5),
    ("loop_id", "\ud800"),
    ("session_id", None),
    ("agent_id", 1.5),
    ("parent_loop_id", 5),
    ("continuation_kind", 5),
    (
        "continuation_kind",
        unmade(TaggedContinuation(rerun=ContinuationTag("a")), rerun=None),
    ),
    (
        "continuation_kind",
        unmade(TaggedContinuation(rerun=ContinuationTag("a")), branch=ContinuationTag("b")),
    ),
    ("continuation_kind", TaggedContinuation(rerun=ContinuationTag(None))),  # type: ignore[arg-type]
    ("started_at", NAIVE),
    ("started_at", 0),
    ("ended_at", NAIVE),
    ("ended_at", True),
    ("status", None),
    ("status", 5),
    ("rejection", 5),
    ("config", "model"),
    ("config", LoopConfigSnapshot("m", None)),  # type: ignore[arg-type]
    ("config", LoopConfigSnapshot("m", "p", temperature=math.nan)),
    ("config", LoopConfigSnapshot("m", "p", temperature=math.inf)),
    ("config", LoopConfigSnapshot("m", "p", temperature=1e39)),
    ("config", LoopConfigSnapshot("m", "p", temperature="hot")),  # type: ignore[arg-type]
    ("config", LoopConfigSnapshot("m", "p", max_tokens=2**32)),
    ("config", LoopConfigSnapshot("m", "p", context_window=-1)),
    ("config", LoopConfigSnapshot("m", "p", reasoning=1)),  # type: ignore[arg-type]
    ("messages", None),
    ("messages", ["text"]),
    ("messages", {"a": 1}),
    ("messages", [[]]),
    ("turns", None),
    ("turns", [{}]),
    ("turns", [Turn(TurnId("l", -1), {})]),
    ("turns", [Turn(TurnId("l", 2**32), {})]),
    ("turns", [Turn(TurnId("l", 0), None)]),  # type: ignore[arg-type]
    ("turns", [Turn(TurnId("l", 0), {}, started_at=NAIVE)]),  # type: ignore[arg-type]
    ("turns", [Turn(TurnId("l", 0), {}, usage=Usage(2**64))]),
    ("usage", None),
    ("usage", Usage(-1)),
    ("usage", Usage(2**64)),
    ("usage", Usage(1.0)),  # type: ignore[arg-type]
    ("usage", Usage(math.nan)),  # type: ignore[arg-type]
    ("usage", Usage(True)),
    ("usage", Usage("1")),  # type: ignore[arg-type]
    ("usage", Usage(0, None)),  # type: ignore[arg-type]
    ("events", [{"type": "x"}]),
    ("events", [LoopEvent(-1, {})]),
    ("events", [LoopEvent(2**64, {})]),
    ("events", [LoopEvent(1, [])]),  # type: ignore[arg-type]
    ("children_loop_ids", [5]),
    ("children_loop_ids", "abc"),
    ("child_loop_refs", [ChildLoopRef("a", "b", "c", 4)]),  # type: ignore[arg-type]
    ("parallel_group", ParallelGroupRecord(["a"], "a", -1)),
    ("parallel_group", ParallelGroupRecord(["a"], "a", 0, Usage(), 1)),  # type: ignore[arg-type]
    ("compaction_block", CompactionBlock(keep_first=TurnRange(0, 2**32))),
    ("compaction_block", CompactionBlock(created_at=NAIVE)),  # type: ignore[arg-type]
    ("extra", None),
    ("extra", 5),
]


@pytest.mark.parametrize(("field", "value"), LOOP_FIELDS)
async def test_a_wrong_value_in_a_field_of_a_loop_is_refused(
    field: str, value: object, store: SessionStore
) -> None:
    session = bare()
    setattr(session.loops[1], field, value)
    await assert_refused(store, session)


async def test_values_at_the_limits_are_stored(store: SessionStore) -> None:
    session = bare()
    session.loops[1].usage = Usage(2**64 - 1, 2**63, 2**63 - 1, 0, 2**53 + 1, 1)
    session.loops[1].metadata = [2**64 - 1, -(2**63), 0, 1.7976931348623157e308, 5e-324, -0.0]
    session.loops[1].config = LoopConfigSnapshot(
        "m", "p", temperature=3.4028234663852886e38, max_tokens=2**32 - 1
    )
    session.loops[1].turns[0].turn_id.turn_index = 2**32 - 1
    session.loops[1].events = [LoopEvent(2**64 - 1, {"type": "x"})]
    session.created_at = datetime(2031, 7, 19, tzinfo=UTC)  # type: ignore[assignment]
    await store.save(session)
    again = await store.load("s")
    assert again.loops == session.loops
    assert repr(again.loops[1].metadata) == repr(session.loops[1].metadata)
    assert again.created_at == session.created_at
    assert isinstance(again.created_at, Timestamp)


async def test_large_integers_that_look_like_nan_are_stored(store: SessionStore) -> None:
    """In binary they hold the bytes of a NaN."""
    session = bare()
    numbers = [0xCB7FF0000000, 0xCBFFF8000000, 0x7FF0000000000000, 0xCB7FF00000000001]
    session.loops[0].metadata = {"n": numbers, "s": "\u02ff\xf0\x7f"}
    session.metadata = {"n": numbers}
    await store.save(session)
    again = await store.load("s")
    assert again.loops[0].metadata == session.loops[0].metadata
    assert again.metadata == session.metadata


async def test_a_change_that_is_refused_can_be_undone_and_saved(store: SessionStore) -> None:
    await store.save(bare())
    session = await store.load("s")
    revision = session.revision
    session.loops[1].metadata = math.nan
    with pytest.raises(SessionEncodeError):
        await store.save(session)
    assert session.revision == revision
    session.loops[1].metadata = 1.5
    await store.save(session)
    assert (await store.load("s")).loops[1].metadata == 1.5


def test_the_synchronous_function_refuses_as_well(tmp_path: Path) -> None:
    session = bare()
    session.loops[1].metadata = [math.nan]
    with pytest.raises(SessionEncodeError):
        save_session(session, tmp_path / "sessions")
    assert list(tmp_path.iterdir()) == []
