"""Records are made, compared, copied and printed as a Python user expects."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from phi_sessions import (
    ApiProtocol,
    ChildLoopRef,
    CompactedSection,
    CompactionBlock,
    ContinuationKind,
    ContinuationTag,
    InactivityTimeoutFormation,
    LoopConfigSnapshot,
    LoopEvent,
    LoopRecord,
    LoopStatus,
    MemorySessionStore,
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
)

ENUMS = [SessionScope, LoopStatus, ContinuationKind, TurnTrigger, ThinkingLevel, ApiProtocol]
STAMP = Timestamp.parse("2031-07-19T04:05:06.123456789Z")


def loop(name: str, **fields: Any) -> LoopRecord:
    return LoopRecord(name, "s", "a", **fields)


def full_session() -> Session:
    """A session with something of everything."""
    message = {"role": "extension", "kind": "k", "data": [1, {"x": None}]}
    turn = Turn(TurnId("l", 0), message, [message], [message], request_payload={"model_id": "m"})
    section = CompactedSection(TurnRange(0, 3), [message])
    record = loop(
        "l",
        parent_loop_id="p",
        continuation_kind=TaggedContinuation(rerun=ContinuationTag("t")),
        ended_at=STAMP,
        config=LoopConfigSnapshot("m", "p", api=ApiProtocol.GOOGLE_VERTEX, temperature=0.5),
        messages=[message],
        turns=[turn],
        usage=Usage(1, 2),
        metadata={"k": [1]},
        events=[LoopEvent(1, {"type": "Quiet"})],
        children_loop_ids=["c"],
        child_loop_refs=[ChildLoopRef("t", "n", "c", "cs")],
        parallel_group=ParallelGroupRecord(["l"], "l", 0, Usage(3), True),
        compaction_block=CompactionBlock(keep_recent=section),
        extra={"later": 1},
    )
    return Session(
        "s",
        "a",
        formation=SessionFormation(
            inactivity_timeout=InactivityTimeoutFormation(threshold_secs=60, timestamp=STAMP)
        ),
        parent_spawn_ref=SpawnRef("p", "l", "t", "n"),
        metadata={"title": "trip"},
        loops=[record, loop("l2")],
        extra={"later": {"deep": [2]}},
    )


# Making -------------------------------------------------------------------------------------------


def test_a_session_is_made_with_two_arguments() -> None:
    before = datetime.now(UTC)
    session = Session("s-1", "agent-1")
    assert (session.session_id, session.agent_id) == ("s-1", "agent-1")
    assert before <= session.created_at <= session.last_active_at <= datetime.now(UTC)
    assert session.formation.kind == "Explicit"
    assert session.formation.explicit is not None
    assert session.formation.explicit.timestamp >= before
    assert session.scope is SessionScope.EPHEMERAL
    assert session.parent_spawn_ref is None
    assert session.metadata == {}
    assert session.loops == []
    assert session.revision is None
    assert session.extra == {}


def test_a_loop_record_is_made_with_three_arguments() -> None:
    before = datetime.now(UTC)
    record = LoopRecord("l-1", "s-1", "agent-1")
    assert (record.loop_id, record.session_id, record.agent_id) == ("l-1", "s-1", "agent-1")
    assert before <= record.started_at <= datetime.now(UTC)
    assert record.continuation_kind is ContinuationKind.INITIAL
    assert record.status is LoopStatus.PENDING
    assert record.usage == Usage()
    lists = (record.messages, record.turns, record.events, record.children_loop_ids)
    assert [*lists, record.child_loop_refs] == [[], [], [], [], []]
    nothing = (record.parent_loop_id, record.ended_at, record.rejection, record.config)
    assert {*nothing, record.metadata, record.parallel_group, record.compaction_block} == {None}


def test_defaults_are_not_shared() -> None:
    one, other = Session("s", "a"), Session("s", "a")
    one.metadata["k"] = 1
    one.extra["k"] = 1
    one.loops.append(loop("l"))
    assert (other.metadata, other.extra, len(other.loops)) == ({}, {}, 0)
    first, second = loop("l"), loop("l")
    first.messages.append({})
    first.events.append(LoopEvent(1, {}))
    first.children_loop_ids.append("c")
    first.usage.input = 5
    assert second.messages == second.events == second.children_loop_ids == []
    assert second.usage.input == 0


@pytest.mark.parametrize("make", [Session, LoopRecord, Turn, TurnId, SpawnRef, LoopConfigSnapshot])
def test_what_is_required_is_required(make: Callable[..., Any]) -> None:
    with pytest.raises(TypeError):
        make("only one")


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(TypeError):
        Session("s", "a", colour="red")  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        Session("s", "a").colour = "red"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (Usage(1, 2), "Usage(input=1, output=2, reasoning=0, "),
        (TurnId("l", 3), "TurnId(loop_id='l', turn_index=3)"),
        (TurnRange(1, 2), "TurnRange(start_turn=1, end_turn=2)"),
        (LoopEvent(1, {"type": "x"}), "LoopEvent(sequence=1, event={'type': 'x'})"),
        (TurnId("l", 3, extra={"k": 1}), "TurnId(loop_id='l', turn_index=3, extra={'k': 1})"),
        (Session("s", "a", loops=[loop("l")]), "Session('s', 'a', loops=1, revision=None)"),
        (loop("l"), "LoopRecord('l', status='Pending', turns=0, messages=0, events=0)"),
    ],
)
def test_reprs_say_what_a_record_is(record: object, expected: str) -> None:
    assert repr(record).startswith(expected)


async def test_the_repr_of_a_session_shows_its_revision() -> None:
    session = Session("s", "a")
    async with MemorySessionStore() as store:
        await store.save(session)
    assert repr(session.revision) in repr(session)


# Equality and copies ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, copy.copy, lambda value: pickle.loads(pickle.dumps(value))]
)
def test_copies_are_equal_and_print_alike(copied: Callable[[Session], Session]) -> None:
    session = full_session()
    twin = copied(session)
    assert twin == session
    assert twin is not session
    assert repr(twin) == repr(session)
    assert repr(twin.loops[0].turns) == repr(session.loops[0].turns)
    assert str(twin.loops[0].ended_at) == str(STAMP)
    assert twin.loops[0].extra == {"later": 1}
    assert twin.extra == {"later": {"deep": [2]}}


def test_a_deep_copy_can_be_changed_alone() -> None:
    session = full_session()
    twin = copy.deepcopy(session)
    twin.loops[0].messages[0]["data"].append(9)
    twin.loops[0].usage.input = 9
    twin.metadata["title"] = "other"
    twin.extra["later"]["deep"].append(9)
    assert session == full_session_like(session)
    assert session.loops[0].messages[0]["data"] == [1, {"x": None}]
    assert session.loops[0].usage.input == 1
    assert session.metadata == {"title": "trip"}
    assert session.extra == {"later": {"deep": [2]}}
    assert twin != session


def full_session_like(session: Session) -> Session:
    return pickle.loads(pickle.dumps(session))


def test_a_difference_anywhere_makes_two_sessions_differ() -> None:
    session = full_session()
    changes: list[Callable[[Session], object]] = [
        lambda s: setattr(s, "agent_id", "b"),
        lambda s: s.metadata.update(k=1),
        lambda s: s.loops.pop(),
        lambda s: setattr(s.loops[1], "rejection", "no"),
        lambda s: s.loops[0].turns[0].input_messages[0].update(k=1),
        lambda s: s.extra.update(k=1),
        lambda s: setattr(
            s.loops[0], "ended_at", Timestamp.parse("2031-07-19T04:05:06.123456788Z")
        ),
    ]
    for change in changes:
        twin = copy.deepcopy(session)
        assert twin == session
        change(twin)
        assert twin != session


# Enumerations -------------------------------------------------------------------------------------


@pytest.mark.parametrize("enum", ENUMS)
def test_an_enumeration_takes_variants_of_later_versions(enum: type[Any]) -> None:
    members = list(enum)
    later = enum("SomethingNew")
    assert later == "SomethingNew"
    assert isinstance(later, enum)
    assert str(later) == f"{later}" == later.value == later.name == "SomethingNew"
    assert later == enum("SomethingNew")
    assert later != members[0]
    assert hash(later) == hash("SomethingNew")
    assert {later: 1}[enum("SomethingNew")] == 1
    assert copy.copy(later) == copy.deepcopy(later) == later
    assert pickle.loads(pickle.dumps(later)) == later
    assert type(pickle.loads(pickle.dumps(later))) is enum
    assert list(enum) == members
    assert "SomethingNew" in repr(later)


@pytest.mark.parametrize("enum", ENUMS)
@pytest.mark.parametrize("value", [None, 1, 2.5, b"Pending", [], ("a",)])
def test_an_enumeration_takes_only_text(enum: type[Any], value: object) -> None:
    with pytest.raises(ValueError, match="is not a valid"):
        enum(value)


@pytest.mark.parametrize("enum", ENUMS)
def test_known_variants_are_themselves_after_a_copy(enum: type[Any]) -> None:
    for member in enum:
        assert enum(member.value) is member
        assert copy.deepcopy(member) is member
        assert pickle.loads(pickle.dumps(member)) is member


def test_a_formation_of_a_later_version_has_that_versions_name() -> None:
    assert SessionFormation(extra={"Scheduled": {"cron": "* * * * *"}}).kind == "Scheduled"
    assert SessionFormation.by_hand(STAMP).kind == "Explicit"
    timeout = InactivityTimeoutFormation(threshold_secs=0)
    assert SessionFormation(inactivity_timeout=timeout).kind == "InactivityTimeout"


# phi-core's methods -------------------------------------------------------------------------------


def family() -> Session:
    return Session(
        "s",
        "a",
        loops=[
            loop("root", children_loop_ids=["mid", "gone"], usage=Usage(1, 2, 3, 4, 5, 6)),
            loop("mid", parent_loop_id="root", children_loop_ids=["leaf"], messages=[{"n": 1}]),
            loop("leaf", parent_loop_id="mid", usage=Usage(10), messages=[{"n": 2}, {"n": 3}]),
            loop("foreign", parent_loop_id="of another session", usage=Usage(100)),
            *(
                loop(n, parallel_group=ParallelGroupRecord(["p1", "p2", "p3"], "p2", 1))
                for n in ("p1", "p2", "p3")
            ),
        ],
    )


def ids(loops: list[LoopRecord]) -> list[str]:
    return [record.loop_id for record in loops]


def test_root_loops_have_no_parent_here() -> None:
    assert ids(family().root_loops()) == ["root", "foreign", "p1", "p2", "p3"]
    assert Session("s", "a").root_loops() == []


def test_children_are_those_that_the_parent_names() -> None:
    session = family()
    assert ids(session.children_of("root")) == ["mid"]
    assert ids(session.children_of("mid")) == ["leaf"]
    assert session.children_of("leaf") == []
    assert session.children_of("nobody") == []


def test_parallel_siblings_include_the_loop_itself() -> None:
    session = family()
    assert ids(session.parallel_siblings("p2")) == ["p1", "p2", "p3"]
    assert session.parallel_siblings("root") == []
    assert session.parallel_siblings("nobody") == []


def test_get_loop_finds_or_returns_none() -> None:
    session = family()
    assert session.get_loop("leaf") is session.loops[2]
    assert session.get_loop("nobody") is None


def test_a_chain_runs_from_the_root_to_the_target() -> None:
    session = family()
    assert session.loop_chain_to("leaf") == ["root", "mid", "leaf"]
    assert session.loop_chain_to("root") == ["root"]
    assert session.loop_chain_to("foreign") == ["of another session", "foreign"]


def test_a_chain_ends_on_a_cycle() -> None:
    session = Session(
        "s",
        "a",
        loops=[
            loop("a", parent_loop_id="c"),
            loop("b", parent_loop_id="a"),
            loop("c", parent_loop_id="b"),
            loop("self", parent_loop_id="self"),
            loop("tail", parent_loop_id="c"),
        ],
    )
    assert session.loop_chain_to("c") == ["a", "b", "c"]
    assert session.loop_chain_to("self") == ["self"]
    assert session.loop_chain_to("tail") == ["a", "b", "c", "tail"]
    assert ids(session.root_loops()) == []


def test_a_chain_of_a_thousand_loops_is_followed() -> None:
    loops = [loop(str(n), parent_loop_id=str(n - 1) if n else None) for n in range(1000)]
    chain = Session("s", "a", loops=loops).loop_chain_to("999")
    assert chain == [str(n) for n in range(1000)]


def test_usage_adds_up() -> None:
    session = family()
    assert session.total_usage() == Usage(111, 2, 3, 4, 5, 6)
    assert Session("s", "a").total_usage() == Usage()
    assert session.loops[0].usage == Usage(1, 2, 3, 4, 5, 6)


def test_all_messages_come_in_order() -> None:
    assert family().all_messages() == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_turns_can_be_asked() -> None:
    start = Timestamp.parse("2031-07-19T04:05:06Z")
    end = Timestamp.parse("2031-07-19T04:05:08.500Z")
    turn = Turn(TurnId("l", 7), {"n": 2}, [{"n": 1}], [{"n": 3}], started_at=start, ended_at=end)
    assert turn.index == 7
    assert turn.duration == timedelta(seconds=2.5)
    assert turn.has_tool_calls
    assert turn.all_messages() == [{"n": 1}, {"n": 2}, {"n": 3}]
    bare = Turn(TurnId("l", 0), {"n": 1})
    assert not bare.has_tool_calls
    assert bare.triggered_by is TurnTrigger.USER
    record = loop("l", turns=[turn, bare])
    assert record.turn_count == 2
    assert record.get_turn(0) is turn
    assert record.get_turn(1) is bare
    assert record.get_turn(2) is None
    assert record.get_turn(-1) is None


async def test_phi_cores_methods_work_on_a_loaded_session() -> None:
    async with MemorySessionStore() as store:
        await store.save(family())
        session = await store.load("s")
    assert session.loop_chain_to("leaf") == ["root", "mid", "leaf"]
    assert ids(session.children_of("root")) == ["mid"]
    assert session.total_usage() == Usage(111, 2, 3, 4, 5, 6)
