"""Several real processes on one database: nothing is lost, and nobody sees it locked."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from awaiting import eventually
from conftest import scaled
from sqlite_samples import (
    TIMEOUT,
    another,
    assert_sound,
    end,
    go,
    number,
    record,
    rows,
    running,
    start,
    version,
)

from phi_sessions import Expect, Session, SessionIOError, SessionLockedError
from phi_sessions.stores.sqlite import SQLiteSessionStore, schema

PROCESSES = 8


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


async def ended_well(processes: list[subprocess.Popen[str]]) -> None:
    codes = await asyncio.to_thread(lambda: [process.wait(TIMEOUT) for process in processes])
    assert codes == [0] * len(processes)


async def test_eight_processes_that_update_one_session_lose_nothing(path: Path) -> None:
    each = scaled(100)
    async with SQLiteSessionStore(path) as store:
        await store.save(Session("s-1", "a"))
        with running(*(("update", path, f"p{n}", each) for n in range(PROCESSES))) as processes:
            for process in processes:
                go(process)
            await ended_well(processes)
        kept = (await store.load("s-1")).loops.ids()
    assert len(kept) == PROCESSES * each
    for n in range(PROCESSES):  # each in the order in which it was asked for, and once
        own = [name for name in kept if name.startswith(f"p{n}.")]
        assert own == [f"p{n}.{k}" for k in range(each)]
    assert_sound(path)


async def test_eight_processes_that_append_to_one_session_lose_nothing(path: Path) -> None:
    each = scaled(25)
    async with SQLiteSessionStore(path) as store:
        await store.save(Session("s-1", "a"))
        with running(*(("append", path, f"p{n}", each) for n in range(PROCESSES))) as processes:
            for process in processes:
                go(process)
            await ended_well(processes)
        kept = (await store.load("s-1")).loops.ids()
    assert len(kept) == len(set(kept)) == PROCESSES * each * 4
    assert_sound(path)


async def test_what_killed_processes_acknowledged_is_there(path: Path) -> None:
    chance = random.Random(5)
    async with SQLiteSessionStore(path) as store:
        await store.save(Session("s-1", "a"))
    said: set[str] = set()
    for turn in range(scaled(5)):
        calls = [("append", path, f"t{turn}p{n}", 100_000) for n in range(2)]
        with running(*calls) as processes:
            for process in processes:
                go(process)
            lines = []
            for process in processes:
                assert process.stdout is not None
                lines.append(await asyncio.to_thread(process.stdout.readline))
            await asyncio.sleep(chance.uniform(0, 0.2))
            for process in processes:
                process.send_signal(signal.SIGKILL)
            for process in processes:
                assert process.stdout is not None
                lines += process.stdout.read().splitlines(keepends=True)
            said |= {line.strip() for line in lines if line.endswith("\n")}
        async with SQLiteSessionStore(path) as store:
            kept = (await store.load("s-1")).loops.ids()
            await store.append("s-1", record(f"between-{turn}"))
        assert len(kept) == len(set(kept))
        assert set(kept) >= said
        assert_sound(path)


@pytest.mark.parametrize("there", ["no file", "an empty file"])
async def test_a_new_database_may_be_opened_by_many_at_once(tmp_path: Path, there: str) -> None:
    for turn in range(scaled(2)):
        path = tmp_path / str(turn) / "new" / "sessions.db"
        if there == "an empty file":
            path.parent.mkdir(parents=True)
            path.touch()
        with running(*(("open_first", path, f"s-{n}") for n in range(PROCESSES))) as processes:
            for process in processes:
                go(process)
            await ended_well(processes)
        async with SQLiteSessionStore(path) as store:
            assert sorted(await store.list_ids()) == [f"s-{n}" for n in range(PROCESSES)]
        assert_sound(path)


async def test_a_schema_is_migrated_once_when_many_open_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SQLiteSessionStore(path) as store:
        await store.save(version(1))
    step = ("ALTER TABLE sessions ADD COLUMN later TEXT", "UPDATE sessions SET later = 'x'")
    monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, step])
    stores = [SQLiteSessionStore(path) for _ in range(6)]
    calls = [s.load("s-1") if n % 2 else s.save(version(2, f"n-{n}")) for n, s in enumerate(stores)]
    await asyncio.gather(*calls)
    for store in stores:
        await store.aclose()
    assert rows(path, "PRAGMA user_version") == [(2,)]
    assert rows(path, "SELECT later FROM sessions WHERE session_id = 's-1'") == [("x",)]
    assert_sound(path)


async def test_a_migration_that_fails_leaves_the_old_schema(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SQLiteSessionStore(path) as store:
        await store.save(version(1))
    with monkeypatch.context() as patch:
        broken = ("ALTER TABLE sessions ADD COLUMN later TEXT", "UPDATE nothing SET x = 1")
        patch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, broken])
        async with SQLiteSessionStore(path) as store:
            with pytest.raises(SessionIOError):
                await store.load("s-1")
    async with SQLiteSessionStore(path) as store:
        assert number(await store.load("s-1")) == 1
    assert rows(path, "PRAGMA user_version") == [(1,)]
    assert "later" not in rows(path, "SELECT sql FROM sqlite_master")[0][0]


# Held by another program


@pytest.mark.parametrize("how", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
async def test_a_database_that_another_holds_for_a_second_is_waited_for(
    path: Path, how: str
) -> None:
    async with SQLiteSessionStore(path, lock_timeout=20) as store:
        await store.save(version(1))
        with running(("hold", path, how)) as [holder]:
            begun = time.monotonic()
            session = await store.load("s-1")
            changes = [
                asyncio.create_task(store.save(session)),
                *(asyncio.create_task(store.save(version(2, f"s{n}"))) for n in range(20)),
                asyncio.create_task(store.update("s-0", lambda s: None, create=other)),
            ]
            await asyncio.wait(changes, timeout=1)
            assert not any(change.done() for change in changes)
            assert number(await store.load("s-1")) == 1
            go(holder)
            await asyncio.gather(*changes)
            assert time.monotonic() - begun >= 1
    assert_sound(path)


def other() -> Session:
    return Session("s-0", "a")


async def test_a_database_that_another_holds_too_long_is_locked(path: Path) -> None:
    async with SQLiteSessionStore(path, lock_timeout=0.3) as store:
        await store.save(version(1))
        session = await store.load("s-1")
        with running(("hold", path, "BEGIN EXCLUSIVE")) as [holder]:
            changes = {
                "s-1": store.save(session),
                "s-2": store.save(version(1, "s-2")),
                "s-3": store.append("s-3", record("x")),
                "s-4": store.delete("s-4"),
            }
            begun = time.monotonic()
            results = await asyncio.gather(*changes.values(), return_exceptions=True)
            assert 0.25 < time.monotonic() - begun < 3
            for session_id, error in zip(changes, results, strict=True):
                assert isinstance(error, SessionLockedError)
                assert isinstance(error, TimeoutError)
                assert error.session_id == session_id
                assert 0.25 < error.waited < 3
            assert number(await store.load("s-1")) == 1
            go(holder)
        await store.save(session)  # works again
        assert await store.list_ids() == ["s-1"]


async def test_a_database_that_is_another_programs_alone_cannot_be_read_either(
    path: Path,
) -> None:
    async with SQLiteSessionStore(path) as store:
        await store.save(version(1))
    how = "PRAGMA locking_mode=EXCLUSIVE;BEGIN EXCLUSIVE;UPDATE sessions SET size = size;COMMIT"
    with running(("hold", path, how)) as [holder]:
        async with SQLiteSessionStore(path, lock_timeout=0.2) as store:
            for call in (store.load("s-1"), store.list_ids(), store.exists("s-1")):
                with pytest.raises(SessionIOError, match="held by another"):
                    await call
            with pytest.raises(SessionLockedError):
                await store.save(version(2))
        async with SQLiteSessionStore(path, lock_timeout=20) as store:
            load = asyncio.create_task(store.load("s-1"))
            await asyncio.wait([load], timeout=0.3)
            assert not load.done()
            go(holder)
            assert number(await load) == 1


async def test_no_timeout_means_no_waiting(path: Path) -> None:
    async with SQLiteSessionStore(path, lock_timeout=0) as store:
        await asyncio.gather(*(store.save(version(n, f"s-{n}")) for n in range(50)))
        with another(path) as holder:
            holder.execute("BEGIN IMMEDIATE")
            with pytest.raises(SessionLockedError):
                await store.save(version(2))
        await store.save(version(2))


async def test_a_reader_sees_whole_states_while_others_write(path: Path) -> None:
    async with SQLiteSessionStore(path) as store:
        await store.save(version(0, size=3))
        writer = start("save_until_refused", path, "s-1")
        try:
            seen = [0]
            while seen[-1] < scaled(150) or len(set(seen)) <= 10:
                seen.append(number(await store.load("s-1")))
                assert seen[-1] >= seen[-2]
                [info] = [info async for info in store.infos()]
                assert info.metadata["n"] >= seen[-1]
        finally:
            end(writer)
    assert_sound(path)


async def test_another_programs_open_read_is_no_hindrance(path: Path) -> None:
    async with SQLiteSessionStore(path) as store:
        await store.save(version(1))
        with another(path) as reader:
            reader.execute("BEGIN")
            before = reader.execute("SELECT revision FROM sessions").fetchall()
            for n in range(20):
                await store.save(version(n), expect=Expect.ANYTHING)
            assert reader.execute("SELECT revision FROM sessions").fetchall() == before
        assert number(await store.load("s-1")) == 19


# Leases


async def holder_of(store: SQLiteSessionStore) -> str | None:
    """Return who holds the session just now."""
    try:
        async with store.lease("s-1"):
            return None
    except SessionLockedError as error:
        return str(error.holder and error.holder.owner)


async def test_a_lease_that_another_process_holds_is_refused_and_freed_when_it_lets_go(
    path: Path,
) -> None:
    async with SQLiteSessionStore(path) as store:
        with running(("lease", path, "stays")) as [holder]:
            assert await holder_of(store) == "the holder"
            async with store.lease("s-2"):
                await store.save(version(1))  # a lease keeps nobody from the session
            go(holder)
            await asyncio.to_thread(holder.wait, TIMEOUT)
        assert await holder_of(store) is None


async def test_a_holder_that_is_killed_frees_its_lease_at_once(path: Path) -> None:
    async with SQLiteSessionStore(path) as store:
        with running(("lease", path, "stays")) as [holder]:
            waiter = asyncio.create_task(taken(store, 20))
            await asyncio.wait([waiter], timeout=0.1)
            assert not waiter.done()
            holder.kill()
            holder.wait(TIMEOUT)
            async with asyncio.timeout(5):
                await waiter
        assert await holder_of(store) is None


async def taken(store: SQLiteSessionStore, patience: float) -> None:
    async with store.lease("s-1", timeout=patience):
        pass


async def test_an_idle_forked_child_does_not_keep_its_dead_parents_lease(path: Path) -> None:
    async with SQLiteSessionStore(path) as store:
        with running(("lease", path, "forks")) as [holder]:
            assert holder.stdout is not None
            child = int(holder.stdout.readline())
            try:
                assert await holder_of(store) == "the holder"
                holder.kill()
                holder.wait(TIMEOUT)
                os.kill(child, 0)  # it lives
                assert await holder_of(store) is None
            finally:
                os.kill(child, signal.SIGKILL)


async def test_a_forked_child_that_ends_does_not_free_its_parents_lease(path: Path) -> None:
    async with SQLiteSessionStore(path) as store:
        with running(("lease", path, "forks")) as [holder]:
            assert holder.stdout is not None
            child = int(holder.stdout.readline())
            os.kill(child, signal.SIGKILL)
            eventually(lambda: is_dead(child))
            assert await holder_of(store) == "the holder"


def is_dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_a_lease_outlives_its_store(path: Path) -> None:
    store = SQLiteSessionStore(path)
    async with store.lease("s-1", owner="the holder"):
        await store.aclose()
        async with SQLiteSessionStore(path) as other_store:
            assert await holder_of(other_store) == "the holder"
    async with SQLiteSessionStore(path) as other_store:
        assert await holder_of(other_store) is None
