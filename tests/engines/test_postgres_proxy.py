"""Behind a proxy that gives each transaction another connection; nothing is left on any of them."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from awaiting import until
from conftest import scaled
from postgres_checks import number, record, version
from postgres_wire import wire_to

from phi_sessions import Expect, SessionIOError, SessionLockedError
from phi_sessions.stores.postgres import PostgresSessionStore

# PgBouncer is no program that pip installs: it is tried where it is at hand.
PROXIES = ["no proxy", *(["pgbouncer"] if shutil.which("pgbouncer") else [])]

CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {place}/users
pool_mode = transaction
default_pool_size = 2
"""


@contextmanager
def bouncer(server: Any) -> Iterator[int]:
    """Start a PgBouncer with two connections to the server; give its port."""
    with TemporaryDirectory(prefix="phi-pgbouncer-") as made:
        place = Path(made)
        place.chmod(0o755)  # it does not start as root, and must read its files as another
        yield from _started(server, place)


def _started(server: Any, place: Path) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    (place / "users").write_text(f'"postgres" "{server.password}"\n')
    settings = CONFIGURATION.format(server=server.port, port=port, place=place)
    (place / "settings").write_text(settings)
    user: dict[str, Any] = {"user": "nobody"} if os.getuid() == 0 else {}
    command = ["pgbouncer", "-q", str(place / "settings")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, **user)
    try:
        yield port
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture(params=PROXIES)
async def proxy_url(
    request: pytest.FixtureRequest, postgres_server: Any, postgres_url: str
) -> AsyncIterator[str]:
    if request.param == "no proxy":
        yield postgres_url
        return
    with bouncer(postgres_server) as port:
        parts = urlsplit(postgres_url)
        url = f"postgresql://{parts.username}:{parts.password}@127.0.0.1:{port}{parts.path}"
        await until(lambda: _answers(url))
        yield url


async def _answers(url: str) -> bool:
    try:
        await (await asyncpg.connect(url, statement_cache_size=0)).close()
    except OSError:
        return False
    return True


async def test_everything_works_without_prepared_statements(
    proxy_url: str, postgres_url: str
) -> None:
    options: dict[str, Any] = {"statement_cache_size": 0, "lease_dsn": postgres_url}
    stores = [PostgresSessionStore(proxy_url, lock_timeout=20, **options) for _ in range(4)]
    await stores[0].save(version(0, size=0))

    async def work(n: int, store: PostgresSessionStore) -> None:
        for k in range(scaled(10)):
            await store.append("s-1", record(n * 100 + k))
            name = f"own-{n}"
            await store.save(version(k, name, size=k % 4), expect=Expect.ANYTHING)
            session = await store.load(name)
            assert number(session) == k
            await store.save(session)
            assert name in await store.list_ids()
            assert name in [info.session_id async for info in store.infos(agent_id="a")]
            assert name in [session.session_id for session in await store.list_for_agent("a")]
            if k % 5 == 4:
                await store.delete(name)

    await asyncio.gather(*(work(n, store) for n, store in enumerate(stores)))
    assert len((await stores[0].load("s-1")).loops) == 4 * scaled(10)
    async with stores[0].lease("s-1", owner="me"):
        with pytest.raises(SessionLockedError) as caught:
            async with stores[1].lease("s-1"):
                pass
        assert caught.value.holder.owner == "me"
    await asyncio.gather(*(store.aclose() for store in stores))


async def test_prepared_statements_that_a_proxy_mixes_up_are_told_of(proxy_url: str) -> None:
    async with PostgresSessionStore(proxy_url) as store:
        saves = (store.save(version(n, f"s-{n}")) for n in range(40))
        results = await asyncio.gather(*saves, return_exceptions=True)
        failures = [result for result in results if not isinstance(result, str)]
    for failure in failures:  # none where the proxy knows of them, or is none
        assert isinstance(failure, SessionIOError)
        assert "the store needs statement_cache_size=0" in str(failure)


async def test_no_statement_leaves_anything_on_its_connection(postgres_url: str) -> None:
    async with asyncpg.create_pool(
        postgres_url, min_size=1, max_size=1, statement_cache_size=0, reset=_leave
    ) as pool:
        settings = "SELECT name, setting FROM pg_settings ORDER BY name"
        before = await pool.fetch(settings)
        async with PostgresSessionStore(pool, lock_timeout=7) as store:
            for n in range(3):
                await store.save(version(n, size=n), expect=Expect.ANYTHING)
                session = await store.load("s-1")
                await store.append(session, record(9))
                await store.save(session)
            with pytest.raises(Exception, match="already exists"):
                await store.save(version(1), expect=Expect.ABSENT)
            await store.delete("s-1")
            async with store.lease("s-1"):
                pass
        assert await pool.fetch(settings) == before
        assert await pool.fetch("SELECT name FROM pg_prepared_statements") == []
        held = "SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'"
        assert await pool.fetch(held) == []


async def _leave(connection: Any) -> None:
    """Take a connection back as it is."""


async def test_a_call_is_one_round_trip(postgres_url: str) -> None:
    async with (
        wire_to(postgres_url) as wire,
        PostgresSessionStore(wire.url, pool_size=1) as store,
    ):
        session = version(0, size=2)
        await store.save(session)
        calls = {
            "save": lambda: store.save(session),
            "save of all": lambda: store.save(version(1, size=2), expect=Expect.ANYTHING),
            "append": lambda: store.append("s-1", record(1)),
            "load": lambda: store.load("s-1"),
            "list_ids": lambda: store.list_ids(),
            "list_for_agent": lambda: store.list_for_agent("a"),
            "exists": lambda: store.exists("s-1"),
        }
        for name, call in calls.items():
            await call()  # it is prepared now
            before = wire.said
            await call()
            assert wire.said == before + 1, name
