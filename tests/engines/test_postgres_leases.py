"""Leases of several stores, processes and connections; what frees them, and what does not."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from awaiting import until
from postgres_checks import assert_quiet, version
from postgres_server import run_sql

from phi_sessions import SessionIOError, SessionLockedError
from phi_sessions.stores.postgres import PostgresSessionStore

PROGRAMS = Path(__file__).with_name("postgres_programs.py")


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresSessionStore]:
    async with PostgresSessionStore(postgres_url) as made:
        yield made


@pytest.fixture
async def other(postgres_url: str) -> AsyncIterator[PostgresSessionStore]:
    async with PostgresSessionStore(postgres_url) as made:
        yield made


async def is_held(store: PostgresSessionStore, session_id: str = "s-1") -> bool:
    try:
        async with store.lease(session_id):
            return False
    except SessionLockedError:
        return True


async def test_a_second_store_is_told_who_holds_it(
    store: PostgresSessionStore, other: PostgresSessionStore
) -> None:
    async with store.lease("s-1", owner="the first") as lease:
        with pytest.raises(SessionLockedError, match="leased by the first") as caught:
            async with other.lease("s-1"):
                pass
        assert caught.value.holder == lease
        assert not await is_held(other, "s-2")
    assert not await is_held(other)


@pytest.mark.parametrize("timeout", [0.0, 0.3])
async def test_all_who_wait_in_one_store_are_told_who_holds_it_in_another(
    store: PostgresSessionStore,
    other: PostgresSessionStore,
    timeout: float,
) -> None:
    async def refusal() -> SessionLockedError:
        with pytest.raises(SessionLockedError) as caught:
            async with other.lease("s-1", timeout=timeout):
                pass
        return caught.value

    async with store.lease("s-1", owner="the first") as lease:
        for error in await asyncio.gather(*(refusal() for _ in range(3))):
            assert error.holder == lease
            assert "leased by the first" in str(error)


async def test_it_is_waited_for_across_stores(
    store: PostgresSessionStore, other: PostgresSessionStore
) -> None:
    order: list[str] = []

    async def wait() -> None:
        async with other.lease("s-1", timeout=20):
            order.append("second")

    async with store.lease("s-1"):
        waiter = asyncio.create_task(wait())
        await asyncio.sleep(0.2)
        order.append("first")
    begun = time.monotonic()
    await waiter
    assert order == ["first", "second"]
    assert time.monotonic() - begun < 2


async def test_whoever_waits_in_vain_gives_up_in_time(
    store: PostgresSessionStore, other: PostgresSessionStore
) -> None:
    async with store.lease("s-1", owner="me"):
        begun = time.monotonic()
        with pytest.raises(SessionLockedError) as caught:
            async with other.lease("s-1", timeout=0.3):
                pass
        assert 0.25 < time.monotonic() - begun < 3
        assert caught.value.waited > 0.25
        assert caught.value.holder.owner == "me"


async def test_one_connection_holds_all_leases_of_a_loop(
    postgres_url: str, store: PostgresSessionStore
) -> None:
    async with store.lease("s-0"):
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        [[before]] = await run_sql(postgres_url, count)
        leases = [store.lease(f"s-{n}") for n in range(1, 200)]
        await asyncio.gather(*(lease.__aenter__() for lease in leases))
        [[after]] = await run_sql(postgres_url, count)
        assert after == before
        [[held]] = await run_sql(
            postgres_url, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        )
        assert held >= 200
        await asyncio.gather(*(lease.__aexit__(None, None, None) for lease in leases))
    assert await run_sql(postgres_url, "SELECT * FROM phi_leases") == []


async def test_a_holder_that_is_killed_frees_it(
    postgres_url: str, store: PostgresSessionStore
) -> None:
    command = [sys.executable, str(PROGRAMS), "hold_lease", postgres_url, "s-1", "the child"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    try:
        assert await asyncio.to_thread(child.stdout.readline) == b"held\n"
        with pytest.raises(SessionLockedError) as caught:
            async with store.lease("s-1"):
                pass
        assert (caught.value.holder.owner, caught.value.holder.pid) == ("the child", child.pid)
        child.kill()
        child.wait(10)
        async with store.lease("s-1", timeout=10):
            pass
    finally:
        child.kill()
        child.communicate()


async def test_what_a_dead_holder_said_of_itself_is_not_told_of_the_next(
    postgres_url: str, store: PostgresSessionStore
) -> None:
    await run_sql(postgres_url, "SELECT 1")
    assert not await is_held(store)
    await run_sql(postgres_url, "INSERT INTO phi_leases VALUES ('s-1', 1, '{}')")
    connection = await asyncpg.connect(postgres_url)
    key = "hashtextextended(encode('s-1', 'hex'), 'phi_leases'::regclass::oid::bigint)"
    assert await connection.fetchval(f"SELECT pg_try_advisory_lock({key})")
    with pytest.raises(SessionLockedError) as caught:
        async with store.lease("s-1"):
            pass
    assert caught.value.holder is None
    await connection.close()
    assert not await is_held(store)


async def test_an_idle_child_does_not_keep_the_lease_of_a_parent_that_was_killed(
    postgres_url: str, store: PostgresSessionStore
) -> None:
    command = [sys.executable, str(PROGRAMS), "hold_lease_and_fork", postgres_url, "s-1"]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdin is not None
    assert parent.stdout is not None
    try:
        assert await asyncio.to_thread(parent.stdout.readline) == b"held\n"
        assert await is_held(store)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait(10)
        async with store.lease("s-1", timeout=10):  # while the child lives
            pass
    finally:
        parent.stdin.close()
        parent.stdout.read()
        parent.stdout.close()
        parent.kill()
        parent.wait(10)


async def test_a_lease_whose_connection_broke_is_told_to_be_lost(
    postgres_url: str, store: PostgresSessionStore, other: PostgresSessionStore
) -> None:
    await other.save(version(0))
    with pytest.raises(SessionIOError, match="was lost, as its connection broke"):
        async with store.lease("s-1"):
            await end_lease_connections(postgres_url)
            assert not await is_held(other)
    async with store.lease("s-1"):  # over a new connection
        assert await is_held(other)
    with pytest.raises(ZeroDivisionError):  # the error of the block is the one that is told
        async with store.lease("s-1"):
            await end_lease_connections(postgres_url)
            _ = 1 / 0
    assert not await is_held(other)
    await assert_quiet(postgres_url, store)


async def end_lease_connections(url: str) -> None:
    await run_sql(
        url,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory'",
    )


async def test_new_leases_are_given_while_lost_ones_are_not_given_back_yet(
    postgres_url: str, store: PostgresSessionStore, other: PostgresSessionStore
) -> None:
    with pytest.raises(SessionIOError):
        async with store.lease("s-1"):
            await end_lease_connections(postgres_url)
            async with store.lease("s-2"):
                assert await is_held(other, "s-2")
                assert not await is_held(other, "s-1")
    assert not await is_held(other, "s-2")


async def test_a_lease_outlives_the_closing_of_its_store(
    postgres_url: str, other: PostgresSessionStore
) -> None:
    async with PostgresSessionStore(postgres_url) as store:
        async with store.lease("s-1"), store.lease("s-2"):
            await store.aclose()
            assert await is_held(other)
            assert await is_held(other, "s-2")
        assert not await is_held(other)
    query = "SELECT FROM pg_stat_activity WHERE datname = current_database()"
    await other.aclose()
    rows = await run_sql(postgres_url, query + " AND pid <> pg_backend_pid()")
    assert rows == []


async def test_a_given_pool_lends_a_connection_while_leases_are_held(postgres_url: str) -> None:
    async with asyncpg.create_pool(postgres_url, min_size=1, max_size=3) as pool:
        async with PostgresSessionStore(pool) as store, PostgresSessionStore(pool) as other:
            async with store.lease("s-1", owner="me"), store.lease("s-2"):
                assert pool.get_size() - pool.get_idle_size() == 1
                with pytest.raises(SessionLockedError) as caught:
                    async with other.lease("s-1"):
                        pass
                assert caught.value.holder.owner == "me"
                await store.save(version(0))
            assert pool.get_size() == pool.get_idle_size()
            assert not await is_held(other)
            with pytest.raises(SessionIOError, match="was lost"):
                async with store.lease("s-1"):
                    await end_lease_connections(postgres_url)
            assert not await is_held(other)
            async with store.lease("s-1"):
                pass
        assert len(await pool.fetch("SELECT 1")) == 1  # the pool is whole, and open


async def test_a_given_pool_with_a_line_of_its_own_for_leases(postgres_url: str) -> None:
    async with asyncpg.create_pool(postgres_url, min_size=1, max_size=1) as pool:
        async with PostgresSessionStore(pool, lease_dsn=postgres_url) as store:
            async with store.lease("s-1"):
                assert pool.get_size() == pool.get_idle_size()
                await store.save(version(0))
                async with PostgresSessionStore(postgres_url) as other:
                    assert await is_held(other)


async def test_the_lease_connection_is_not_shut_for_idleness(
    postgres_url: str, other: PostgresSessionStore
) -> None:
    name = postgres_url.rpartition("/")[2]
    await run_sql(postgres_url, f"ALTER DATABASE {name} SET idle_session_timeout = '100ms'")
    async with PostgresSessionStore(postgres_url) as store:
        async with store.lease("s-1"):
            await asyncio.sleep(0.4)
            assert await is_held(other)
            await store.save(version(0))
            await until(lambda: _pool_is_idle(store))
            assert (await store.load("s-1")).metadata == {"n": 0}


async def test_a_connection_that_a_pool_lends_for_leases_is_not_shut_for_idleness(
    postgres_url: str, other: PostgresSessionStore
) -> None:
    name = postgres_url.rpartition("/")[2]
    await run_sql(postgres_url, f"ALTER DATABASE {name} SET idle_session_timeout = '1s'")
    async with asyncpg.create_pool(postgres_url, min_size=1, max_size=1) as pool:
        async with PostgresSessionStore(pool) as store:
            async with store.lease("s-1"):
                await asyncio.sleep(2)
                assert await is_held(other)
        assert await pool.fetchval("SHOW idle_session_timeout") == "1s"


async def test_a_connection_comes_back_as_it_was_to_a_pool_whose_owner_resets_it(
    postgres_url: str, other: PostgresSessionStore
) -> None:
    asked = "SHOW idle_session_timeout"

    async def reset(connection: Any) -> None:
        pass

    async def init(connection: Any) -> None:
        await connection.execute("SET idle_session_timeout = '77s'")

    async with (
        asyncpg.create_pool(postgres_url, min_size=1, max_size=1, init=init, reset=reset) as pool,
        PostgresSessionStore(pool) as store,
    ):
        pid = await pool.fetchval("SELECT pg_backend_pid()")
        async with store.lease("s-1"):
            pass
        assert await pool.fetchval(asked) == "77s"
        async with other.lease("s-1"):
            with pytest.raises(SessionLockedError):
                async with store.lease("s-1"):
                    pass
        assert await pool.fetchval(asked) == "77s"
        assert await pool.fetchval("SELECT pg_backend_pid()") == pid


def _pool_is_idle(store: PostgresSessionStore) -> bool:
    pools: list[Any] = [client.connections for client in store._server._opened]
    return all(line.is_closed() for pool in pools for line, _ in pool._idle)
