"""Servers that are killed and started again, and what they still have."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from conftest import scaled
from redis_checks import a_record, a_session, eventually, ids_of_a_sound_server, number
from redis_proxy import proxy_to

from benchmarks.servers.redis import RedisServer
from phi_sessions import (
    Promise,
    SaveOutcomeUnknownError,
    Session,
    SessionIOError,
)
from phi_sessions.stores.redis import RedisSessionStore

PROGRAMS = str(Path(__file__).with_name("redis_programs.py"))
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


async def start(*args: object) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        PROGRAMS,
        *map(str, args),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=ENVIRONMENT,
    )


async def test_a_server_killed_under_eight_processes_has_all_that_was_acknowledged(
    redis_server: RedisServer,
) -> None:
    writers = [await start("write", redis_server.url, f"s-{n}") for n in range(8)]
    said: list[list[str]] = [[] for _ in writers]

    async def listen(number: int) -> None:
        stdout = writers[number].stdout
        assert stdout is not None
        async for line in stdout:
            said[number].append(line.decode().strip())

    listening = [asyncio.create_task(listen(n)) for n in range(8)]

    async def all_go_on(marks: list[int]) -> None:
        async def each_saved() -> bool:
            return all(
                any(line.startswith("saved") for line in lines[mark:])
                for lines, mark in zip(said, marks, strict=True)
            )

        await eventually(each_saved, 30)

    try:
        await all_go_on([0] * 8)
        for _ in range(scaled(3)):
            redis_server.kill()
            await asyncio.sleep(0.05)
            redis_server.start()
            await all_go_on([len(lines) for lines in said])
        redis_server.kill()
        redis_server.start()
    finally:
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.close()
        for writer in writers:
            async with asyncio.timeout(30):
                assert await writer.wait() == 0
    await asyncio.gather(*listening)

    async with RedisSessionStore(redis_server.url) as store:
        for n, lines in enumerate(said):
            acknowledged = [int(line.split()[1]) for line in lines if line.startswith("saved")]
            attempted = max(int(line.split()[-1]) for line in lines)
            assert max(acknowledged) <= number(await store.load(f"s-{n}")) <= attempted + 1
            errors = Counter(line.split()[1] for line in lines if line.startswith("failed"))
            assert set(errors) <= {"SessionIOError", "SaveOutcomeUnknownError"}
    assert await ids_of_a_sound_server(redis_server) == [f"s-{n}" for n in range(8)]


async def test_one_store_goes_through_many_restarts(redis_server: RedisServer) -> None:
    async with RedisSessionStore(redis_server.url) as store:
        session = a_session(n=0)
        await store.save(session)
        for n in range(1, 4):
            redis_server.kill()
            with pytest.raises(SessionIOError) as caught:
                await store.load("s-1")
            assert caught.value.errno == errno.ECONNREFUSED
            with pytest.raises(SessionIOError) as caught:
                await store.append(session, a_record("s-1", n))
            assert not isinstance(caught.value, SaveOutcomeUnknownError)  # it was not sent
            redis_server.start()
            # Nobody is told that the connections are new ones.
            assert number(await store.load("s-1")) == n - 1
            session.metadata["n"] = session.loops[0].metadata["n"] = n
            await store.save(session)


@pytest.mark.parametrize("whose", ["its own", "given"])
async def test_connections_that_were_reset_while_they_were_idle_are_made_anew(
    redis_server: RedisServer, whose: str
) -> None:
    async with proxy_to(redis_server.port) as (proxy, url):
        client = redis.asyncio.Redis.from_url(url)
        async with RedisSessionStore(url if whose == "its own" else client) as store:
            sessions = [a_session(f"s-{n}") for n in range(5)]
            channel: Any = (await store._links.get()).channel
            calls: list[Callable[[Session], Awaitable[object]]] = [
                store.save,
                lambda session: store.append(session, a_record(session.session_id, 0)),
                lambda session: store.load(session.session_id),
                lambda session: store.delete(session.session_id),
            ]

            async def make(call: Callable[[Session], Awaitable[object]], session: Session) -> None:
                try:
                    await call(session)
                except SessionIOError:
                    assert whose == "given"  # it has its own rules, and need not ask again
                    await call(session)

            for call in calls:
                await asyncio.gather(*(make(call, session) for session in sessions))
                idle = (
                    channel._idle
                    if whose == "its own"
                    else client.connection_pool._available_connections
                )
                proxy.reset()

                async def are_reset(idle: list[Any] = idle) -> bool:
                    return all(each._writer.is_closing() for each in idle if each.is_connected)

                await eventually(are_reset)
            assert await ids_of_a_sound_server(redis_server) == []
        await client.aclose()


async def test_a_change_under_way_is_made_when_the_server_comes_back_in_time(
    redis_server: RedisServer,
) -> None:
    async with RedisSessionStore(redis_server.url) as store:
        session = a_session(n=1)
        await store.save(session)
        redis_server.pause()  # it is killed with the request in its hands
        session.metadata["n"] = session.loops[0].metadata["n"] = 2
        saving = asyncio.create_task(store.save(session))
        await asyncio.sleep(0.05)
        redis_server.kill()
        await asyncio.sleep(0.2)
        redis_server.start()
        await saving
        assert number(await store.load("s-1")) == 2


async def test_a_server_that_loads_its_data_is_not_ready(redis_program: str) -> None:
    # It looks at its connections once in two megabytes.
    slowly = {"key-load-delay": "20000", "rdbcompression": "no"}
    with RedisServer(redis_program, settings=slowly) as server:
        async with RedisSessionStore(server.url) as store:
            for n in range(10):
                await store.save(a_session(f"s-{n}", n=n))
                await store.append(f"s-{n}", a_record(f"s-{n}", n, text="x" * 1_000_000))
            with server.client() as client:
                client.bgrewriteaof()

            async def is_rewritten() -> bool:
                with server.client() as client:
                    return not client.info("persistence")["aof_rewrite_in_progress"]

            await eventually(is_rewritten)
            server.kill()
            starting = asyncio.create_task(asyncio.to_thread(server.start))
            seen: set[int | None] = set()
            while not starting.done():
                try:
                    await store.load("s-1")
                except SessionIOError as error:
                    seen.add(error.errno)
                await asyncio.sleep(0.001)
            await starting
            assert errno.EAGAIN in seen
            assert seen <= {errno.ECONNREFUSED, errno.EAGAIN}
            for n in range(10):
                assert (await store.load(f"s-{n}")).metadata["n"] == n


def test_a_power_cut_is_the_servers_matter() -> None:
    assert RedisSessionStore.lacks == frozenset({Promise.POWER_LOSS})


async def test_durable_waits_for_the_disk_or_says_that_it_cannot(redis_program: str) -> None:
    with RedisServer(redis_program, settings={"appendfsync": "everysec"}) as server:
        async with RedisSessionStore(server.url, durable=True, timeout=2.0) as store:
            if not _can_wait(server):
                with pytest.raises(SessionIOError, match=r"durable=True.*7\.2") as caught:
                    await store.save(a_session())
                assert not isinstance(caught.value, SaveOutcomeUnknownError)
                assert await store.list_ids() == []  # nothing was written
                return
            session = a_session(n=1)
            await store.save(session)
            session.metadata["n"] = session.loops[0].metadata["n"] = 2
            await store.save(session)
            assert number(await store.load("s-1")) == 2
            await store.append(session, a_record("s-1", 7))
            await store.delete("s-1")

            with server.client() as client:
                client.config_set("appendfsync", "no")
            begun = time.monotonic()
            session = a_session(n=3)
            with pytest.raises(SaveOutcomeUnknownError, match="disk") as unknown:
                await store.save(session)
            assert time.monotonic() - begun > 1.5
            assert unknown.value.session_id == "s-1"
            assert session.revision == (await store.load("s-1")).revision  # it can be seen

            with server.client() as client:
                client.config_set("appendonly", "no")
            with pytest.raises(SaveOutcomeUnknownError):
                await store.save(session)
            assert session.revision == (await store.load("s-1")).revision


def _can_wait(server: RedisServer) -> bool:
    with server.client() as client:
        try:
            client.execute_command("WAITAOF", 0, 0, 0)
        except redis.ResponseError:
            return False
        return True


async def test_durable_on_a_server_that_writes_no_log_is_refused(redis_program: str) -> None:
    with RedisServer(redis_program, settings={"appendonly": "no"}) as server:
        async with RedisSessionStore(server.url, durable=True) as store:
            with pytest.raises(SessionIOError, match="durable=True"):
                await store.save(a_session())
            assert await store.list_ids() == []
