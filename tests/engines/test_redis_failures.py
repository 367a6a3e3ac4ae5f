"""A server that cannot, or will not: each failure is a documented error, never the driver's."""

from __future__ import annotations

import asyncio
import errno
import importlib
import inspect
import pkgutil
import socket
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis_checks import (
    a_record,
    a_session,
    eventually,
    ids_of_a_sound_server,
    number,
    plain_client,
)

from benchmarks.servers.redis import RedisServer
from phi_sessions import (
    Expect,
    SaveOutcomeUnknownError,
    SessionCorruptError,
    SessionError,
    SessionIOError,
    SessionLockedError,
    SessionNotFoundError,
    SessionStore,
)
from phi_sessions.stores.redis import RedisSessionStore
from phi_sessions.stores.redis.failures import DRIVER_ERRORS, translate


async def cards(store: SessionStore) -> object:
    return [info async for info in store.infos()]


async def leased(store: RedisSessionStore) -> object:
    async with store.lease("s-1"):
        return None


READS: dict[str, Callable[[RedisSessionStore], Awaitable[object]]] = {
    "load": lambda store: store.load("s-1"),
    "find": lambda store: store.find("s-1"),
    "exists": lambda store: store.exists("s-1"),
    "list_ids": lambda store: store.list_ids(),
    "list_for_agent": lambda store: store.list_for_agent("a"),
    "infos": cards,
}
WRITES: dict[str, Callable[[RedisSessionStore], Awaitable[object]]] = {
    "save": lambda store: store.save(a_session(n=2)),
    "append": lambda store: store.append("s-1", a_record("s-1", 9)),
    "update": lambda store: store.update("s-1", lambda session: None),
    "delete": lambda store: store.delete("s-1"),
}
CALLS = {**READS, **WRITES, "lease": leased}


async def every_call_fails(
    store: RedisSessionStore,
    number: int | None,
    calls: dict[str, Callable[[RedisSessionStore], Awaitable[object]]] = CALLS,
) -> None:
    for name, call in calls.items():
        with pytest.raises(SessionIOError) as caught:
            await call(store)
        error = caught.value
        assert error.errno == number, (name, error)
        assert not isinstance(error, SaveOutcomeUnknownError), (name, error)
        assert isinstance(error.__cause__, DRIVER_ERRORS)
        assert (error.session_id == "s-1") == (name not in {"list_ids", "list_for_agent", "infos"})
        assert "secret" not in f"{error} {error.filename} {error!r} {store!r}"
        assert str(error.filename).startswith(("redis://127.0.0.1:", "unix://"))


async def test_a_refused_connection() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        async with RedisSessionStore(f"redis://me:secret@127.0.0.1:{port}/3") as store:
            begun = time.monotonic()
            await every_call_fails(store, errno.ECONNREFUSED)
            assert time.monotonic() - begun < 5
            assert repr(store) == f"RedisSessionStore('redis://127.0.0.1:{port}/3')"
    async with RedisSessionStore("unix:///nowhere/redis.sock?password=secret") as store:
        await every_call_fails(store, errno.ENOENT)


async def test_a_refused_connection_of_a_client_that_tries_once() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        client = redis.asyncio.Redis(
            port=probe.getsockname()[1], host="127.0.0.1", retry=Retry(NoBackoff(), 0)
        )
        async with RedisSessionStore(client) as store:
            await every_call_fails(store, errno.ECONNREFUSED)
        await client.aclose()


async def test_a_host_that_has_no_address() -> None:
    async with RedisSessionStore("redis://nowhere.invalid") as store:
        with pytest.raises(SessionIOError, match=r"nowhere\.invalid"):
            await store.load("s-1")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1", "127.0.0.1:6379", "redis://h:port", "redis://h?db=x", ""]
)
def test_a_url_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError):
        RedisSessionStore(url)


def test_options_that_make_no_sense_are_refused_at_once() -> None:
    for options in ({"ttl": 0}, {"ttl": -1}, {"prefix": "a{b"}, {"max_connections": 0}):
        with pytest.raises(ValueError):
            RedisSessionStore("redis://127.0.0.1", **options)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        RedisSessionStore(6379)  # type: ignore[arg-type]


@asynccontextmanager
async def a_user(server: RedisServer, *rules: str) -> AsyncIterator[str]:
    """Make a user named `me`; yield the URL with the right password."""
    async with plain_client(server) as client:
        await client.execute_command("ACL", "SETUSER", "me", "on", ">secret", *rules)
        try:
            yield server.url.replace("//", "//me:secret@")
        finally:
            await client.execute_command("ACL", "DELUSER", "me")


async def test_a_wrong_password(redis_server: RedisServer) -> None:
    async with a_user(redis_server, "~*", "+@all") as url:
        async with RedisSessionStore(url) as store:
            await store.save(a_session())
        async with RedisSessionStore(url.replace("secret", "not-secret")) as store:
            await every_call_fails(store, errno.EACCES)


async def test_no_password_where_one_is_asked_for(redis_server: RedisServer) -> None:
    async with plain_client(redis_server) as client:
        await client.config_set("requirepass", "secret")
        try:
            async with RedisSessionStore(redis_server.url) as store:
                await every_call_fails(store, errno.EACCES)
        finally:
            await client.config_set("requirepass", "")


