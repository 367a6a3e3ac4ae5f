"""Damage that a call does not look for: it is met, told, and never made worse."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from phi_sessions import (
    Expect,
    FileSystemSessionStore,
    LoopRecord,
    Revision,
    Session,
    SessionConflictError,
    SessionCorruptError,
    Timestamp,
)
from phi_sessions.stores.filesystem.tail import step_line

DAY = timedelta(days=1)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FileSystemSessionStore]:
    async with FileSystemSessionStore(tmp_path) as made:
        yield made


def large(session_id: str, agent_id: str = "a") -> Session:
    """Return a session of 160 KB that was last active long ago."""
    fill = {"x": "x" * 4000}
    loops = [LoopRecord(f"l-{n}", session_id, agent_id, metadata=fill) for n in range(40)]
    return Session(session_id, agent_id, loops=loops, last_active_at=Timestamp.from_nanoseconds(0))


def made_old(path: Path) -> None:
    os.utime(path, ns=(0, 0))


def in_the_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle - 40 : middle + 40] = b'"' * 80
    path.write_bytes(data)


def at_the_end(path: Path) -> None:
    os.truncate(path, 50_000)


def aside(store: FileSystemSessionStore) -> list[bytes]:
    return [path.read_bytes() for path in store.dir.glob("*.aside.*")]


@pytest.mark.parametrize("damage", [in_the_middle, at_the_end])
async def test_prune_leaves_a_damaged_session(
    store: FileSystemSessionStore, damage: Callable[[Path], None]
) -> None:
    for name in ("bad", "good"):
        await store.save(large(name))
    damage(store.dir / "bad.json")
    for name in ("bad", "good"):
        made_old(store.dir / f"{name}.json")
    before = (store.dir / "bad.json").read_bytes()
    async with FileSystemSessionStore(store.dir) as other:
        with pytest.raises(SessionCorruptError):
            await other.prune(older_than=DAY, agent_id="a")
        await other.save(large("good"))
        made_old(store.dir / "good.json")
        assert await other.prune(older_than=DAY, on_error="skip") == ["good"]
        assert await other.list_ids() == ["bad"]
    assert (store.dir / "bad.json").read_bytes() == before


async def test_a_delete_that_names_the_revision_of_a_damaged_session_is_refused(
    store: FileSystemSessionStore,
) -> None:
    revision = await store.save(large("s"))
    in_the_middle(store.dir / "s.json")
    for one in (store, FileSystemSessionStore(store.dir)):
        with pytest.raises(SessionCorruptError):
            await one.delete("s", expect=revision)
        await one.aclose()
    assert (store.dir / "s.json").exists()


async def test_a_delete_that_names_another_revision_is_refused(
    store: FileSystemSessionStore,
) -> None:
    old = await store.save(large("s"))
    await store.append("s", LoopRecord("more", "s", "a"))
    with pytest.raises(SessionConflictError):
        await store.delete("s", expect=old)
    assert len((await store.load("s")).loops) == 41


async def test_a_save_whatever_is_there_keeps_a_tail_that_another_program_orphaned(
    store: FileSystemSessionStore,
) -> None:
    await store.save(large("s"))
    await store.append("s", LoopRecord("acknowledged", "s", "a"))
    path = store.dir / "s.json"
    rewritten = json.loads(path.read_bytes())
    del rewritten["revision"]
    path.write_text(json.dumps(rewritten, indent=2))
    await store.save(large("s"), expect=Expect.ANYTHING)
    [kept] = aside(store)
    assert b"acknowledged" in kept
    assert not (store.dir / "s.json.log").exists()
    assert "acknowledged" not in (await store.load("s")).loops.ids()


async def test_a_save_whatever_is_there_takes_the_sessions_own_tail_away(
    store: FileSystemSessionStore,
) -> None:
    await store.save(large("s"))
    await store.append("s", LoopRecord("more", "s", "a"))
    async with FileSystemSessionStore(store.dir) as other:
        await other.save(large("s"), expect=Expect.ANYTHING)
    assert aside(store) == []
    assert not (store.dir / "s.json.log").exists()
    assert len((await store.load("s")).loops) == 40


async def test_a_line_break_at_the_end_changes_nothing_that_is_seen(
    store: FileSystemSessionStore,
) -> None:
    await store.save(large("s"))
    path = store.dir / "s.json"
    path.write_bytes(path.read_bytes() + b"\n")  # as editors do
    session = await store.load("s")
    [info] = [info async for info in store.infos()]
    assert info.revision == session.revision
    session.metadata["title"] = "new"
    await store.save(session)
    await store.append("s", LoopRecord("more", "s", "a"))
    loaded = await store.load("s")
    [info] = [info async for info in store.infos()]
    assert (info.revision, info.metadata) == (loaded.revision, {"title": "new"})
    assert len(loaded.loops) == 41
    for made in store.dir.glob("s.json*"):
        made_old(made)
    assert await store.prune(older_than=DAY) == ["s"]
    assert await store.list_ids() == []


@pytest.mark.parametrize("on_error", ["raise", "skip"])
async def test_what_is_beyond_the_limit_is_not_looked_at(
    store: FileSystemSessionStore, on_error: str
) -> None:
    for name in ("bad", "good"):
        await store.save(large(name))
    (store.dir / "bad.json").write_bytes(b"{")
    made_old(store.dir / "bad.json")
    infos = store.infos(limit=1, on_error=on_error)  # type: ignore[arg-type]
    assert [info.session_id async for info in infos] == ["good"]


async def test_a_mistaken_word_passes_over_nothing(store: FileSystemSessionStore) -> None:
    mistaken: Any = "Skip"
    await store.save(large("good"))
    (store.dir / "bad.json").write_bytes(b"{")
    for call in (
        store.list_for_agent("a", on_error=mistaken),
        store.prune(older_than=DAY, on_error=mistaken, dry_run=True),
    ):
        with pytest.raises(SessionCorruptError):
            await call
    with pytest.raises(SessionCorruptError):
        [info async for info in store.infos(on_error=mistaken)]


@pytest.mark.parametrize("session_id", ["s", 'i"d', "back\\slash"])
@pytest.mark.parametrize("agent_id", ["o", 'o"ther', "o\\ther", "ö"])
async def test_damage_of_another_agents_tail_disturbs_nobody(
    store: FileSystemSessionStore, session_id: str, agent_id: str
) -> None:
    await store.save(large(session_id, agent_id))
    await store.append(session_id, LoopRecord("one", session_id, agent_id))
    await store.append(session_id, LoopRecord("two", session_id, agent_id))
    [tail] = store.dir.glob("*.log")
    tail.write_bytes(tail.read_bytes().replace(b'"one"', b'"uno"'))
    assert await store.list_for_agent("mine") == []
    assert [info async for info in store.infos(agent_id="mine")] == []
    with pytest.raises(SessionCorruptError):
        await store.list_for_agent(agent_id)


async def test_an_agent_is_the_same_however_it_is_escaped(store: FileSystemSessionStore) -> None:
    await store.save(large("s", "ab"))
    path = store.dir / "s.json"
    path.write_bytes(path.read_bytes().replace(b'"agent_id":"ab"', b'"agent_id":"\\u0061b"'))
    assert [each.session_id for each in await store.list_for_agent("ab")] == ["s"]


async def test_what_is_left_over_beside_a_damaged_file_is_found_once(
    store: FileSystemSessionStore,
) -> None:
    (store.dir / "s.json").write_bytes(b"{")
    (store.dir / "s.json.tmp.1.2").write_bytes(b"x")
    kinds = ["damaged", "leftover"]
    assert sorted(finding.kind.value for finding in await store.check()) == kinds
    found = await store.check(repair=True)
    assert sorted(finding.kind.value for finding in found) == kinds
    assert all(finding.mended for finding in found)


async def test_a_head_in_a_tail_that_cannot_be_read_is_told_and_kept(
    store: FileSystemSessionStore,
) -> None:
    await store.save(large("s"))
    await store.append("s", LoopRecord("one", "s", "a"))
    path = store.dir / "s.json.log"
    head = b'{"session_id":"s","agent_id":"a","created_at":"never"}'
    path.write_bytes(path.read_bytes() + step_line(Revision("0123456789abcdef"), head, []))
    before = path.read_bytes()
    for call in (
        lambda: store.load("s"),
        lambda: store.save(large("s")),
        lambda: store.list_for_agent("a"),
        lambda: store.compact("s"),
    ):
        with pytest.raises(SessionCorruptError) as caught:
            await call()
        assert (caught.value.session_id, caught.value.path) == ("s", str(path))
    [found] = await store.check()
    assert (found.kind.value, found.path, found.session_id) == ("damaged", str(path), "s")
    assert path.read_bytes() == before


async def test_a_torn_line_is_kept_when_the_tail_is_taken_in(
    store: FileSystemSessionStore,
) -> None:
    await store.save(large("s"))
    await store.append("s", LoopRecord("whole", "s", "a"))
    with (store.dir / "s.json.log").open("ab") as tail:
        tail.write(b'{"revision":"torn')
    await store.compact("s")
    [kept] = aside(store)
    assert kept.endswith(b'{"revision":"torn')
    assert (await store.load("s")).loops.ids()[-1] == "whole"
