"""Cancelled calls: nothing of them runs on, no connection is lost, and the state is old or new."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from awaiting import Steps, ended, until
from conftest import scaled
from postgres_checks import assert_quiet, held_row, number, record, version
from test_postgres_races import waits_for_a_lock

from phi_sessions import Expect, Session, SessionNotFoundError
from phi_sessions.stores.postgres import PostgresSessionStore


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresSessionStore]:
    async with PostgresSessionStore(postgres_url, pool_size=3) as made:
        yield made


async def infos(store: PostgresSessionStore, session: Session) -> Any:
    return [info async for info in store.infos()]


async def leased(store: PostgresSessionStore, session: Session) -> Any:
    async with store.lease("s-1"):
        await asyncio.sleep(0)


Call = Callable[[PostgresSessionStore, Session], Any]

CALLS: dict[str, Call] = {
    "save": lambda store, session: store.save(session),
    "save anything": lambda store, session: store.save(session, expect=Expect.ANYTHING),
    "append": lambda store, session: store.append(session, record(1, n=int(session.metadata["n"]))),
    "update": lambda store, session: store.update("s-1", lambda stored: None),
    "load": lambda store, session: store.load("s-1"),
    "delete": lambda store, session: store.delete("s-1"),
    "exists": lambda store, session: store.exists("s-1"),
    "list_ids": lambda store, session: store.list_ids(),
    "list_for_agent": lambda store, session: store.list_for_agent("a"),
    "infos": infos,
    "lease": leased,
}


async def cancelled_at(step: int, call: Coroutine[Any, Any, Any]) -> tuple[Any, int]:
    """Cancel a call when it is suspended for the `step`-th time; return its end, and how often."""
    steps = Steps(call, lambda count, _: count == step and task.cancel())
    task = asyncio.create_task(steps.run())
    return await ended(task), steps.count


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("first", [True, False], ids=["first call", "later call"])
async def test_cancelled_at_every_await(postgres_url: str, call: str, first: bool) -> None:
    n = 0
    for step in range(1, 100):
        async with PostgresSessionStore(postgres_url, pool_size=3) as store:
            n += 1
            async with PostgresSessionStore(postgres_url) as other:
                await other.save(version(n, size=2), expect=Expect.ANYTHING)
                session = await other.load("s-1")
            if not first:
                await store.list_ids()
            if call in ("save", "save anything"):
                n += 1
                session.metadata["n"] = n
                for loop in session.loops:
                    assert loop.metadata is not None
                    loop.metadata["n"] = n
            before = session.revision
            loops = len(session.loops)
            result, count = await cancelled_at(step, CALLS[call](store, session))
            await assert_quiet(postgres_url, store)
            stored = await store.find("s-1")
            if call == "delete":
                assert stored is None or isinstance(result, asyncio.CancelledError)
            else:
                assert stored is not None
                assert number(stored) in (n, n - 1)
            if stored is not None and session.revision != before:
                assert stored.revision == session.revision  # who saved knows what is stored
                assert number(stored) == n
                assert len(stored.loops) == len(session.loops)
            elif stored is not None and call == "append":
                assert len(stored.loops) in (loops, loops + 1)
            assert await asyncio.wait_for(store.save(version(0, "s-2")), 5)
            async with store.lease("s-1"):
                pass
            if count < step:
                assert not isinstance(result, BaseException), result
                return
    raise AssertionError("it never came to its end")


async def test_cancelled_while_another_holds_the_row(
    postgres_url: str, store: PostgresSessionStore
) -> None:
    session = version(0)
    await store.save(session)
    for call in ("save", "append", "delete"):
        async with held_row(postgres_url):
            task = asyncio.create_task(CALLS[call](store, session))
            await until(lambda: waits_for_a_lock(postgres_url))
            task.cancel()
            await asyncio.sleep(0.05)
            assert not task.done()  # it cannot be taken back: it is awaited
        assert isinstance(await ended(task), asyncio.CancelledError)
        await assert_quiet(postgres_url, store)
        found = await store.find("s-1")
        if call == "delete":
            assert found is None
        else:
            assert found is not None
            assert found.revision == session.revision
            session = found


async def test_cancelled_while_it_queues_it_is_gone_at_once(
    postgres_url: str, store: PostgresSessionStore
) -> None:
    await store.save(version(0, size=0))
    async with held_row(postgres_url):
        first = asyncio.create_task(store.append("s-1", record(0)))
        await until(lambda: waits_for_a_lock(postgres_url))
        queued = [asyncio.create_task(store.append("s-1", record(k))) for k in range(1, 9)]
        await asyncio.sleep(0.01)
        for task in queued[::2]:
            task.cancel()
        async with asyncio.timeout(1):
            await asyncio.wait(queued[::2])
    await asyncio.gather(first, *queued[1::2])
    assert (await store.load("s-1")).loops.ids() == [f"s-1.{k}" for k in (0, 2, 4, 6, 8)]
    await assert_quiet(postgres_url, store)


async def test_cancelled_again_and_again_it_still_ends_properly(
    postgres_url: str, store: PostgresSessionStore
) -> None:
    session = version(0)
    await store.save(session)
    async with held_row(postgres_url):
        task = asyncio.create_task(store.save(session))
        await until(lambda: waits_for_a_lock(postgres_url))
        for _ in range(5):
            task.cancel()
            await asyncio.sleep(0.01)
    assert isinstance(await ended(task), asyncio.CancelledError)
    assert (await store.load("s-1")).revision == session.revision
    await assert_quiet(postgres_url, store)


async def test_cancels_at_random_moments_of_all_calls_at_once(
    postgres_url: str, store: PostgresSessionStore
) -> None:
    chance = random.Random(3)
    for k in range(4):
        await store.save(version(k, f"s-{k}"))

    async def call(n: int) -> None:
        name = f"s-{n % 4}"
        await chance.choice(
            (
                lambda: store.save(version(n, name, size=n % 5), expect=Expect.ANYTHING),
                lambda: store.load(name),
                lambda: store.delete(name),
                lambda: store.list_ids(),
                lambda: infos(store, version(0)),
                lambda: store.list_for_agent("a"),
            )
        )()

    for begin in range(0, scaled(300), 50):
        tasks = [asyncio.create_task(call(n)) for n in range(begin, begin + 50)]
        for task in tasks:
            if chance.random() < 0.3:
                await asyncio.sleep(chance.uniform(0, 0.002))
            if chance.random() < 0.8:
                task.cancel()
        async with asyncio.timeout(60):
            results = await asyncio.gather(*tasks, return_exceptions=True)
        errors = {type(result) for result in results if isinstance(result, BaseException)}
        assert errors <= {asyncio.CancelledError, SessionNotFoundError}
        await assert_quiet(postgres_url, store)
        for name in await store.list_ids():
            number(await store.load(name))


def test_a_loop_that_shuts_down_ends_the_saves_under_way(
    postgres_server: Any, postgres_sync_url: str
) -> None:
    store = PostgresSessionStore(postgres_sync_url, pool_size=4)

    async def save(session: Session) -> None:
        while True:
            await store.save(session)

    for n in range(scaled(6)):
        sessions = [version(n, f"s-{k}", size=5) for k in range(8)]
        background: list[asyncio.Task[None]] = []

        async def leave(
            n: int = n,
            sessions: list[Session] = sessions,
            background: list[asyncio.Task[None]] = background,
        ) -> None:
            sessions[:] = [await store.find(s.session_id) or s for s in sessions]
            background += [asyncio.create_task(save(session)) for session in sessions]
            await asyncio.sleep(0.02 + n / 200)

        asyncio.run(leave())  # ends with all tasks pending
        assert all(task.cancelled() for task in background)

        async def check(sessions: list[Session] = sessions) -> None:
            await until(lambda: _alone(postgres_sync_url))
            for session in sessions:
                found = await store.find(session.session_id)
                assert (found.revision if found else None) == session.revision
                await store.save(session)

        asyncio.run(check())
    asyncio.run(store.aclose())


async def _alone(url: str) -> bool:
    from postgres_server import run_sql

    query = "SELECT FROM pg_stat_activity WHERE datname = current_database()"
    return await run_sql(url, query + " AND pid <> pg_backend_pid()") == []
