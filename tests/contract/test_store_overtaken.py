"""Updates of one process that overtake each other: each tries again when its turn has come."""

from __future__ import annotations

import asyncio

import pytest
from awaiting import ended, until
from conftest import scaled
from contract_samples import a_session

from phi_sessions import MemorySessionStore, Session, SessionStore
from phi_sessions.stores import base


def count(session: Session) -> None:
    session.metadata["n"] = session.metadata.get("n", 0) + 1


class Overtaken:
    """Counts one; another is faster while it does so for the first time."""

    def __init__(self, store: SessionStore) -> None:
        self.store = store
        self.calls = 0
        self.again = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, session: Session) -> None:
        self.calls += 1
        if self.calls == 1:
            await self.store.update("s-1", count)
        else:
            self.again.set()
            await self.go_on.wait()
        count(session)


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
async def test_many_tasks_make_two_attempts_each(
    store: SessionStore, is_async: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "_TURN", 30.0)
    await store.save(a_session())
    tasks, calls = scaled(40), 0

    def change(session: Session) -> None:
        nonlocal calls
        calls += 1
        count(session)

    async def change_in_its_time(session: Session) -> None:
        change(session)
        await asyncio.sleep(0)

    given = change_in_its_time if is_async else change
    await asyncio.gather(*(store.update("s-1", given) for _ in range(tasks)))
    assert (await store.load("s-1")).metadata["n"] == tasks
    assert calls <= 3 * tasks


async def test_a_plain_change_does_not_wait_for_an_async_one(store: SessionStore) -> None:
    await store.save(a_session())
    slow = Overtaken(store)
    task = asyncio.create_task(store.update("s-1", slow))
    async with asyncio.timeout(30):
        await slow.again.wait()
        await asyncio.gather(*(store.update("s-1", count) for _ in range(10)))  # overtaken, too
        slow.go_on.set()
        await task
    assert slow.calls == 3
    assert (await store.load("s-1")).metadata["n"] == 12


async def test_an_async_change_does_not_wait_long_for_a_slow_one(store: SessionStore) -> None:
    await store.save(a_session())
    slow, quick = Overtaken(store), Overtaken(store)
    task = asyncio.create_task(store.update("s-1", slow))
    async with asyncio.timeout(30):
        await slow.again.wait()
        quick.go_on.set()
        async with asyncio.timeout(15):
            await store.update("s-1", quick)
        slow.go_on.set()
        await task
    assert (quick.calls, slow.calls) == (2, 3)
    assert (await store.load("s-1")).metadata["n"] == 4


async def test_who_is_cancelled_in_the_line_leaves_it(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "_TURN", 30.0)
    await store.save(a_session())
    first, second, third = (Overtaken(store) for _ in range(3))
    async with asyncio.timeout(30):
        tasks = []
        for each in (first, second, third):
            tasks.append(asyncio.create_task(store.update("s-1", each)))
            await first.again.wait()  # at the head of the line, and stays there
        assert isinstance(store, base.BaseStore)
        queues = store._overtaken._queues
        await until(lambda: len(queues["async s-1"]) == 3)
        tasks[1].cancel()
        assert isinstance(await ended(tasks[1]), asyncio.CancelledError)
        for each in (first, second, third):
            each.go_on.set()
        await asyncio.gather(tasks[0], tasks[2])
    assert (await store.load("s-1")).metadata["n"] == 5


async def test_nobody_waits_for_ever_for_those_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_COURTESY", 0.02)
    monkeypatch.setattr(base, "_TURN", 30.0)
    async with MemorySessionStore() as store, asyncio.timeout(30):
        await store.save(a_session())
        stuck, other = Overtaken(store), Overtaken(store)
        task = asyncio.create_task(store.update("s-1", stuck))
        await stuck.again.wait()
        other.go_on.set()
        await store.update("s-1", other)
        assert not task.done()
        stuck.go_on.set()
        await task
        assert (await store.load("s-1")).metadata["n"] == 4


async def test_an_error_after_a_vain_wait_does_not_tell_of_the_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(base, "_COURTESY", 0.02)
    monkeypatch.setattr(base, "_TURN", 30.0)
    async with MemorySessionStore() as store, asyncio.timeout(30):
        await store.save(a_session())
        stuck, other = Overtaken(store), Overtaken(store)

        async def fails(session: Session) -> None:
            await other(session)
            if other.calls == 2:
                raise ZeroDivisionError

        task = asyncio.create_task(store.update("s-1", stuck))
        await stuck.again.wait()
        other.go_on.set()
        with pytest.raises(ZeroDivisionError) as caught:
            await store.update("s-1", fails)
        assert caught.value.__context__ is None
        stuck.go_on.set()
        await task
