"""A real PostgreSQL server for the tests: started when a test asks for it, on loopback."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

ROOT = str(Path(__file__).parents[1])
if ROOT not in sys.path:  # the server's starter is the benchmarks' as well
    sys.path.append(ROOT)

_numbers = count()


def start_server(**options: Any) -> Any:
    """Return a running server; a test that cannot have one is skipped."""
    from benchmarks.servers.postgres import PostgresServer, PostgresUnavailableError

    try:
        server = PostgresServer(**options)
        server.start()
    except PostgresUnavailableError as reason:
        pytest.skip(f"no PostgreSQL server: {reason}")
    return server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Any]:
    """One server for all tests; it is faster than durable, which only a power cut would show."""
    server = start_server()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
async def postgres_url(postgres_server: Any) -> AsyncIterator[str]:
    """The URL of an empty database, whose owner is the server's superuser."""
    name = f"test_{next(_numbers)}"
    await run_sql(postgres_server.url(), f"CREATE DATABASE {name}")
    try:
        yield postgres_server.url(name)
    finally:
        await run_sql(postgres_server.url(), f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_sync_url(postgres_server: Any) -> Iterator[str]:
    """As `postgres_url`, for a test that runs loops of its own."""
    name = f"test_{next(_numbers)}"
    asyncio.run(run_sql(postgres_server.url(), f"CREATE DATABASE {name}"))
    try:
        yield postgres_server.url(name)
    finally:
        asyncio.run(run_sql(postgres_server.url(), f"DROP DATABASE {name} WITH (FORCE)"))


async def run_sql(url: str, *statements: str) -> list[Any]:
    """Run statements, each in a transaction of its own, and return the rows of the last."""
    import asyncpg

    rows: list[Any] = []
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            rows = await connection.fetch(statement)
    finally:
        await connection.close()
    await asyncio.sleep(0)  # its transport is closed for good
    return rows
