"""The file store's listings by agent read a directory that nobody changed only once.

What they give is always what a store gives that has never looked before.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from awaiting import until
from conftest import scaled

from phi_sessions import FileSystemSessionStore, LoopRecord, Session, SessionCorruptError
from phi_sessions.stores.filesystem import agents

QUIET = 50_000_000  # nanoseconds; the tests' file system counts in less than a tenth of it

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing is remembered there")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "_QUIET", QUIET)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FileSystemSessionStore]:
    async with FileSystemSessionStore(tmp_path / "s") as made:
        yield made


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which directories were read."""
    read: list[str] = []
    real = os.listdir

    def noted(path: Any) -> Any:
        read.append(path)
        return real(path)

    monkeypatch.setattr(os, "listdir", noted)
    return read


async def quiet(store: FileSystemSessionStore) -> None:
    """Wait until the last change of the directory is long ago."""

    def is_quiet() -> bool:
        status = os.stat(store.dir)
        return time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > QUIET

    await until(is_quiet)


def a_session(session_id: str, agent_id: str, *, loops: int = 1) -> Session:
    records = [LoopRecord(f"l-{n}", session_id, agent_id) for n in range(loops)]
    return Session(session_id, agent_id, loops=records)


async def listed(store: FileSystemSessionStore, agent_id: str = "a") -> list[str]:
    return [session.session_id for session in await store.list_for_agent(agent_id)]


async def found_anew(store: FileSystemSessionStore, agent_id: str = "a") -> list[str]:
    async with FileSystemSessionStore(store.dir) as fresh:
        return [session.session_id for session in await fresh.list_for_agent(agent_id)]


async def test_an_unchanged_directory_is_read_once_for_each_agent(
    store: FileSystemSessionStore, readings: list[str]
) -> None:
    for n in range(12):
        await store.save(a_session(f"s-{n}", "ab"[n % 2]))
    await quiet(store)
    for agent in "ab":
        readings.clear()
        first = await listed(store, agent)
        assert len(first) == 6
        assert len(readings) == 1
        assert await listed(store, agent) == first
        assert [info.session_id async for info in store.infos(agent_id=agent)] == first
        assert len(readings) == 1


async def test_what_is_appended_moves_a_session_to_the_front_and_needs_no_reading(
    store: FileSystemSessionStore, readings: list[str]
) -> None:
    for n in range(3):
        await store.save(a_session(f"s-{n}", "a"))
    await store.append("s-0", LoopRecord("one", "s-0", "a"))  # its tail is there from now on
    await quiet(store)
    assert await listed(store) == ["s-0", "s-2", "s-1"]
    readings.clear()
    await store.append("s-1", LoopRecord("one", "s-1", "a"))
    await quiet(store)
    assert await listed(store) == ["s-1", "s-0", "s-2"]
    readings.clear()
    await store.append("s-0", LoopRecord("two", "s-0", "a"))
    assert await listed(store) == ["s-0", "s-1", "s-2"]
    [info] = [info async for info in store.infos(agent_id="a", limit=1)]
    assert info.session_id == "s-0"
    assert info.revision == (await store.load("s-0")).revision
    assert readings == []


async def new(store: FileSystemSessionStore) -> None:
    await store.save(a_session("new", "a"))


async def gone(store: FileSystemSessionStore) -> None:
    await store.delete("s-0")


async def handed_over(store: FileSystemSessionStore) -> None:
    session = await store.load("b-0")
    session.agent_id = "a"
    await store.save(session)


async def large_and_handed_over(store: FileSystemSessionStore) -> None:
    session = await store.load("large")
    session.agent_id = "a"
    await store.save(session)


async def given_away(store: FileSystemSessionStore) -> None:
    session = await store.load("s-0")
    session.agent_id = "b"
    await store.save(session)


async def replaced_by_hand(store: FileSystemSessionStore) -> None:
    text = (store.dir / "b-0.json").read_bytes()
    (store.dir / "other").write_bytes(text.replace(b'"agent_id":"b"', b'"agent_id":"a"'))
    (store.dir / "other").replace(store.dir / "b-0.json")


async def written_in_place(store: FileSystemSessionStore) -> None:
    text = (store.dir / "s-0.json").read_bytes()
    (store.dir / "s-9.json").write_bytes(text.replace(b"s-0", b"s-9"))


