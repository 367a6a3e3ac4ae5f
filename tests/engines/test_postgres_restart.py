"""The server is killed and started again: what was acknowledged is there, and the store goes on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from awaiting import ended
from conftest import scaled
from postgres_checks import number, record, version
from postgres_server import run_sql, start_server

from phi_sessions import (
    Revision,
    SaveOutcomeUnknownError,
    SessionIOError,
    SessionLockedError,
)
from phi_sessions.stores.postgres import PostgresSessionStore

WRITERS = 8


@pytest.fixture(scope="module")
def durable_server() -> Iterator[Any]:
    server = start_server(durable=True)
    try:
        yield server
    finally:
        server.close()


async def test_eight_writers_lose_nothing_that_was_acknowledged(durable_server: Any) -> None:
    store = PostgresSessionStore(durable_server.url(), pool_size=6, lock_timeout=20)
    acknowledged: dict[str, list[str]] = {f"s-{n}": [] for n in range(WRITERS)}
    unknown: dict[str, set[str]] = {name: set() for name in acknowledged}
    revisions: dict[str, Revision] = {}
    ends: Counter[str] = Counter()
    over = asyncio.Event()

    async def write(name: str) -> None:
        await store.save(version(0, name, size=0))
        k = 0
        while not over.is_set():
            k += 1
            added = record(k, name)
            try:
                revisions[name] = await store.append(name, added)
            except SaveOutcomeUnknownError:
                unknown[name].add(added.loop_id)
                ends["unknown"] += 1
            except SessionIOError:
                ends["not made"] += 1
                await asyncio.sleep(0.01)
            else:
                acknowledged[name].append(added.loop_id)

    async def enough(count: int) -> None:
        while min(len(kept) for kept in acknowledged.values()) < count:
            await asyncio.sleep(0.01)

    writers = [asyncio.create_task(write(name)) for name in acknowledged]
    async with asyncio.timeout(120):
        for turn in range(1, scaled(3) + 1):
            await enough(turn * 10)
            durable_server.kill()
            await asyncio.sleep(0.1)
            await asyncio.to_thread(durable_server.start)
        await enough((scaled(3) + 1) * 10)
    over.set()
    await asyncio.gather(*writers)
    for name, kept in acknowledged.items():
        found = await store.load(name)
        ids = found.loops.ids()
        assert set(kept) <= set(ids) <= set(kept) | unknown[name]
        assert [loop_id for loop_id in ids if loop_id in kept] == kept  # and in their order
        await store.save(found)
    assert ends["unknown"] + ends["not made"] > 0
    await store.aclose()


async def test_who_expects_a_state_knows_what_came_of_a_save(durable_server: Any) -> None:
    async with PostgresSessionStore(durable_server.url()) as store:
        await store.save(version(0, "held", size=1))
        session = await store.load("held")
        for turn in range(scaled(6)):
            session.metadata["n"] = session.loops[0].metadata["n"] = turn  # type: ignore[index]
            save = asyncio.create_task(store.save(session))
            await asyncio.sleep(turn * 0.0004)
            durable_server.kill()
            await asyncio.to_thread(durable_server.start)
            result = await ended(save)
            assert type(result) in (str, SessionIOError)  # a server that is back is asked
            found = await store.load("held")
            assert found.revision == session.revision
            number(found)
        await store.save(session)


async def test_a_lease_is_lost_with_its_server_and_can_be_taken_again(durable_server: Any) -> None:
    async with PostgresSessionStore(durable_server.url()) as store:
        with pytest.raises(SessionIOError, match="was lost"):
            async with store.lease("s-1"):
                durable_server.kill()
                durable_server.start()
                async with PostgresSessionStore(durable_server.url()) as other:
                    async with other.lease("s-1"):
                        pass
        async with store.lease("s-1"):
            async with PostgresSessionStore(durable_server.url()) as other:
                with pytest.raises(SessionLockedError):
                    async with other.lease("s-1"):
                        pass


async def test_a_commit_waits_for_the_disk_whatever_the_role_says(durable_server: Any) -> None:
    import asyncpg

    await run_sql(
        durable_server.url(),
        "DROP DATABASE IF EXISTS lax",
        "CREATE DATABASE lax",
        "ALTER DATABASE lax SET synchronous_commit = off",
    )
    url = durable_server.url("lax")
    async with PostgresSessionStore(url) as store:
        await store.save(version(0, size=0))
        put, replace = store._statements.put, store._statements.replace
    # Where the log stands on the disk just after a statement, and where the statement left it.
    behind: dict[tuple[str, bool], int] = {}
    connection = await asyncpg.connect(url)
    try:
        for name, durable in (("put", True), ("replace", True), ("put", False)):
            late = 0
            for k in range(20):
                new = (f"{k}{durable}{name}".encode(), b"l", [1], b"t" * 99, [99], [k])
                rest = (None, None) if name == "put" else (False, b"a", b"h", 1)
                query = put if name == "put" else replace
                rows = await connection.fetch(query, b"s-1", None, "1s", durable, *new, *rest)
                assert rows[0][1] is True
                late += await connection.fetchval(
                    "SELECT (pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn())::int"
                )
            behind[name, durable] = late
        assert await connection.fetchval("SHOW synchronous_commit") == "off"
        assert await connection.fetchval("SHOW lock_timeout") == "0"
    finally:
        await connection.close()
    assert behind["put", True] <= 2, behind  # the server itself writes to the log now and then
    assert behind["replace", True] <= 2, behind
    assert behind["put", False] >= 10, behind
