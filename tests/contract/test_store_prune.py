"""Deleting what is old, and listing in the order of the last change."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from contract_samples import a_loop, a_session

from phi_sessions import (
    FileSystemSessionStore,
    SessionCorruptError,
    SessionInfo,
    SessionStore,
    SessionTaskError,
    Timestamp,
)

LONG_AGO = Timestamp.from_datetime(datetime(2020, 1, 1, tzinfo=UTC))
YET_TO_COME = Timestamp.from_datetime(datetime(2100, 1, 1, tzinfo=UTC))
NONE = timedelta(0)
HOUR = timedelta(hours=1)


async def fill(store: SessionStore, number: int, **fields: Any) -> list[str]:
    """Save so many old sessions; return their ids, the last saved first."""
    names = [f"s-{n}" for n in range(number)]
    for n, name in enumerate(names):
        await save_later(store, name, f"agent-{n % 2}", last_active_at=LONG_AGO, **fields)
    return names[::-1]


async def save_later(store: SessionStore, name: str, agent_id: str, **fields: Any) -> None:
    await store.save(a_session(name, agent_id, loops=1, **fields))
    await the_clock_moved(store)


async def the_clock_moved(store: SessionStore) -> None:
    """Return when a further save will have a later time: file systems count in ticks."""
    last = max([info.saved_at async for info in store.infos() if info.saved_at is not None])
    deadline = last + timedelta(seconds=20)
    while True:
        await store.save(a_session("the clock"))
        [now] = [info.saved_at async for info in store.infos() if info.session_id == "the clock"]
        await store.delete("the clock")
        if now is None or now > last:
            return
        assert Timestamp.utc_now() < deadline


async def listed(store: SessionStore) -> list[str]:
    return [info.session_id async for info in store.infos()]


async def test_old_sessions_are_deleted_and_named(store: SessionStore) -> None:
    names = await fill(store, 4)
    await store.save(a_session("active", last_active_at=YET_TO_COME))
    assert await store.prune(older_than=NONE) == names
    assert await store.list_ids() == ["active"]
    assert await store.prune(older_than=NONE) == []


async def test_what_was_saved_lately_is_kept_however_long_it_was_idle(
    store: SessionStore,
) -> None:
    names = await fill(store, 3)
    assert await store.prune(older_than=HOUR) == []
    assert await store.list_ids() == names


async def test_what_was_saved_long_ago_but_active_lately_is_kept(
    file_store: FileSystemSessionStore,
) -> None:
    await fill(file_store, 3)
    await file_store.save(a_session("active"))
    for name in ("s-0", "s-1", "active"):
        os.utime(file_store.dir / f"{name}.json", (1, 1))
    assert sorted(await file_store.prune(older_than=HOUR)) == ["s-0", "s-1"]
    assert sorted(await file_store.list_ids()) == ["active", "s-2"]


async def test_what_was_appended_to_lately_is_kept(file_store: FileSystemSessionStore) -> None:
    await fill(file_store, 3)
    for name in ("s-0", "s-1", "s-2"):
        os.utime(file_store.dir / f"{name}.json", (1, 1))
    await file_store.append("s-1", a_loop("s-1", 1))
    assert sorted(await file_store.prune(older_than=HOUR)) == ["s-0", "s-2"]
    assert await file_store.list_ids() == ["s-1"]


@pytest.mark.parametrize("keep_last", [0, 1, 3, 5, 6, 100])
async def test_the_last_are_kept(store: SessionStore, keep_last: int) -> None:
    names = await fill(store, 5)
    assert await store.prune(older_than=NONE, keep_last=keep_last) == names[keep_last:]
    assert await store.list_ids() == names[:keep_last]


async def test_the_last_that_are_kept_are_those_appended_to_last(store: SessionStore) -> None:
    await fill(store, 4)
    await store.append("s-1", a_loop("s-1", 1))
    await store.prune(older_than=NONE, keep_last=1)
    assert await store.list_ids() == ["s-1"]


async def test_only_one_agents_are_deleted(store: SessionStore) -> None:
    await fill(store, 6)
    assert await store.prune(older_than=NONE, keep_last=1, agent_id="agent-0") == ["s-2", "s-0"]
    assert await store.list_ids() == ["s-5", "s-4", "s-3", "s-1"]
    assert await store.prune(older_than=NONE, agent_id="nobody") == []


async def test_a_dry_run_tells_and_deletes_nothing(store: SessionStore) -> None:
    names = await fill(store, 4)
    told = await store.prune(older_than=NONE, keep_last=1, dry_run=True)
    assert told == names[1:]
    assert await store.list_ids() == names
    assert await store.prune(older_than=NONE, keep_last=1) == told


@pytest.mark.parametrize("change", ["append", "save", "delete", "delete and save"])
async def test_a_session_that_is_changed_meanwhile_is_left_alone(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    names = await fill(store, 3)
    infos = store.infos

    async def and_then_somebody_changes_it(**wanted: Any) -> AsyncIterator[SessionInfo]:
        async for info in infos(**wanted):
            if info.session_id == "s-1":
                if change == "append":
                    await store.append("s-1", a_loop("s-1", 1))
                elif change == "save":
                    await store.save(await store.load("s-1"))
                else:
                    await store.delete("s-1")
                if change == "delete and save":
                    await store.save(a_session("s-1"))
            yield info

    with monkeypatch.context() as patch:
        patch.setattr(store, "infos", and_then_somebody_changes_it)
        assert await store.prune(older_than=NONE) == [name for name in names if name != "s-1"]
    assert await store.list_ids() == ([] if change == "delete" else ["s-1"])


async def test_what_is_damaged_is_never_deleted(file_store: FileSystemSessionStore) -> None:
    await fill(file_store, 3)
    damaged = file_store.dir / "s-1.json"
    damaged.write_bytes(b'{"session_id":"s-1","agent_id":"agent-1",')
    with pytest.raises(SessionCorruptError):
        await file_store.prune(older_than=NONE)
    pruned = await file_store.prune(older_than=NONE, on_error="skip")
    assert set(pruned) <= {"s-0", "s-2"}
    assert await file_store.list_ids() == ["s-1"]
    assert damaged.read_bytes() == b'{"session_id":"s-1","agent_id":"agent-1",'


async def test_a_pruned_session_leaves_no_tail_behind(file_store: FileSystemSessionStore) -> None:
    await fill(file_store, 2)
    await file_store.append("s-0", a_loop("s-0", 1))
    await file_store.prune(older_than=NONE)
    assert {name.rpartition(".")[2] for name in os.listdir(file_store.dir)} == {"lock"}


async def test_the_last_appended_to_is_listed_first(store: SessionStore) -> None:
    names = await fill(store, 4)
    assert await listed(store) == names
    await store.append("s-1", a_loop("s-1", 1))
    expected = ["s-1", "s-3", "s-2", "s-0"]
    assert await listed(store) == expected
    assert await store.list_ids() == expected
    assert [info.session_id async for info in store.infos(limit=2)] == expected[:2]
    assert [info.session_id async for info in store.infos(agent_id="agent-1")] == ["s-1", "s-3"]
    found = await store.list_for_agent("agent-1")
    assert [session.session_id for session in found] == ["s-1", "s-3"]


async def test_a_card_tells_what_appends_and_saves_made(store: SessionStore) -> None:
    session = a_session(loops=30, metadata={"turn": 0})
    for loop in session.loops:
        loop.messages.append({"role": "user", "content": "x" * 4_000})
    await store.save(session)
    [before] = [info async for info in store.infos()]
    await the_clock_moved(store)
    await store.append("s-1", a_loop("s-1", 50, text="y" * 1_000))
    [info] = [info async for info in store.infos()]
    stored = await store.load("s-1")
    assert info.revision == stored.revision != before.revision
    assert info.saved_at is None or before.saved_at is None or info.saved_at > before.saved_at
    assert info.size is None or before.size is None or info.size >= before.size + 1_000
    stored.metadata["turn"] = 1
    stored.last_active_at = YET_TO_COME
    await store.save(stored)
    await store.append("s-1", a_loop("s-1", 51))
    [info] = [info async for info in store.infos(active_after=datetime(2099, 1, 1, tzinfo=UTC))]
    stored = await store.load("s-1")
    assert (info.metadata, info.last_active_at) == ({"turn": 1}, YET_TO_COME)
    assert info.revision == stored.revision
    await store.delete("s-1", expect=info.revision)
    assert await listed(store) == []


async def test_a_closed_store_prunes_nothing(store: SessionStore) -> None:
    await store.aclose()
    with pytest.raises(SessionTaskError):
        await store.prune(older_than=NONE)


@pytest.mark.parametrize(
    ("older_than", "pruned"), [(timedelta.max, []), (timedelta.min, ["s-1"])], ids=["max", "min"]
)
async def test_any_age_can_be_asked_for(
    store: SessionStore, older_than: timedelta, pruned: list[str]
) -> None:
    await store.save(a_session("s-1"))
    assert await store.prune(older_than=older_than) == pruned
