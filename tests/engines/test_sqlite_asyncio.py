"""The SQLite store in an event loop: cancelled anywhere, never in its way."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from awaiting import ended
from blockbuster import blockbuster_ctx
from cancelling import (
    CANCELS,
    Cancel,
    cancelled_at,
    in_the_middle,
)
from conftest import scaled
from sqlite_samples import another, assert_sound, number, record, renumber, version

from phi_sessions import Expect, Session, SessionLockedError, SessionNotFoundError
from phi_sessions.stores.sqlite import SQLiteSessionStore

Call = Callable[[SQLiteSessionStore, Session], Coroutine[Any, Any, Any]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteSessionStore]:
    async with SQLiteSessionStore(path) as made:
        yield made


async def infos(store: SQLiteSessionStore, session: Session) -> Any:
    return [info async for info in store.infos()]


async def lease(store: SQLiteSessionStore, session: Session) -> None:
    async with store.lease("s-1", timeout=5):
        await asyncio.sleep(0)


def append(store: SQLiteSessionStore, session: Session) -> Coroutine[Any, Any, Any]:
    return store.append("s-1", *session.loops)


CALLS: dict[str, Call] = {
    "save": lambda store, session: store.save(session),
    "save_anything": lambda store, session: store.save(session, expect=Expect.ANYTHING),
    "append": append,
    "delete": lambda store, session: store.delete("s-1"),
    "delete_expecting": lambda store, session: store.delete("s-1", expect=session.revision),
    "load": lambda store, session: store.load("s-1"),
    "exists": lambda store, session: store.exists("s-1"),
    "list_ids": lambda store, session: store.list_ids(),
    "list_for_agent": lambda store, session: store.list_for_agent("a"),
    "infos": infos,
    "lease": lease,
}
WRITES = ["save", "save_anything", "append", "delete", "delete_expecting"]


def assert_quiet(store: SQLiteSessionStore) -> None:
    """Nothing of any call is left: no job, no turn, no transaction, nothing being written."""
    assert list(store._committer._waiting) == []
    assert store._turnstile._queues == {}
    assert store._committer._turnstile._queues == {}
    database = store._database
    for link in [*database._to_write, *database._to_read]:
        assert not link.connection.in_transaction
    if store.path.exists():
        with another(store.path) as connection:  # refused if somebody writes
            connection.execute("PRAGMA busy_timeout=10000")  # the log may just be taken in
            connection.execute("BEGIN IMMEDIATE")


async def assert_old_or_new(
    store: SQLiteSessionStore, name: str, session: Session, old: int, result: Any
) -> None:
    """After a call that was perhaps cancelled: old or new, and its holder knows which."""
    assert_quiet(store)
    found = await store.find("s-1")
    if name.startswith("delete"):
        assert found is None or number(found) == old
        assert found is None or isinstance(result, asyncio.CancelledError)
    elif name == "append":
        assert found is not None
        assert found.metadata["n"] == old
        assert {each.metadata["n"] for each in found.loops} in ({old}, {old + 1})
    elif name in WRITES:
        assert found is not None
        assert number(found) in (old, old + 1)
        if number(found) == old + 1:
            assert found.revision == session.revision
    else:
        assert found is not None
        assert number(found) == old


@pytest.mark.parametrize("cancel", CANCELS)
@pytest.mark.parametrize("name", CALLS)
async def test_a_call_cancelled_at_any_await_leaves_the_old_state_or_the_new(
    store: SQLiteSessionStore, name: str, cancel: Cancel
) -> None:
    step, reached, ends = 0, True, set()
    while reached and step < 40:
        step += 1
        await store.save(version(step, size=3), expect=Expect.ANYTHING)
        session = await store.load("s-1")
        renumber(session, step + 1)
        reached, result = await cancelled_at(CALLS[name](store, session), step, cancel)
        ends.add(type(result))
        assert reached or not isinstance(result, BaseException)
        await assert_old_or_new(store, name, session, step, result)
        await store.save(version(7), expect=Expect.ANYTHING)  # and nothing comes after it
        assert number(await store.load("s-1")) == 7
    assert step > 1
    assert asyncio.CancelledError in ends or cancel is in_the_middle


@pytest.mark.parametrize("cancel", CANCELS)
@pytest.mark.parametrize("name", WRITES)
async def test_a_call_cancelled_while_another_holds_the_database_leaves_nothing_behind(
    store: SQLiteSessionStore, path: Path, name: str, cancel: Cancel
) -> None:
    step, reached = 0, True
    while reached and step < 40:
        step += 1
        await store.save(version(step), expect=Expect.ANYTHING)
        session = await store.load("s-1")
        renumber(session, step + 1)
        with another(path) as holder:
            holder.execute("BEGIN IMMEDIATE")

            def each_step(n: int, holder: Any = holder) -> None:
                if n == 6 and holder.in_transaction:
                    holder.execute("ROLLBACK")

            call = CALLS[name](store, session)
            reached, result = await cancelled_at(call, step, cancel, each_step)
        assert reached or not isinstance(result, BaseException)
        await assert_old_or_new(store, name, session, step, result)
    assert step > 6


async def test_a_job_that_has_not_begun_is_dropped(store: SQLiteSessionStore, path: Path) -> None:
    await store.save(version(1))
    with another(path) as holder:
        holder.execute("BEGIN IMMEDIATE")
        tasks = [asyncio.create_task(store.save(version(n, f"s-{n}"))) for n in range(10)]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        async with asyncio.timeout(1):  # not when the holder lets go
            await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    assert_quiet(store)
    assert await store.list_ids() == ["s-1"]


async def test_those_who_ride_along_do_not_depend_on_each_other(store: SQLiteSessionStore) -> None:
    await store.save(version(0))
    for first in range(8):  # whoever it is that sent the hop
        tasks = [asyncio.create_task(store.append("s-1", record(f"{first}.{n}"))) for n in range(8)]
        await asyncio.sleep(0)
        tasks[first].cancel()
        async with asyncio.timeout(10):
            results = await asyncio.gather(*tasks, return_exceptions=True)
        kept = set((await store.load("s-1")).loops.ids())
        assert isinstance(results.pop(first), asyncio.CancelledError)
        assert all(isinstance(result, str) for result in results)
        assert kept >= {f"{first}.{n}" for n in range(8)} - {f"{first}.{first}"}
    assert_quiet(store)


async def test_cancels_at_random_moments_never_undo_an_acknowledged_save(
    store: SQLiteSessionStore, path: Path
) -> None:
    chance = random.Random(2)
    ends = {"cancelled": 0, "saved": 0, "landed": 0}

    async def campaign(session_id: str, rounds: int) -> None:
        session = version(0, session_id)
        await store.save(session)
        n = 0
        for _ in range(rounds):
            n += 1
            renumber(session, n)
            task = asyncio.create_task(store.save(session))
            await asyncio.sleep(chance.uniform(0, 0.003))
            task.cancel()
            result = await ended(task)
            cancelled = isinstance(result, asyncio.CancelledError)
            ends["cancelled" if cancelled else "saved"] += 1
            stored = await store.load(session_id)
            assert number(stored) == n or (cancelled and number(stored) == n - 1)
            assert stored.revision == session.revision
            ends["landed"] += cancelled and number(stored) == n
            n += 1
            renumber(session, n)
            revision = await store.save(session)
            stored = await store.load(session_id)
            assert (number(stored), stored.revision) == (n, revision)

    await asyncio.gather(*(campaign(f"s-{k}", scaled(300) // 4) for k in range(4)))
    assert_quiet(store)
    assert_sound(path)
    assert ends["cancelled"] > 0


async def test_all_calls_at_once_cancelled_at_random(store: SQLiteSessionStore, path: Path) -> None:
    chance = random.Random(3)
    for k in range(4):
        await store.save(version(0, f"s-{k}"))

    async def call(n: int) -> None:
        session_id = f"s-{n % 4}"
        session = version(n, session_id, size=chance.choice((1, 40)))
        await chance.choice(
            (
                lambda: store.save(session),
                lambda: store.load(session_id),
                lambda: store.delete(session_id),
                lambda: store.list_ids(),
                lambda: infos(store, session),
                lambda: store.list_for_agent("a"),
                lambda: store.update(session_id, lambda s: renumber(s, n)),
            )
        )()

    for begin in range(0, scaled(500), 50):
        tasks = [asyncio.create_task(call(n)) for n in range(begin, begin + 50)]
        chance.shuffle(tasks)
        for task in tasks:
            if chance.random() < 0.6:
                task.cancel()
            if chance.random() < 0.3:
                await asyncio.sleep(chance.uniform(0, 0.001))
        async with asyncio.timeout(60):
            results = await asyncio.gather(*tasks, return_exceptions=True)
        errors = [r for r in results if r is not None]
        assert {type(e) for e in errors} <= {asyncio.CancelledError, SessionNotFoundError}
        assert_quiet(store)
        for session_id in await store.list_ids():
            number(await store.load(session_id))
    assert_sound(path)


async def test_the_loop_is_never_blocked(path: Path) -> None:
    store = SQLiteSessionStore(path, lock_timeout=0.2)
    session = version(1, size=20)
    with blockbuster_ctx():
        async with store:
            for call in CALLS.values():
                await store.save(session, expect=Expect.ANYTHING)
                await call(store, session)
            await asyncio.gather(*(store.save(version(n, f"s-{n}")) for n in range(50)))
            async with store.lease("s-1"):
                with pytest.raises(SessionLockedError):
                    await lease_at_once(store)


async def lease_at_once(store: SQLiteSessionStore) -> None:
    async with store.lease("s-1"):
        pytest.fail("there are two holders")


async def test_waiting_for_another_holds_no_thread(store: SQLiteSessionStore, path: Path) -> None:
    await store.save(version(1))
    with another(path) as holder:
        holder.execute("BEGIN IMMEDIATE")
        waiting = [asyncio.create_task(store.append("s-1", record(f"r-{n}"))) for n in range(64)]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(2):
            assert number(await store.load("s-1")) == 1  # readers are not in the way
            # The thread that writes is free for most of the time.
            assert sum([await store._writing.run(os.getpid) > 0 for _ in range(20)]) == 20
        assert not any(task.done() for task in waiting)
        holder.execute("ROLLBACK")
        await asyncio.gather(*waiting)
    assert len((await store.load("s-1")).loops) == 65
