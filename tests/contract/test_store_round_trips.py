"""What was saved comes back, and nothing is shared between the caller and the store."""

from __future__ import annotations

import asyncio
import random
import string

import msgspec
import pytest
from contract_samples import a_loop, a_session, content

from phi_sessions import (
    Session,
    SessionEncodeError,
    SessionNotFoundError,
    SessionScope,
    SessionStore,
    SpawnRef,
    Timestamp,
)

HOSTILE_IDS = [
    "../../etc/passwd",
    "/absolute",
    "..",
    ".",
    "~root",
    "%2e%2e",
    "CON",
    "nul.txt",
    "a\x00b",
    "line\nbreak",
    "trailing.",
    "trailing ",
    "s.json",
    "s.json.lock",
    "s.json.tmp.1.2",
    "\u202eevil",
    "e\u0301",
    "\u00e9",
    "Case",
    "case",
    "日本語",
    "\U0001f600",
    'quo"te\\back',
    "someone@example.org",
    "x" * 200,
]


async def test_a_saved_session_is_loaded_as_it_was(store: SessionStore) -> None:
    session = a_session(
        loops=3,
        created_at=Timestamp.parse("2024-02-29T12:34:56.123456789Z"),
        last_active_at=Timestamp.parse("2024-03-01T00:00:00.000000001+02:00"),
        parent_spawn_ref=SpawnRef("parent", "loop", "call", "tool"),
        scope=SessionScope.PERSISTENT,
        metadata={"title": "größe \u2028 \U0001f600", "n": 2**64 - 1, "f": 0.1, "none": None},
        extra={"from_a_later_version": [1, {"x": "y"}]},
    )
    await store.save(session)
    loaded = await store.load("s-1")
    assert content(loaded) == content(session)
    assert str(loaded.created_at) == "2024-02-29T12:34:56.123456789Z"
    assert str(loaded.last_active_at) == "2024-03-01T00:00:00.000000001+02:00"
    assert loaded.extra == {"from_a_later_version": [1, {"x": "y"}]}


async def test_a_session_without_loops_is_kept(store: SessionStore) -> None:
    await store.save(Session("s-1", "agent-1"))
    loaded = await store.load("s-1")
    assert list(loaded.loops) == []
    assert loaded.metadata == {}
    await store.save(loaded)
    assert await store.list_ids() == ["s-1"]


async def test_a_session_of_five_megabytes_is_kept(store: SessionStore) -> None:
    letters = random.Random(5).choices(string.printable, k=50_000)
    session = a_session(loops=0)
    session.loops.extend(a_loop("s-1", n, text="".join(letters) + str(n)) for n in range(50))
    assert sum(len(str(message)) for message in session.all_messages()) > 2_500_000
    await store.save(session)
    assert content(await store.load("s-1")) == content(session)


async def test_a_saved_session_replaces_all_of_the_one_before(store: SessionStore) -> None:
    await store.save(a_session(loops=5, metadata={"old": True}))
    await store.save(a_session("s-1", "agent-2", loops=1))
    loaded = await store.load("s-1")
    assert loaded.agent_id == "agent-2"
    assert len(loaded.loops) == 1
    assert loaded.metadata == {}


async def test_each_load_gives_a_fresh_object(store: SessionStore) -> None:
    await store.save(a_session(metadata={"tags": ["a"]}))
    first, second = await store.load("s-1"), await store.load("s-1")
    assert first is not second
    first.metadata["tags"].append("b")
    first.loops[0].messages.clear()
    first.loops.clear()
    assert second.metadata == {"tags": ["a"]}
    assert len(second.loops[0].messages) == 2
    third = await store.load("s-1")
    assert third.metadata == {"tags": ["a"]}
    assert len(third.loops[0].messages) == 2


async def test_a_change_after_the_save_is_not_stored(store: SessionStore) -> None:
    session = a_session(metadata={"tags": ["a"]})
    await store.save(session)
    before = content(await store.load("s-1"))
    session.metadata["tags"].append("b")
    session.loops[0].messages[0]["content"] = "changed"
    session.loops.append(a_loop("s-1", 1))
    session.agent_id = "agent-2"
    assert content(await store.load("s-1")) == before


async def test_a_change_during_the_save_of_a_small_session_is_not_stored(
    store: SessionStore,
) -> None:
    session = a_session(metadata={"tags": ["a"]})
    task = asyncio.create_task(store.save(session))
    await asyncio.sleep(0)  # the call has started
    session.metadata["tags"].append("b")
    session.loops.append(a_loop("s-1", 1))
    await task
    loaded = await store.load("s-1")
    assert loaded.metadata == {"tags": ["a"]}
    assert len(loaded.loops) == 1


async def test_save_returns_the_revision_that_load_finds(store: SessionStore) -> None:
    session = a_session()
    assert session.revision is None
    revision = await store.save(session)
    assert revision == session.revision == (await store.load("s-1")).revision
    session.metadata["more"] = 1
    assert await store.save(session) != revision


