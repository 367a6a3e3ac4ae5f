"""Whatever JSON an agent keeps in a session comes back as it was, from every store."""

from __future__ import annotations

import asyncio
import json
import tempfile
from typing import Any

from conftest import scaled
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from phi_sessions import (
    FileSystemSessionStore,
    LoopEvent,
    LoopRecord,
    MemorySessionStore,
    Session,
    SessionStore,
    Turn,
    TurnId,
)

texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["~extra", "loops", "session_id", "revision", '"', "\\", '\\"', "\n]}", ",\n", "\0", "]", "}{"]
)
numbers = (
    st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0, 1, -1, 1.0, -0.0, 2**53 + 1, 2**64 - 1, -(2**63), 1e16, 1e-7, 5e-324])
)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(texts, children, max_size=4),
    max_leaves=15,
)
json_objects = st.dictionaries(texts, json_values, max_size=4)
KNOWN = {field for kind in (Session, LoopRecord) for field in kind.__struct_fields__} - {"extra"}
unknown_keys = st.dictionaries(texts.filter(lambda key: key not in KNOWN), json_values, max_size=3)


@st.composite
def records(draw: st.DrawFn) -> LoopRecord:
    return LoopRecord(
        draw(texts),
        "s",
        draw(texts),
        metadata=draw(json_values),
        messages=draw(st.lists(json_objects, max_size=2)),
        events=[
            LoopEvent(number, event)
            for number, event in enumerate(draw(st.lists(json_objects, max_size=2)))
        ],
        turns=[
            Turn(
                TurnId(draw(texts), 0),
                draw(json_objects),
                request_payload=draw(st.none() | json_objects),
                extra=draw(
                    st.dictionaries(st.sampled_from(["new", "~extra", "ключ"]), json_values)
                ),
            )
        ],
        extra=draw(unknown_keys),
    )


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    return Session(
        "s",
        draw(texts),
        metadata=draw(json_objects),
        loops=draw(st.lists(records(), max_size=3)),
        extra=draw(unknown_keys),
    )


def exact(value: Any) -> str:
    """Return text that tells 1, 1.0, True, 0.0 and -0.0 apart, and not the order of keys."""
    return json.dumps(value, sort_keys=True)


def content(session: Session) -> list[str]:
    parts: list[Any] = [session.agent_id, session.metadata, session.extra]
    for record in session.loops:
        parts += [record.loop_id, record.agent_id, record.metadata, record.messages, record.extra]
        parts += [[event.sequence, event.event] for event in record.events]
        parts += [[turn.output_message, turn.request_payload, turn.extra] for turn in record.turns]
    return [exact(part) for part in parts]


async def assert_round_trips(store: SessionStore, session: Session) -> None:
    expected = content(session)
    await store.save(session)
    loaded = await store.load("s")
    await store.save(loaded)  # as bytes, undecoded
    again = await store.load("s")
    assert again.agent_id == session.agent_id
    assert content(again) == expected
    assert again.loops == session.loops
    await store.save(again)  # encoded anew
    assert content(await store.load("s")) == expected
    assert [info.metadata async for info in store.infos()] == [session.metadata]


async def through_every_store(session: Session) -> None:
    with tempfile.TemporaryDirectory() as directory:
        for store in (
            MemorySessionStore(),
            FileSystemSessionStore(f"{directory}/own", fsync=False),
            FileSystemSessionStore(f"{directory}/indented", fsync=False, indent=2),
        ):
            session.revision = None
            async with store:
                await assert_round_trips(store, session)


@settings(
    max_examples=scaled(60),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(sessions())
@example(Session("s", "a", loops=[LoopRecord("l", "s", "a", metadata='"loops":[\n{},\n{}\n]}')]))
@example(Session("s", ',"revision":"0123456789abcdef","loops":['))
@example(Session("s", "a", metadata={"loops": [1], "revision": "0123456789abcdef"}))
@example(Session("s", "a", metadata={"x": {"revision": "0123456789abcdef", "loops": []}}))
def test_any_json_comes_back_as_it_was_from_every_store(session: Session) -> None:
    asyncio.run(through_every_store(session))
