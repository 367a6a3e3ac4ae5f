"""One store and several event loops, threads and processes; what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from awaiting import until
from conftest import scaled
from postgres_checks import number, record, version
from postgres_server import run_sql

from phi_sessions import SessionTaskError
from phi_sessions.stores.postgres import PostgresSessionStore, open_url

PROGRAMS = Path(__file__).with_name("postgres_programs.py")
OTHERS = (
    "SELECT FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


async def alone(url: str) -> bool:
    return await run_sql(url, OTHERS) == []


def test_two_runs_share_one_store_and_leave_no_connection(postgres_sync_url: str) -> None:
    store = PostgresSessionStore(postgres_sync_url)
    for n in range(4):

        async def once(n: int = n) -> None:
            await until(lambda: alone(postgres_sync_url))
            await asyncio.gather(*(store.save(version(n, f"s-{k}")) for k in range(20)))
            assert len(await store.list_ids()) == 20
            assert len([info async for info in store.infos()]) == 20
            async with store.lease("s-1"):
                assert number(await store.load("s-1")) == n

        asyncio.run(once())
        gc.collect()
    asyncio.run(store.aclose())
    asyncio.run(until(lambda: alone(postgres_sync_url)))


def test_two_loops_in_two_threads_share_one_store(postgres_sync_url: str) -> None:
    store = PostgresSessionStore(postgres_sync_url, pool_size=2)
    each = scaled(30)
    failures: list[BaseException] = []

    async def work(n: int) -> None:
        for k in range(each):
            await store.append("s-1", record(n * each + k))
            async with store.lease("s-1", timeout=20):
                pass

    def run(n: int) -> None:
        try:
            asyncio.run(work(n))
        except BaseException as error:
            failures.append(error)

    asyncio.run(store.save(version(0, size=0)))
    threads = [threading.Thread(target=run, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    loaded = asyncio.run(store.load("s-1"))
    assert sorted(loaded.loops.ids()) == sorted(f"s-1.{k}" for k in range(2 * each))
    asyncio.run(store.aclose())


async def test_closing_closes_the_connections_of_other_loops(postgres_url: str) -> None:
    store = PostgresSessionStore(postgres_url)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        there = asyncio.run_coroutine_threadsafe(store.save(version(0)), loop)
        await asyncio.wrap_future(there)
        await store.load("s-1")
        await store.aclose()
        await until(lambda: alone(postgres_url))
    finally:
        ending = asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop)
        await asyncio.wrap_future(ending)
        loop.call_soon_threadsafe(loop.stop)
        await asyncio.to_thread(thread.join, 10)
        loop.close()


async def test_a_store_that_is_dropped_unclosed_warns_and_lets_go(postgres_url: str) -> None:
    dropped = [PostgresSessionStore(postgres_url)]
    await dropped[0].save(version(0))
    async with dropped[0].lease("s-1"):
        pass
    gc.collect()
    with pytest.warns(ResourceWarning, match="unclosed PostgresSessionStore") as warned:
        dropped.clear()
    assert len(warned) == 1
    await until(lambda: alone(postgres_url))
    gc.collect()


async def test_a_store_that_was_never_used_or_was_closed_does_not_warn(postgres_url: str) -> None:
    unused = PostgresSessionStore(postgres_url)  # warnings are errors in this suite
    async with PostgresSessionStore(postgres_url) as closed:
        await closed.save(version(0))
    async with asyncpg.create_pool(postgres_url, min_size=1, max_size=1) as pool:
        given = PostgresSessionStore(pool)
        assert number(await given.load("s-1")) == 0
        del unused, closed, given
        gc.collect()


async def test_a_given_pool_is_left_open(postgres_url: str) -> None:
    async with asyncpg.create_pool(postgres_url, min_size=1, max_size=2) as pool:
        async with PostgresSessionStore(pool) as store:
            await asyncio.gather(*(store.save(version(n, f"s-{n}")) for n in range(8)))
            assert number(await store.load("s-3")) == 3
        with pytest.raises(SessionTaskError):
            await store.load("s-3")
        assert await pool.fetchval("SELECT count(*) FROM phi_sessions") == 8
        async with PostgresSessionStore(pool) as store:
            assert len(await store.list_ids()) == 8


def test_a_given_pool_serves_its_own_loop_only(postgres_sync_url: str) -> None:
    async def use(store: PostgresSessionStore) -> None:
        with pytest.raises(SessionTaskError, match="belongs to another event loop"):
            await store.list_ids()

    async def main() -> None:
        async with asyncpg.create_pool(postgres_sync_url, min_size=1, max_size=1) as pool:
            async with PostgresSessionStore(pool) as store:
                await store.save(version(0))
                await asyncio.to_thread(asyncio.run, use(store))
                assert number(await store.load("s-1")) == 0

    asyncio.run(main())


async def test_a_call_that_waits_for_a_connection_when_the_store_closes(postgres_url: str) -> None:
    store = PostgresSessionStore(postgres_url, pool_size=1)
    await store.list_ids()
    tasks = [asyncio.create_task(store.save(version(n, f"s-{n}"))) for n in range(20)]
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await asyncio.sleep(0.01)
        await store.aclose()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [result for result in results if isinstance(result, SessionTaskError)]
    made = [result for result in results if isinstance(result, str)]
    assert len(refused) + len(made) == 20
    assert len(await run_sql(postgres_url, "SELECT FROM phi_sessions")) == len(made)
    await until(lambda: alone(postgres_url))


@pytest.mark.parametrize("program", ["fork_while_saving", "fork_and_exit", "fork_a_given_pool"])
def test_a_forked_child_can_use_the_store_and_leaves_its_parents_alone(
    postgres_sync_url: str, program: str
) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAMS), program, postgres_sync_url],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "well" in done.stdout
    asyncio.run(until(lambda: alone(postgres_sync_url)))


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
async def test_a_url_opens_a_store(postgres_server: Any, postgres_url: str, scheme: str) -> None:
    url = postgres_server.url(postgres_url.rpartition("/")[2], scheme=scheme)
    async with open_url(url, prefix="by_url_", pool_size=1) as store:
        await store.save(version(1))
        assert await store.list_ids() == ["s-1"]
    assert len(await run_sql(postgres_url, "SELECT FROM by_url_sessions")) == 1


def test_nothing_is_opened_before_the_first_call() -> None:
    store = PostgresSessionStore("postgresql://u:secret@no-such-host.invalid:1/db?sslmode=disable")
    assert repr(store) == "PostgresSessionStore('postgresql://no-such-host.invalid:1/db')"
    asyncio.run(store.aclose())
    assert store.lacks == frozenset()


async def test_a_call_under_way_opens_nothing_after_the_close(postgres_url: str) -> None:
    store = PostgresSessionStore(postgres_url)
    tasks = [asyncio.create_task(store.save(version(n))) for n in range(10)]
    await asyncio.sleep(0)
    await store.aclose()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, str | SessionTaskError) for result in results), results
    await until(lambda: alone(postgres_url))