async def test_the_rights_that_the_docstring_names_are_enough(redis_server: RedisServer) -> None:
    rules = ("~{phi:*", "+@read", "+@write", "+@scripting", "+time")
    async with a_user(redis_server, *rules) as url, RedisSessionStore(url) as store:
        session = a_session()
        await store.save(session)
        await store.append(session, a_record("s-1", 5))
        async with store.lease("s-1"):
            assert await store.list_ids() == ["s-1"]
            assert len(await store.list_for_agent("a")) == 1
        await store.delete("s-1")
        async with RedisSessionStore(url, prefix="theirs") as others:
            await every_call_fails(others, errno.EACCES)


async def test_a_user_who_may_only_read(
    redis_server: RedisServer, redis_store: RedisSessionStore
) -> None:
    await redis_store.save(a_session(n=1))
    rules = ("~*", "+@read", "+@scripting", "+time")
    async with a_user(redis_server, *rules) as url, RedisSessionStore(url) as store:
        for call in READS.values():
            await call(store)
        await every_call_fails(store, errno.EACCES, WRITES)
    assert number(await redis_store.load("s-1")) == 1
    await ids_of_a_sound_server(redis_server)


async def test_a_replica_can_be_read_and_not_written(
    redis_server: RedisServer, redis_store: RedisSessionStore
) -> None:
    await redis_store.save(a_session(n=1))
    async with plain_client(redis_server) as client:
        await client.replicaof("127.0.0.1", 1)
        try:
            for call in READS.values():
                await call(redis_store)
            await every_call_fails(redis_store, errno.EROFS, WRITES)
        finally:
            await client.replicaof("no", "one")
    assert number(await redis_store.load("s-1")) == 1


async def test_a_server_without_memory_keeps_what_it_has(
    redis_server: RedisServer, redis_store: RedisSessionStore
) -> None:
    session = a_session(n=1)
    await redis_store.save(session)
    async with plain_client(redis_server) as client:
        await client.config_set("maxmemory", "1")
        try:
            grow = {name: WRITES[name] for name in ("save", "append", "update")}
            await every_call_fails(redis_store, errno.ENOMEM, {**grow, "lease": leased})
            for call in READS.values():
                await call(redis_store)
            assert number(await redis_store.load("s-1")) == 1
            assert await ids_of_a_sound_server(redis_server) == ["s-1"]
            await redis_store.delete("s-1")  # which makes room
        finally:
            await client.config_set("maxmemory", "0")
    await redis_store.save(a_session())


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


async def test_a_key_of_somebody_else_is_damage(
    redis_server: RedisServer, redis_store: RedisSessionStore
) -> None:
    await redis_store.save(a_session())
    place = redis_store._layout.place("s-1")
    async with plain_client(redis_server) as client:
        await client.set(place.session, "not ours")
        for name in ("load", "list_for_agent", "infos", "save", "append", "update", "delete"):
            with pytest.raises(SessionCorruptError) as caught:
                await CALLS[name](redis_store)
            assert caught.value.path == place.session.decode()
            assert caught.value.session_id == "s-1"
            assert await client.get(place.session) == b"not ours"
        assert await redis_store.exists("s-1")
        assert await redis_store.list_for_agent("a", on_error="skip") == []
        await redis_store.save(a_session(n=7), expect=Expect.ANYTHING)
        assert number(await redis_store.load("s-1")) == 7
        await redis_store.delete("s-1")
        with pytest.raises(SessionNotFoundError):
            await redis_store.load("s-1")


_ELSEWHERE = {
    "redis.event",  # what a listener of the user's own raised
    "redis.http.http_client",  # of a client for something else
    "redis.commands.graph.exceptions",
}


def _all_errors() -> list[type[Exception]]:
    found: set[type[Exception]] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in pkgutil.walk_packages(redis.__path__, "redis."):
            if ".multidb" in module.name:
                continue  # another client, which is none that the store takes
            try:
                members = vars(importlib.import_module(module.name)).values()
            except ImportError:
                continue  # it needs what is not installed, and cannot be in use
            for member in members:
                if inspect.isclass(member) and issubclass(member, Exception):
                    found.add(member)
    theirs = (kind for kind in found if kind.__module__ not in _ELSEWHERE)
    return sorted(
        (kind for kind in theirs if kind.__module__.startswith("redis.")),
        key=lambda kind: f"{kind.__module__}.{kind.__name__}",
    )


def _made(kind: type[Exception]) -> Exception:
    text = "MOVED 1 127.0.0.1:1" if kind.__name__ in {"AskError", "MovedError"} else "something"
    error = kind.__new__(kind)
    error.args = (text,)
    return error


def test_the_whole_tree_of_the_drivers_errors_is_mapped() -> None:
    kinds = _all_errors()
    assert len(kinds) > 30
    for kind in kinds:
        assert issubclass(kind, DRIVER_ERRORS), kind
        error = translate(_made(kind), "redis://127.0.0.1:1/0", "s-1")
        assert isinstance(error, SessionError)
        assert error.session_id == "s-1"


@pytest.mark.parametrize("kind", _all_errors(), ids=lambda kind: kind.__name__)
async def test_whatever_the_driver_raises_the_caller_gets_a_session_error(
    kind: type[Exception],
) -> None:
    class Failing(redis.asyncio.Redis):  # type: ignore[type-arg, unused-ignore]
        async def execute_command(self, *args: Any, **options: Any) -> Any:
            raise _made(kind)

    client = Failing(port=1)
    async with RedisSessionStore(client, timeout=0.01) as store:
        for call in CALLS.values():
            with pytest.raises(SessionIOError) as caught:
                await call(store)
            assert isinstance(caught.value.__cause__, kind)
    await client.aclose()