async def test_a_loaded_session_changed_and_saved_is_loaded_changed(store: SessionStore) -> None:
    await store.save(a_session(loops=3))
    session = await store.load("s-1")
    session.loops[1].metadata = {"looked at": True}
    del session.loops[0]
    session.loops.append(a_loop("s-1", 9))
    await store.save(session)
    loaded = await store.load("s-1")
    assert [record.metadata for record in loaded.loops] == [
        {"looked at": True},
        {"number": 2},
        {"number": 9},
    ]


async def test_what_cannot_be_read_again_is_refused_and_nothing_changes(
    store: SessionStore,
) -> None:
    session = a_session()
    revision = await store.save(session)
    session.metadata["bad"] = float("nan")
    with pytest.raises(SessionEncodeError) as caught:
        await store.save(session)
    assert caught.value.session_id == "s-1"
    assert session.revision == revision
    loaded = await store.load("s-1")
    assert (loaded.metadata, loaded.revision) == ({}, revision)
    del session.metadata["bad"]
    await store.save(session)


async def test_a_deleted_session_is_gone(store: SessionStore) -> None:
    await store.save(a_session())
    await store.save(a_session("s-2"))
    await store.delete("s-1")
    assert await store.list_ids() == ["s-2"]
    assert not await store.exists("s-1")
    assert await store.find("s-1") is None
    assert [info.session_id async for info in store.infos()] == ["s-2"]
    assert [s.session_id for s in await store.list_for_agent("agent-1")] == ["s-2"]
    with pytest.raises(SessionNotFoundError):
        await store.load("s-1")


async def test_what_was_never_saved_is_not_found(store: SessionStore) -> None:
    for call in (store.load("nobody"), store.delete("nobody")):
        with pytest.raises(SessionNotFoundError) as caught:
            await call
        assert caught.value.session_id == "nobody"
        assert isinstance(caught.value, LookupError)
    assert await store.find("nobody") is None
    assert await store.exists("nobody") is False
    assert await store.list_ids() == []
    assert await store.list_for_agent("nobody") == []
    assert [info async for info in store.infos()] == []


async def test_delete_twice_finds_nothing_the_second_time(store: SessionStore) -> None:
    await store.save(a_session())
    await store.delete("s-1")
    with pytest.raises(SessionNotFoundError):
        await store.delete("s-1")


async def test_find_and_exists_tell_what_is_stored(store: SessionStore) -> None:
    session = a_session()
    await store.save(session)
    found = await store.find("s-1")
    assert found is not None
    assert content(found) == content(session)
    assert found.revision == session.revision
    assert await store.exists("s-1") is True


async def test_any_text_names_a_session_of_its_own(store: SessionStore) -> None:
    for n, session_id in enumerate(HOSTILE_IDS):
        await store.save(a_session(session_id, metadata={"n": n}))
    assert await store.list_ids() == HOSTILE_IDS[::-1]
    for n, session_id in enumerate(HOSTILE_IDS):
        loaded = await store.load(session_id)
        assert (loaded.session_id, loaded.metadata) == (session_id, {"n": n})
        assert await store.exists(session_id)
    for session_id in HOSTILE_IDS:
        await store.delete(session_id)
    assert await store.list_ids() == []


@pytest.mark.parametrize("text", [b'{"a":\n1}', b"[1,\n2]", b'{ "a" :\t"b\\n" }', b"\n[]\r\n"])
async def test_raw_json_comes_back_whatever_its_layout(store: SessionStore, text: bytes) -> None:
    value = msgspec.json.decode(text)
    session = a_session("s-1", loops=400, metadata={"raw": msgspec.Raw(text)})
    session.loops[0].metadata = {"raw": msgspec.Raw(text)}
    await store.save(session)
    added = a_loop("s-1", 999)
    added.metadata = {"raw": msgspec.Raw(text)}
    await store.append("s-1", added)
    loaded = await store.load("s-1")
    assert loaded.metadata == loaded.loops[0].metadata == loaded.loops[-1].metadata
    assert loaded.metadata == {"raw": value}


async def test_raw_json_beside_unknown_keys_and_large_numbers_comes_back(
    store: SessionStore,
) -> None:
    raw = msgspec.Raw(b'{"a": [1, 2.5]}')
    session = a_session("s-1", loops=2, metadata={"raw": raw}, extra={"later": 1})
    session.loops[0].metadata = {"raw": raw}
    session.loops[0].extra = {"later": {"raw": raw}}
    session.loops[1].metadata = {"raw": raw, "like NaN in MessagePack": 0xCB7FF0}
    await store.save(session)
    loaded = await store.load("s-1")
    value = {"a": [1, 2.5]}
    assert (loaded.metadata, loaded.extra) == ({"raw": value}, {"later": 1})
    assert loaded.loops[0].metadata == {"raw": value}
    assert loaded.loops[0].extra == {"later": {"raw": value}}
    assert loaded.loops[1].metadata == {"raw": value, "like NaN in MessagePack": 0xCB7FF0}
