"""Sessions that expire, and what is left of them."""

from __future__ import annotations

import asyncio
import math
import time
from itertools import count, islice

import pytest
from redis_checks import (
    a_record,
    a_session,
    eventually,
    ids_of_a_sound_server,
    number,
    plain_client,
)

from benchmarks.servers.redis import RedisServer
from phi_sessions import SessionConflictError, SessionNotFoundError
from phi_sessions.stores.redis import RedisSessionStore


async def test_sessions_expire_when_nothing_is_written_for_a_while(
    redis_server: RedisServer,
) -> None:
    async with (
        RedisSessionStore(redis_server.url, ttl=1) as store,
        RedisSessionStore(redis_server.url) as lasting,
    ):
        await lasting.save(a_session("kept"))
        short = [a_session(f"short-{n}") for n in range(5)]
        for session in short:
            await store.save(session)
        assert len(await store.list_ids()) == 6
        deadline = time.monotonic() + 1.3
        while time.monotonic() < deadline:  # each write is a new start
            await store.append("short-0", a_record("short-0", 1))
            short[1].metadata["n"] += 1
            await store.save(short[1])
            await asyncio.sleep(0.05)
        for listed in (lasting, store):
            assert sorted(await listed.list_ids()) == ["kept", "short-0", "short-1"]
            assert len(await listed.list_for_agent("a")) == 3
            assert len([info async for info in listed.infos()]) == 3
            assert len([info async for info in listed.infos(limit=3)]) == 3
        with pytest.raises(SessionNotFoundError):
            await store.load("short-2")
        with pytest.raises(SessionConflictError):
            await store.save(short[2])
        await lasting.append("short-0", a_record("short-0", 2))  # its sessions last

        async def is_gone() -> bool:
            return not await store.exists("short-1")

        await eventually(is_gone)
        assert await store.list_ids() == ["short-0", "kept"]
        await store.save(a_session("short-1", n=9))
        assert number(await store.load("short-1")) == 9
        assert "short-1" in await lasting.list_ids()


async def test_what_expired_is_cleared_away_by_later_writes(redis_server: RedisServer) -> None:
    async with RedisSessionStore(redis_server.url, ttl=0.05) as store:
        ids = [f"s-{n}" for n in range(300)]
        await asyncio.gather(*(store.save(a_session(session_id)) for session_id in ids))
    async with RedisSessionStore(redis_server.url) as store:

        async def are_gone() -> bool:
            return await store.list_ids() == []

        await eventually(are_gone)
        await asyncio.gather(*(store.save(a_session(f"new-{n}")) for n in range(500)))
        assert len(await ids_of_a_sound_server(redis_server)) == 500
        async with plain_client(redis_server) as client:
            assert [key async for key in client.scan_iter(match="*:expiry")] == []


async def test_a_session_that_expired_twice_is_listed_once(redis_server: RedisServer) -> None:
    async with (
        RedisSessionStore(redis_server.url, ttl=2) as longer,
        RedisSessionStore(redis_server.url, ttl=0.1) as short,
        RedisSessionStore(redis_server.url) as lasting,
    ):
        tag = lasting._layout.place("s-1").bucket.tag
        names = (f"n-{n}" for n in count())
        beside = (name for name in names if lasting._layout.place(name).bucket.tag == tag)
        backlog = [a_session(name, "other") for name in islice(beside, 450)]
        await asyncio.gather(*map(longer.save, backlog))
        await longer.save(a_session())
        await asyncio.sleep(2.1)
        await short.save(a_session())
        await asyncio.sleep(0.2)
        await lasting.save(a_session(n=3))
        async with plain_client(redis_server) as client:
            assert await client.zcard(tag + b":expiry") > 100  # more than a write clears away
        assert [number(session) for session in await lasting.list_for_agent("a")] == [3]
        assert [info.session_id async for info in lasting.infos(agent_id="a")] == ["s-1"]
        assert await lasting.list_ids() == ["s-1"]


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf, 1e13, float(2**63), 1e300])
def test_a_time_that_the_server_cannot_count_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="ttl must be positive, and at most"):
        RedisSessionStore("redis://localhost", ttl=seconds)
    with pytest.raises(ValueError, match="lease_expiry must be positive, and at most"):
        RedisSessionStore("redis://localhost", lease_expiry=seconds)


async def test_sessions_and_leases_may_last_for_thousands_of_years(
    redis_server: RedisServer,
) -> None:
    async with RedisSessionStore(redis_server.url, ttl=1e12, lease_expiry=1e12) as store:
        session = a_session("s-1", n=3)
        await store.save(session)
        await store.save(session)
        await store.append("s-1", a_record("s-1", 0))
        async with store.lease("s-1"):
            assert await store.list_ids() == ["s-1"]
        async with store.lease("s-1"):
            await store.delete("s-1")
    assert await ids_of_a_sound_server(redis_server) == []
