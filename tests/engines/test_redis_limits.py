"""Servers and pools that are full, slow or busy."""

from __future__ import annotations

import asyncio
import errno
import time

import pytest
import redis
import redis.asyncio
from redis_calls import CALLS, every_call_fails
from redis_checks import (
    a_record,
    a_session,
    eventually,
    number,
    plain_client,
)

from benchmarks.servers.redis import RedisServer
from phi_sessions import (
    Expect,
    SaveOutcomeUnknownError,
    SessionIOError,
    SessionLockedError,
)
from phi_sessions.stores.redis import RedisSessionStore


async def test_more_calls_than_connections_wait_for_each_other(redis_server: RedisServer) -> None:
    async with RedisSessionStore(redis_server.url, max_connections=2) as store:
        sessions = [a_session(f"s-{n}") for n in range(50)]
        await asyncio.gather(*map(store.save, sessions))
        async with plain_client(redis_server) as client:
            assert len(await client.client_list()) <= 3
    async with RedisSessionStore(f"{redis_server.url}?max_connections=1") as store:
        await asyncio.gather(*map(store.save, sessions))


async def test_a_connection_that_does_not_come_free_in_time(redis_server: RedisServer) -> None:
    async with RedisSessionStore(redis_server.url, max_connections=1, timeout=0.3) as store:
        await store.save(a_session())
        redis_server.pause()
        try:
            calls = [asyncio.create_task(store.exists("s-1")) for _ in range(3)]
            done = await asyncio.gather(*calls, return_exceptions=True)
        finally:
            redis_server.resume()
        numbers = sorted(error.errno or 0 for error in done if isinstance(error, SessionIOError))
        assert numbers == sorted([errno.EAGAIN, errno.EAGAIN, errno.ETIMEDOUT])
        assert number(await store.load("s-1")) == 0


async def test_a_clients_own_full_pool(redis_server: RedisServer) -> None:
    pool = redis.asyncio.ConnectionPool(port=redis_server.port, max_connections=1)
    client = redis.asyncio.Redis.from_pool(pool)
    async with RedisSessionStore(client) as store:
        await store.save(a_session())
        calls = [store.load("s-1") for _ in range(5)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        refused = [result for result in results if isinstance(result, Exception)]
        assert len(refused) == 4
        assert all(isinstance(e, SessionIOError) and e.errno == errno.EAGAIN for e in refused)
        writes = [store.append(f"s-{n}", a_record("s", 1)) for n in range(5)]
        results = await asyncio.gather(*writes, return_exceptions=True)
        assert not any(isinstance(e, SaveOutcomeUnknownError) for e in results)
    await client.aclose()


async def test_a_servers_own_limit_of_connections(redis_server: RedisServer) -> None:
    async with plain_client(redis_server, single_connection_client=True) as client:
        before = (await client.config_get("maxclients"))["maxclients"]
        await client.config_set("maxclients", "1")
        try:
            # The server's answer is overtaken by the end of the connection now and then.
            async with RedisSessionStore(redis_server.url, timeout=0.3) as store:
                for call in CALLS.values():
                    with pytest.raises(SessionIOError):
                        await call(store)
        finally:
            await client.config_set("maxclients", before)


async def test_a_server_that_stands_still(redis_server: RedisServer) -> None:
    async with RedisSessionStore(redis_server.url, timeout=0.2) as store:
        session = a_session(n=1)
        await store.save(session)
        redis_server.pause()
        try:
            begun = time.monotonic()
            session.metadata["n"] = session.loops[0].metadata["n"] = 2
            with pytest.raises(SaveOutcomeUnknownError) as unknown:
                await store.save(session)
            assert unknown.value.errno == errno.ETIMEDOUT
            assert 0.3 < time.monotonic() - begun < 3
            for name, call in CALLS.items():  # for which there is no connection any more
                begun = time.monotonic()
                with pytest.raises(SessionIOError) as caught:
                    await call(store)
                assert caught.value.errno == errno.ETIMEDOUT, name
                assert not isinstance(caught.value, SaveOutcomeUnknownError), name
                assert 0.15 < time.monotonic() - begun < 2, name
        finally:
            redis_server.resume()
        assert number(await store.load("s-1")) in {1, 2}
        await store.save(a_session(n=3), expect=Expect.ANYTHING)
        assert number(await store.load("s-1")) == 3


async def test_a_server_that_goes_on_in_time_is_waited_for(redis_server: RedisServer) -> None:
    async with RedisSessionStore(redis_server.url, timeout=0.5) as store:
        session = a_session(n=1)
        await store.save(session)
        session.metadata["n"] = session.loops[0].metadata["n"] = 2
        redis_server.pause()
        try:
            saving = asyncio.create_task(store.save(session))
            await asyncio.sleep(0.7)  # the first attempt is given up, the second under way
        finally:
            redis_server.resume()
        await saving
        assert number(await store.load("s-1")) == 2
        session.metadata["n"] = session.loops[0].metadata["n"] = 3
        await store.save(session)


async def test_those_who_wait_behind_a_slow_save_are_told_that_it_is_locked(
    redis_server: RedisServer,
) -> None:
    async with RedisSessionStore(redis_server.url, timeout=2, lock_timeout=0.2) as store:
        await store.save(a_session(n=1))
        redis_server.pause()
        try:
            saving = asyncio.create_task(store.save(a_session(n=2)))
            await asyncio.sleep(0)
            with pytest.raises(SessionLockedError) as caught:
                await store.save(a_session(n=3))
            assert 0.15 < caught.value.waited < 2
        finally:
            redis_server.resume()
        await saving
        assert number(await store.load("s-1")) == 2


async def test_a_server_busy_with_a_script(redis_server: RedisServer) -> None:
    async with plain_client(redis_server) as client, plain_client(redis_server) as other:
        await client.config_set("lua-time-limit", "5")
        spinning = asyncio.create_task(client.eval("while true do end", 0))

        async def is_busy() -> bool:
            try:
                await other.ping()
            except redis.ResponseError as error:
                return "BUSY" in str(error)
            return False

        try:
            await eventually(is_busy)
            async with RedisSessionStore(redis_server.url) as store:
                await every_call_fails(store, errno.EBUSY)
        finally:
            await other.script_kill()
            with pytest.raises(redis.ResponseError):
                await spinning
            await client.config_set("lua-time-limit", "5000")
