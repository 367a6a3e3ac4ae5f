"""Leases: how long they outlive their holders, and what a holder hears of it."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from pathlib import Path

import pytest
from redis_checks import eventually, plain_client

from benchmarks.servers.redis import RedisServer
from phi_sessions import Lease, SessionIOError, SessionLockedError
from phi_sessions.stores.redis import RedisSessionStore

PROGRAMS = str(Path(__file__).with_name("redis_programs.py"))
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


async def holder_of(store: RedisSessionStore) -> Lease | None:
    """Return who holds `s-1`."""
    try:
        async with store.lease("s-1"):
            return None
    except SessionLockedError as error:
        holder: Lease = error.holder
        return holder


async def test_a_lease_is_renewed_for_as_long_as_it_is_held(redis_server: RedisServer) -> None:
    async with (
        RedisSessionStore(redis_server.url, lease_expiry=1) as store,
        RedisSessionStore(redis_server.url) as other,
    ):
        async with store.lease("s-1", owner="me"):
            deadline = time.monotonic() + 2.2
            while time.monotonic() < deadline:
                holder = await holder_of(other)
                assert holder is not None
                assert holder.owner == "me"
                await asyncio.sleep(0.02)
        assert await holder_of(other) is None


async def test_a_holder_that_is_killed_frees_it(redis_server: RedisServer) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        PROGRAMS,
        "hold",
        redis_server.url,
        "1",
        stdout=asyncio.subprocess.PIPE,
        env=ENVIRONMENT,
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"held\n"
        async with RedisSessionStore(redis_server.url) as store:
            holder = await holder_of(store)
            assert holder is not None
            assert (holder.owner, holder.pid) == ("the child", process.pid)
            process.kill()
            async with store.lease("s-1", timeout=10):
                pass
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_lease_outlives_a_restart_of_the_server(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        RedisSessionStore(redis_server.url, lease_expiry=1) as store,
        RedisSessionStore(redis_server.url) as other,
    ):
        async with store.lease("s-1", owner="me"):
            redis_server.kill()
            await asyncio.sleep(0.4)  # a renewal fails meanwhile
            redis_server.start()
            deadline = time.monotonic() + 1.2
            while time.monotonic() < deadline:
                assert await holder_of(other) is not None
                await asyncio.sleep(0.02)
        assert await holder_of(other) is None
    assert "was not renewed" in caplog.text


async def test_a_holder_whose_lease_was_taken_is_told_and_frees_nothing(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        RedisSessionStore(redis_server.url, lease_expiry=0.2) as store,
        RedisSessionStore(redis_server.url) as other,
    ):
        key = store._layout.place("s-1").lease

        async def is_told() -> bool:
            return "expired" in caplog.text

        async with store.lease("s-1", owner="me"):
            async with plain_client(redis_server) as client:
                await client.delete(key)  # as if nothing had been heard of the holder
            async with other.lease("s-1", owner="the other", timeout=0.05):
                await eventually(is_told)
                assert "the other" in caplog.text
                await asyncio.sleep(0.3)
                holder = await holder_of(other)
                assert holder is not None
                assert holder.owner == "the other"


async def test_a_lease_that_ran_out_and_that_nobody_took_is_taken_again(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with RedisSessionStore(redis_server.url, lease_expiry=0.2) as store:
        key = store._layout.place("s-1").lease
        async with store.lease("s-1"), plain_client(redis_server) as client:
            await client.delete(key)

            async def is_told() -> bool:
                return "was taken again" in caplog.text

            await eventually(is_told)
            assert await client.exists(key)
        assert await holder_of(store) is None


async def test_what_cannot_be_given_back_is_told_and_expires(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with RedisSessionStore(redis_server.url, lease_expiry=0.5) as store:
        async with store.lease("s-1"):
            redis_server.kill()
        assert "not given back" in caplog.text
        assert caplog.records[-1].levelno == logging.WARNING
        with pytest.raises(SessionIOError):
            async with store.lease("s-1"):
                pass
        redis_server.start()
        async with store.lease("s-1", timeout=5):
            pass


async def test_a_lease_that_outlives_its_store_is_given_back(redis_server: RedisServer) -> None:
    store = RedisSessionStore(redis_server.url, lease_expiry=1)
    async with RedisSessionStore(redis_server.url) as other:
        async with store.lease("s-1", owner="me"):
            await store.aclose()
            await asyncio.sleep(1.5)  # it is renewed still
            assert await holder_of(other) is not None
        assert await holder_of(other) is None
    async with plain_client(redis_server) as client:
        assert len(await client.client_list()) == 1


async def test_those_who_wait_in_one_process_come_in_turn(redis_server: RedisServer) -> None:
    order: list[int] = []
    async with RedisSessionStore(redis_server.url) as store:

        async def hold(n: int) -> None:
            async with store.lease("s-1", timeout=20):
                order.append(n)
                await asyncio.sleep(0)

        await asyncio.gather(*map(hold, range(10)))
    assert order == list(range(10))


async def test_holders_of_several_stores_never_meet(redis_server: RedisServer) -> None:
    inside = 0
    stores = [RedisSessionStore(redis_server.url) for _ in range(4)]

    async def hold(store: RedisSessionStore) -> None:
        nonlocal inside
        for _ in range(5):
            async with store.lease("s-1", timeout=30):
                inside += 1
                await asyncio.sleep(0.001)
                assert inside == 1
                inside -= 1

    await asyncio.gather(*map(hold, stores))
    for store in stores:
        await store.aclose()
