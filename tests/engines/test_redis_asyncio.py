"""Event loops, cancellation, forks, and clients that are closed, or are not ours to close."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from blockbuster import blockbuster_ctx
from redis_checks import (
    a_record,
    a_session,
    eventually,
    ids_of_a_sound_server,
    number,
    plain_client,
)

from benchmarks.servers.redis import RedisServer
from phi_sessions import Expect, Session, SessionError, SessionTaskError
from phi_sessions.stores.redis import RedisSessionStore

PROGRAMS = str(Path(__file__).with_name("redis_programs.py"))
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


async def _save(store: RedisSessionStore) -> None:
    await store.save(a_session(n=2, size=3), expect=Expect.ANYTHING)


async def _append(store: RedisSessionStore) -> None:
    await store.append("s-1", a_record("s-1", 7))


async def _delete(store: RedisSessionStore) -> None:
    await store.delete("s-1")


async def _lease(store: RedisSessionStore) -> None:
    async with store.lease("s-1"):
        await asyncio.sleep(0)


CHANGES: dict[str, Callable[[RedisSessionStore], Awaitable[None]]] = {
    "save": _save,
    "append": _append,
    "delete": _delete,
    "lease": _lease,
}


@pytest.mark.parametrize("name", CHANGES)
async def test_a_call_cancelled_at_any_await_leaves_the_old_state_or_the_new(
    redis_server: RedisServer, redis_store: RedisSessionStore, name: str
) -> None:
    async with RedisSessionStore(redis_server.url) as other:
        cancelled, was_new = 0, set[bool]()
        for passes in range(400):
            old = a_session(n=1)
            await other.save(old, expect=Expect.ANYTHING)
            task = asyncio.ensure_future(CHANGES[name](redis_store))
            for _ in range(passes * 3):
                if task.done():
                    break
                await asyncio.sleep(0)
            is_over = task.done()
            task.cancel()
            await asyncio.wait([task])
            found = await other.find("s-1")
            assert _is_old_or_new(name, found, old)
            was_new.add(found is None or found.revision != old.revision)
            cancelled += task.cancelled()
            if name == "lease":
                async with other.lease("s-1"):
                    pass
            await asyncio.sleep(0.001)
            after = await other.find("s-1")
            assert (after and after.revision) == (found and found.revision)  # nothing runs still
            if is_over and passes > 3:
                break
        assert cancelled > 1
        assert was_new == ({False} if name == "lease" else {False, True})
    await ids_of_a_sound_server(redis_server)


def _is_old_or_new(name: str, found: Session | None, old: Session) -> bool:
    if found is None:
        return name == "delete"
    if found.revision == old.revision:
        return number(found) == 1
    return found.loops.ids() == ["s-1.0", "s-1.7"] or (number(found) == 2 and len(found.loops) == 3)


async def test_a_cancelled_read_leaves_the_connections_in_order(
    redis_store: RedisSessionStore,
) -> None:
    await redis_store.save(a_session(n=1, size=20))
    for passes in range(60):
        calls: list[Any] = [redis_store.load("s-1"), redis_store.list_ids()]
        tasks = [asyncio.ensure_future(call) for call in calls]
        for _ in range(passes):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert number(await redis_store.load("s-1")) == 1
        assert await redis_store.list_ids() == ["s-1"]


async def test_no_call_blocks_the_event_loop(redis_server: RedisServer) -> None:
    with blockbuster_ctx():
        async with RedisSessionStore(redis_server.url) as store:
            session = a_session(n=1, size=3)
            await store.save(session)
            await store.append(session, a_record("s-1", 7))
            await store.load("s-1")
            await store.list_ids()
            await store.list_for_agent("a")
            assert [info.session_id async for info in store.infos()] == ["s-1"]
            async with store.lease("s-1"):
                pass
            await store.delete("s-1")


def test_runs_one_after_another_share_a_store(redis_server: RedisServer) -> None:
    store = RedisSessionStore(redis_server.url)

    async def use(n: int) -> None:
        await asyncio.gather(*(store.save(a_session(f"s-{k}", n=n)) for k in range(5)))
        assert number(await store.load("s-3")) == n
        assert len(await store.list_ids()) == 5

    for n in range(4):
        asyncio.run(use(n))
    asyncio.run(store.aclose())
    assert _connections(redis_server) == 0


def test_a_run_that_is_left_in_the_middle_leaves_no_connection(redis_server: RedisServer) -> None:
    store = RedisSessionStore(redis_server.url)
    kept: list[asyncio.Task[Any]] = []

    async def leave() -> None:
        kept.extend(asyncio.create_task(store.save(a_session(f"s-{n}"))) for n in range(20))
        await asyncio.sleep(0.001)

    for _ in range(5):
        asyncio.run(leave())
        assert _connections(redis_server) == 0
    asyncio.run(store.save(a_session()))
    asyncio.run(store.aclose())


def _connections(server: RedisServer) -> int:
    with server.client() as client:
        return len(client.client_list()) - 1


def test_loops_in_two_threads_share_a_store(redis_server: RedisServer) -> None:
    store = RedisSessionStore(redis_server.url)
    failures: list[BaseException] = []

    async def count() -> None:
        for _ in range(20):
            await store.update(
                "s-1",
                lambda session: session.metadata.update(n=session.metadata["n"] + 1),
                create=lambda: Session("s-1", "a", metadata={"n": 0}),
            )

    def run() -> None:
        try:
            asyncio.run(count())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []

    async def end() -> None:
        assert (await store.load("s-1")).metadata["n"] == 60
        await store.aclose()

    asyncio.run(end())


def test_a_store_can_be_closed_from_another_loop(redis_server: RedisServer) -> None:
    store = RedisSessionStore(redis_server.url)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(store.save(a_session()), loop).result(10)
        saving = [
            asyncio.run_coroutine_threadsafe(store.save(a_session(f"s-{n}")), loop)
            for n in range(30)
        ]
        asyncio.run(store.aclose())
        for future in saving:
            error = future.exception(10)
            assert error is None or isinstance(error, SessionTaskError)
        with pytest.raises(SessionTaskError):
            asyncio.run_coroutine_threadsafe(store.load("s-1"), loop).result(10)
        assert _connections(redis_server) == 0
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def test_a_close_waits_for_what_is_under_way(redis_server: RedisServer) -> None:
    store = RedisSessionStore(redis_server.url)
    await store.save(a_session())
    redis_server.pause()
    try:
        saving = asyncio.create_task(store.save(a_session(n=2)))
        await asyncio.sleep(0.02)
        closing = asyncio.create_task(store.aclose())
        await asyncio.sleep(0.05)
        assert not closing.done()
    finally:
        redis_server.resume()
    await closing
    assert await saving
    async with RedisSessionStore(redis_server.url) as other:
        assert number(await other.load("s-1")) == 2


async def test_a_client_that_was_given_is_not_closed(redis_server: RedisServer) -> None:
    async with plain_client(redis_server) as client:
        async with RedisSessionStore(client) as store:
            await store.save(a_session())
        with pytest.raises(SessionTaskError):
            await store.load("s-1")
        assert await client.ping()
        connections = client.connection_pool._available_connections
        assert all(connection.is_connected for connection in connections)


async def test_clients_of_a_function_are_closed(redis_server: RedisServer) -> None:
    made: list[redis.asyncio.Redis] = []

    def make() -> redis.asyncio.Redis:
        made.append(redis.asyncio.Redis(port=redis_server.port, decode_responses=True))
        return made[-1]

    async with RedisSessionStore(make) as store:
        await asyncio.gather(*(store.save(a_session(f"s-{n}")) for n in range(9)))
        assert number(await store.load("s-1")) == 0
    assert len(made) == 1
    assert not any(c.is_connected for c in made[0].connection_pool._available_connections)


def test_a_client_that_was_given_stays_with_its_loop(redis_server: RedisServer) -> None:
    client = redis.asyncio.Redis(port=redis_server.port)
    store = RedisSessionStore(client)

    async def use() -> None:
        await store.save(a_session())
        await client.aclose()

    asyncio.run(use())
    with pytest.raises(SessionTaskError, match="another event loop"):
        asyncio.run(store.load("s-1"))


def run(program: str, *args: object) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", PROGRAMS, program, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=60,
        env=ENVIRONMENT,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
async def test_parent_and_child_go_on_with_the_same_store(redis_server: RedisServer) -> None:
    assert await asyncio.to_thread(run, "fork", redis_server.url) == "done\n"
    async with RedisSessionStore(redis_server.url) as store:
        for n in (*range(22), 100, 200, 201):
            assert number(await store.load(f"s-{n}")) == n


async def test_a_process_that_closes_nothing_ends_in_peace(redis_server: RedisServer) -> None:
    assert await asyncio.to_thread(run, "exit_unclosed", redis_server.url) == "done\n"


async def test_a_store_that_is_dropped_unclosed_warns_and_lets_go(
    redis_server: RedisServer,
) -> None:
    stores = [RedisSessionStore(redis_server.url)]
    await stores[0].save(a_session())
    gc.collect()
    with pytest.warns(ResourceWarning, match="unclosed RedisSessionStore") as caught:
        stores.clear()
    assert len(caught) == 1
    del caught  # the warning holds the store
    gc.collect()

    async def are_closed() -> bool:
        async with plain_client(redis_server) as client:
            return len(await client.client_list()) == 1

    await eventually(are_closed)


async def test_a_store_that_was_never_used_or_was_closed_does_not_warn(
    redis_server: RedisServer,
) -> None:
    unused = RedisSessionStore(redis_server.url)  # warnings are errors in this suite
    async with RedisSessionStore(redis_server.url) as closed:
        await closed.save(a_session())
    await closed.aclose()
    del unused, closed
    gc.collect()


async def test_a_store_closed_while_calls_wait_for_a_connection(redis_server: RedisServer) -> None:
    store = RedisSessionStore(redis_server.url, max_connections=1)
    sessions = [a_session(f"s-{n % 7}") for n in range(40)]
    tasks = [asyncio.create_task(store.save(session)) for session in sessions]
    await asyncio.sleep(0.001)
    await store.aclose()
    for session, result in zip(
        sessions, await asyncio.gather(*tasks, return_exceptions=True), strict=True
    ):
        assert result == session.revision or isinstance(result, SessionTaskError)
        assert not isinstance(result, SessionError) or session.revision is None
    assert await ids_of_a_sound_server(redis_server) is not None
    async with plain_client(redis_server) as client:
        assert len(await client.client_list()) == 1
