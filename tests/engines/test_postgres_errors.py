"""What goes wrong between the store and its server: each a documented error, none the driver's."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import pytest
from awaiting import ended, until
from postgres_checks import assert_quiet, busy, number, record, version
from postgres_server import run_sql, start_server

from phi_sessions import (
    SaveOutcomeUnknownError,
    SessionIOError,
    SessionLockedError,
    open_store,
)
from phi_sessions.stores.postgres import PostgresSessionStore
from phi_sessions.stores.postgres.driver import ERRORS, translate


async def cards(store: PostgresSessionStore) -> object:
    return [info async for info in store.infos()]


async def leased(store: PostgresSessionStore) -> None:
    async with store.lease("s-1"):
        pass


CALLS: dict[str, Callable[[PostgresSessionStore], Any]] = {
    "save": lambda store: store.save(version(1)),
    "load": lambda store: store.load("s-1"),
    "append": lambda store: store.append("s-1", record(1)),
    "delete": lambda store: store.delete("s-1"),
    "exists": lambda store: store.exists("s-1"),
    "list_ids": lambda store: store.list_ids(),
    "list_for_agent": lambda store: store.list_for_agent("a"),
    "infos": cards,
    "lease": leased,
}


async def assert_each_call_fails(store: PostgresSessionStore, number: int | None) -> None:
    for name, call in CALLS.items():
        with pytest.raises(SessionIOError) as caught:
            await call(store)
        error = caught.value
        assert type(error) is SessionIOError, name
        assert error.errno == number, name
        assert str(error.filename).startswith("postgresql://127.0.0.1:"), name
        assert error.__cause__ is not None, name


@contextmanager
def a_port_that_nobody_listens_to() -> Iterator[int]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


async def test_a_refused_connection() -> None:
    with a_port_that_nobody_listens_to() as port:
        async with PostgresSessionStore(f"postgresql://u:secret@127.0.0.1:{port}/x") as store:
            await assert_each_call_fails(store, errno.ECONNREFUSED)
            assert "secret" not in repr(store)


async def test_a_host_with_several_addresses_that_refuses() -> None:
    with a_port_that_nobody_listens_to() as port:
        async with PostgresSessionStore(f"postgresql://u:secret@localhost:{port}/x") as store:
            with pytest.raises(SessionIOError) as caught:
                await store.list_ids()
            assert caught.value.errno == errno.ECONNREFUSED


async def test_a_wrong_password(postgres_server: Any, postgres_url: str) -> None:
    name = postgres_url.rpartition("/")[2]
    async with PostgresSessionStore(postgres_server.url(name, password="wrong-one")) as store:
        await assert_each_call_fails(store, errno.EACCES)
        assert "wrong-one" not in str(await ended(store.list_ids()))


async def test_a_role_that_does_not_exist(postgres_server: Any) -> None:
    async with PostgresSessionStore(postgres_server.url(user="nobody-here")) as store:
        await assert_each_call_fails(store, errno.EACCES)


async def test_a_missing_database(postgres_server: Any) -> None:
    async with PostgresSessionStore(postgres_server.url("no_such_database")) as store:
        await assert_each_call_fails(store, errno.ENOENT)


async def test_a_host_that_is_not_known() -> None:
    async with PostgresSessionStore("postgresql://u:secret@no-such-host.invalid/x") as store:
        with pytest.raises(SessionIOError, match=r"no-such-host\.invalid/x") as caught:
            await store.list_ids()
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "dsn", ["postgresql://u:secret@h:port/x", "http://u:secret@h/x", "postgresql://u:secret@h:0/x"]
)
async def test_a_dsn_that_makes_no_sense(dsn: str) -> None:
    async with PostgresSessionStore(dsn) as store:
        with pytest.raises(SessionIOError) as caught:
            await store.list_ids()
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:sec/ret@h:5432/x",
        "postgresql://u:12/ret@h:5432/x",
        "postgresql://u:sec?ret@h:5432/x",
        "postgresql://u:sec?ret=2@h:5432/x",
        "postgresql://u:12sec?r=1&et=2@h:5432/x",
        "postgresql://u:sec#ret@h:5432/x",
        "postgresql://u:s@ec/ret@h:5432/x",
        "postgresql://u:[sec@h:5432/x",
        "postgresql://u:sec\u2100ret@h:5432/x",
        "postgresql:u:secret@h:5432/x",
    ],
)
def test_a_dsn_that_is_not_percent_encoded_is_refused_and_not_quoted(dsn: str) -> None:
    for store in (
        lambda: PostgresSessionStore(dsn),
        lambda: PostgresSessionStore("postgresql://localhost/x", lease_dsn=dsn),
        lambda: open_store(dsn),
    ):
        with pytest.raises(ValueError, match=r"percent-encoded|cannot be read") as caught:
            store()
        assert "sec" not in str(caught.value)
        assert "ret" not in str(caught.value)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u%40tenant:sec%2Fret@h:5432/x",
        "postgresql://h:5432/x?user=u@tenant&password=secret",
    ],
)
def test_a_dsn_that_is_percent_encoded_is_named_without_what_is_secret(dsn: str) -> None:
    assert repr(PostgresSessionStore(dsn)) == "PostgresSessionStore('postgresql://h:5432/x')"


def test_a_dsn_that_is_no_url_is_refused_and_not_quoted() -> None:
    dsn = "host=h user=u password=secret"
    for store in (
        lambda: PostgresSessionStore(dsn),
        lambda: PostgresSessionStore("postgresql://localhost/x", lease_dsn=dsn),
    ):
        with pytest.raises(ValueError, match="not the URL of a PostgreSQL server") as caught:
            store()
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("hosts", ["h", "h:1,i:2", "[::1]", "[::1]:5432,h", "%2Frun%2Fpg:5432"])
def test_the_hosts_of_a_dsn_that_is_percent_encoded_are_named(hosts: str) -> None:
    store = PostgresSessionStore(f"postgresql://{hosts}/x?user=u@tenant&password=secret")
    assert repr(store) == f"PostgresSessionStore('postgresql://{hosts}/x')"


async def test_a_server_that_takes_the_call_and_says_nothing() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        url = f"postgresql://u:secret@127.0.0.1:{mute.getsockname()[1]}/x"
        async with PostgresSessionStore(url, timeout=0.2) as store:
            begun = time.monotonic()
            await assert_each_call_fails(store, errno.ETIMEDOUT)
            assert time.monotonic() - begun < len(CALLS) * 2


async def test_something_else_that_listens_there() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        async with PostgresSessionStore(f"postgresql://u:p@127.0.0.1:{port}/x") as store:
            for call in CALLS.values():
                with pytest.raises(SessionIOError):
                    await call(store)


async def test_a_given_pool_whose_only_connection_another_holds(postgres_url: str) -> None:
    async with asyncpg.create_pool(postgres_url, min_size=1, max_size=1) as pool:
        async with PostgresSessionStore(pool, timeout=0.2) as store:
            await store.save(version(1))
            async with pool.acquire():
                for call in CALLS.values():
                    with pytest.raises(SessionIOError) as caught:
                        await call(store)
                    assert caught.value.errno == errno.ETIMEDOUT
            assert number(await store.load("s-1")) == 1
            assert pool.get_idle_size() == 1


async def test_a_given_pool_that_was_closed_or_never_opened(postgres_url: str) -> None:
    for make in (asyncpg.create_pool(postgres_url), await asyncpg.create_pool(postgres_url)):
        async with PostgresSessionStore(make) as store:
            if make._initialized:
                await make.close()
            for call in CALLS.values():
                with pytest.raises(SessionIOError, match="pool"):
                    await call(store)


async def test_a_pool_of_our_own_that_is_full(postgres_url: str) -> None:
    async with PostgresSessionStore(postgres_url, pool_size=1, timeout=0.3) as store:
        await store.save(version(1))
        connection = await asyncpg.connect(postgres_url)
        async with connection.transaction():
            await connection.execute("LOCK TABLE phi_records")
            first = asyncio.create_task(store.save(version(2)))
            [client] = store._server._opened
            pool: Any = client.connections
            await until(pool._free.locked)
            second = await ended(store.load("s-1"))
            assert isinstance(second, SessionIOError)
            assert second.errno == errno.ETIMEDOUT
            assert isinstance(await ended(first), SessionIOError)
        await connection.close()
        await store.save(version(3))


async def test_too_many_connections(postgres_server: Any, postgres_url: str) -> None:
    name = postgres_url.rpartition("/")[2]
    async with PostgresSessionStore(postgres_url) as store:
        await store.save(version(1))
    await run_sql(
        postgres_url,
        "CREATE ROLE crowded LOGIN PASSWORD 'secret' CONNECTION LIMIT 0",
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO crowded",
    )
    try:
        url = postgres_server.url(name, user="crowded", password="secret")
        async with PostgresSessionStore(url) as store:
            await assert_each_call_fails(store, errno.EAGAIN)
    finally:
        await run_sql(postgres_url, "DROP OWNED BY crowded", "DROP ROLE crowded")


async def test_a_read_of_a_table_that_is_locked_ends_in_time(postgres_url: str) -> None:
    async with PostgresSessionStore(postgres_url, timeout=0.3) as store:
        await store.save(version(1))
        connection = await asyncpg.connect(postgres_url)
        async with connection.transaction():
            await connection.execute("LOCK TABLE phi_sessions")
            for name in ("load", "exists", "list_ids", "list_for_agent", "infos"):
                begun = time.monotonic()
                with pytest.raises(SessionIOError) as caught:
                    await CALLS[name](store)
                assert caught.value.errno == errno.ETIMEDOUT
                assert time.monotonic() - begun < 2
        await connection.close()
        await assert_quiet(postgres_url, store)
        assert number(await store.load("s-1")) == 1


async def test_tables_that_were_dropped_meanwhile(postgres_url: str) -> None:
    async with PostgresSessionStore(postgres_url) as store:
        await store.save(version(1))
        await run_sql(postgres_url, "DROP TABLE phi_sessions, phi_records, phi_leases")
        for call in CALLS.values():
            with pytest.raises(SessionIOError, match="dropped meanwhile"):
                await call(store)


async def test_a_statement_that_the_server_cancels(postgres_url: str) -> None:
    name = postgres_url.rpartition("/")[2]
    async with PostgresSessionStore(postgres_url) as store:
        await store.save(version(1))
    await run_sql(postgres_url, f"ALTER DATABASE {name} SET statement_timeout = '200ms'")
    async with PostgresSessionStore(postgres_url) as store:
        connection = await asyncpg.connect(postgres_url)
        async with connection.transaction():
            await connection.execute("LOCK TABLE phi_sessions")
            for call in ("load", "save"):
                with pytest.raises(SessionIOError, match="statement timeout") as caught:
                    await CALLS[call](store)
                assert caught.value.errno == errno.ETIMEDOUT
        await connection.close()
        assert number(await store.load("s-1")) == 1


async def test_connections_that_the_server_ended_while_idle_are_replaced(
    postgres_url: str,
) -> None:
    async with PostgresSessionStore(postgres_url) as store:
        session = version(1)
        await store.save(session)
        for _ in range(3):
            await run_sql(
                postgres_url,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
            assert number(await store.load("s-1")) == 1
            await store.save(session)


async def test_a_server_that_stands_still_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phi_sessions.stores.postgres.attempts._ASKING", 0.5)
    server = start_server()
    try:
        async with PostgresSessionStore(server.url(), timeout=0.4) as store:
            session = version(1)
            await store.save(session)
            server.pause()
            begun = time.monotonic()
            saved = await ended(store.save(session))  # through the connection that it has
            read, listed = await asyncio.gather(ended(store.load("s-1")), ended(store.list_ids()))
            assert time.monotonic() - begun < 15
            for error in (read, listed):  # these had to connect first
                assert type(error) is SessionIOError
                assert error.errno == errno.ETIMEDOUT
            assert type(saved) is SaveOutcomeUnknownError
            server.resume()
            await until(lambda: is_quiet(server.url()))
            # Whatever came of the save, what is stored is whole.
            found = await store.load("s-1")
            assert number(found) == 1
            await store.save(found)
    finally:
        server.close()


async def is_quiet(url: str) -> bool:
    return await busy(url) == []


def _classes(base: type) -> Iterator[type]:
    for child in base.__subclasses__():
        yield child
        yield from _classes(child)


def test_no_error_of_the_driver_is_unmapped() -> None:
    exported = {
        kind
        for kind in vars(asyncpg.exceptions).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    }
    inside = {kind for kind in _classes(Exception) if kind.__module__.startswith("asyncpg")}
    kinds = {
        kind
        for kind in exported | inside
        if not issubclass(kind, Warning) and not kind.__name__.startswith("_")
    }
    assert len(kinds) > 200
    for kind in kinds:
        assert issubclass(kind, ERRORS), kind
        error = kind("it failed")
        translated = translate(error, "postgresql://h/d", "s-1")
        expected = (
            SessionLockedError if kind.__name__ == "LockNotAvailableError" else SessionIOError
        )
        assert type(translated) is expected, kind
        assert translated.session_id == "s-1"
        assert "it failed" in str(translated) or isinstance(translated, SessionLockedError)