async def another_directory(store: FileSystemSessionStore) -> None:
    status, old = store.dir.stat(), store.dir.with_name("old")
    store.dir.rename(old)
    shutil.copytree(old, store.dir)
    (store.dir / "s-0.json").unlink()
    os.utime(store.dir, ns=(status.st_atime_ns, status.st_mtime_ns))


async def new_and_times_set_back(store: FileSystemSessionStore) -> None:
    status = store.dir.stat()
    await store.save(a_session("new", "a"))
    os.utime(store.dir, ns=(status.st_atime_ns, status.st_mtime_ns))


Change = Callable[[FileSystemSessionStore], Coroutine[Any, Any, None]]
CHANGES: list[Change] = [
    new, gone, handed_over, large_and_handed_over, given_away, replaced_by_hand, written_in_place,
    another_directory, new_and_times_set_back,
]  # fmt: skip


@pytest.mark.parametrize("is_quiet", [True, False], ids=["later", "at once"])
@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_is_seen(
    store: FileSystemSessionStore, change: Change, is_quiet: bool
) -> None:
    for n in range(3):
        await store.save(a_session(f"s-{n}", "a"))
    await store.save(a_session("b-0", "b"))
    await store.save(a_session("large", "b", loops=1500))
    await quiet(store)
    before = await listed(store), await listed(store, "b")
    async with FileSystemSessionStore(store.dir) as other:
        await change(other)
    if is_quiet:
        await quiet(store)
    after = await listed(store), await listed(store, "b")
    assert after != before
    assert after == (await found_anew(store), await found_anew(store, "b"))


async def test_a_file_that_could_not_be_read_is_looked_at_again(
    store: FileSystemSessionStore, readings: list[str]
) -> None:
    await store.save(a_session("s-0", "a"))
    await store.save(a_session("s-1", "a"))
    path = store.dir / "s-0.json"
    text = path.read_bytes()
    path.write_bytes(b"")
    await quiet(store)
    infos = [i.session_id async for i in store.infos(agent_id="a", on_error="skip")]
    assert infos == ["s-1"]
    with pytest.raises(SessionCorruptError):
        await listed(store)
    path.write_bytes(text)  # in place, as phi-core's older functions write
    readings.clear()
    assert sorted(await listed(store)) == ["s-0", "s-1"]
    assert readings == []


async def test_nothing_is_remembered_of_a_directory_that_changed_just_now(
    store: FileSystemSessionStore, monkeypatch: pytest.MonkeyPatch, readings: list[str]
) -> None:
    monkeypatch.setattr(agents, "_QUIET", 10**12)
    await store.save(a_session("s-0", "a"))
    for _ in range(2):
        readings.clear()
        await listed(store)
        assert os.fspath(store.dir) in readings


async def test_a_directory_that_is_not_there_yet_is_seen_when_it_comes(
    store: FileSystemSessionStore,
) -> None:
    assert await listed(store) == []
    await store.save(a_session("s-0", "a"))
    assert await listed(store) == ["s-0"]


async def test_agents_without_sessions_do_not_fill_the_memory(
    store: FileSystemSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "_MOST", 16)
    await store.save(a_session("s-0", "a"))
    await quiet(store)
    for n in range(100):
        assert await listed(store, f"none-{n}") == []
    assert len(store._listing._index._ids) <= 16
    assert await listed(store) == ["s-0"]


async def test_it_never_differs_from_a_first_look(tmp_path: Path) -> None:
    chance = random.Random(5)
    async with FileSystemSessionStore(tmp_path) as one, FileSystemSessionStore(tmp_path) as two:
        for _ in range(scaled(250)):
            store = chance.choice((one, two))
            name, agent = f"s-{chance.randrange(6)}", chance.choice("abc")
            match chance.randrange(5):
                case 0:
                    await store.save(a_session(name, agent))
                case 1 if await store.exists(name):
                    await store.delete(name)
                case 2 if await store.exists(name):
                    await store.append(name, LoopRecord("more", name, agent))
                case 3:
                    await quiet(store)
                case _:
                    await asyncio.sleep(chance.uniform(0, 0.03))
            for each in (one, two):
                assert sorted(await listed(each, agent)) == sorted(await found_anew(each, agent))
