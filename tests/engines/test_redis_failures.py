"""A server that cannot, or will not: each failure is a documented error, never the driver's."""

from __future__ import annotations

import errno
import importlib
import inspect
import pkgutil
import socket
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis_calls import CALLS, READS, WRITES, every_call_fails, leased
from redis_checks import (
    a_record,
    a_session,
    ids_of_a_sound_server,
    number,
    plain_client,
)

from benchmarks.servers.redis import RedisServer
from phi_sessions import (
    SessionError,
    SessionIOError,
)
from phi_sessions.stores.redis import RedisSessionStore
from phi_sessions.stores.redis.failures import DRIVER_ERRORS, translate


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
