"""The SQLite store in several event loops, threads and forked processes."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest
from conftest import scaled
from sqlite_samples import (
    assert_sound,
    number,
    record,
    run,
    version,
)

from phi_sessions import Session
from phi_sessions.stores.sqlite import SQLiteSessionStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


def test_one_store_serves_loops_that_come_and_go(path: Path) -> None:
    store = SQLiteSessionStore(path)

    async def once(n: int) -> None:
        await asyncio.gather(*(store.save(version(n, f"s-{k}")) for k in range(10)))
        await asyncio.gather(*(store.append("s-0", record(f"{n}.{k}")) for k in range(10)))
        assert number(await store.load("s-5")) == n

    for n in range(3):
        asyncio.run(once(n))
    asyncio.run(store.aclose())
    assert_sound(path)


def test_one_store_serves_loops_of_two_threads_at_once(path: Path) -> None:
    store = SQLiteSessionStore(path)
    each = scaled(100)

    async def work(name: str) -> None:
        for n in range(each):
            await store.append("s-1", record(f"{name}.{n}"))
            if n % 10 == 0:
                await asyncio.gather(*(store.save(version(n, f"{name}-{k}")) for k in range(4)))
                assert f"{name}-3" in await store.list_ids()

    async def main() -> None:
        await store.save(Session("s-1", "a"))
        threads = [threading.Thread(target=asyncio.run, args=(work(name),)) for name in "bcd"]
        for thread in threads:
            thread.start()
        await work("a")
        for thread in threads:
            await asyncio.to_thread(thread.join, 30)
            assert not thread.is_alive()
        assert len((await store.load("s-1")).loops) == 4 * each
        await store.aclose()

    asyncio.run(main())
    assert_sound(path)


def test_a_loop_that_ends_while_its_calls_wait_leaves_nothing_behind(path: Path) -> None:
    store = SQLiteSessionStore(path)

    async def leave() -> None:
        await store.save(version(0))
        calls = [asyncio.ensure_future(store.append("s-1", record(f"{n}"))) for n in range(20)]
        await asyncio.wait(calls, timeout=0.001)

    async def after() -> None:
        await store.append("s-1", record("after"))
        kept = (await store.load("s-1")).loops.ids()
        assert kept[-1] == "after"
        assert len(kept) == len(set(kept))
        await store.aclose()

    asyncio.run(leave())
    asyncio.run(after())
    assert_sound(path)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@needs_fork
def test_children_forked_while_their_parent_changes_can_use_the_same_store(path: Path) -> None:
    assert int(run("fork_while_changing", path, scaled(8))) > 0
    assert_sound(path)


@needs_fork
@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="locks cannot be seen here")
def test_a_forked_child_takes_locks_of_its_own(path: Path) -> None:
    # With its parent's connection open it would take none, and each could write over the other.
    assert int(run("locks_of_a_child", path)) > 0


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_multiprocessing_lose_nothing(path: Path, method: str) -> None:
    run("work_in_processes", path, method)
    assert_sound(path)


def test_a_process_that_ends_without_closing_loses_nothing(path: Path) -> None:
    assert run("leave_unclosed", path) == "saved\n"
    assert_sound(path)
