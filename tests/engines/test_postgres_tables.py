"""The tables: made by one of many, named as asked for, brought up to date, read by indexes."""

from __future__ import annotations

import asyncio
import errno
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from postgres_checks import number, record, version
from postgres_server import run_sql

from phi_sessions import SessionIOError
from phi_sessions.stores.postgres import PostgresSessionStore
from phi_sessions.stores.postgres.tables import Tables

PROGRAMS = Path(__file__).with_name("postgres_programs.py")
TABLES = "SELECT table_schema, table_name FROM information_schema.tables WHERE table_name ~ %s"


async def tables_of(url: str, pattern: str = "'phi'") -> set[tuple[str, str]]:
    return {tuple(row) for row in await run_sql(url, TABLES % pattern)}


@pytest.mark.parametrize("schema", [None, "agents"])
async def test_many_workers_that_start_at_once_make_the_tables_once(
    postgres_url: str, schema: str | None
) -> None:
    opened = [PostgresSessionStore(postgres_url, schema=schema, pool_size=1) for _ in range(16)]
    saves = (store.save(version(n, f"s-{n}")) for n, store in enumerate(opened))
    await asyncio.gather(*saves)
    assert len(await opened[0].list_ids()) == 16
    await asyncio.gather(*(store.aclose() for store in opened))
    place = schema or "public"
    kinds = ("version", "sessions", "records", "leases")
    assert await tables_of(postgres_url) == {(place, f"phi_{kind}") for kind in kinds}
    versions = await run_sql(postgres_url, f"SELECT version FROM {place}.phi_version")
    assert [tuple(row) for row in versions] == [(1,)]


async def test_many_processes_that_start_at_once_make_the_tables_once(postgres_url: str) -> None:
    command = [sys.executable, str(PROGRAMS), "save", postgres_url]
    children = [subprocess.Popen([*command, f"s-{n}"]) for n in range(4)]
    try:
        for child in children:
            assert await asyncio.to_thread(child.wait, 60) == 0
    finally:
        for child in children:
            child.kill()
    async with PostgresSessionStore(postgres_url) as store:
        assert sorted(await store.list_ids()) == [f"s-{n}" for n in range(4)]


@pytest.mark.parametrize(
    ("schema", "prefix"),
    [
        ('a "quoted" schema; DROP', "phi_"),
        ("MixedCase", ""),
        (None, "'; DROP TABLE phi_version; --\" {sessions} %s $1 \\"),
        ("größe", "名前_"),
        ("select", "user "),
    ],
)
async def test_any_name_will_do(postgres_url: str, schema: str | None, prefix: str) -> None:
    async with PostgresSessionStore(postgres_url, schema=schema, prefix=prefix) as store:
        session = version(1, size=3)
        await store.save(session)
        await store.append("s-1", record(7, n=1))
        assert number(await store.load("s-1")) == 1
        assert [info.session_id async for info in store.infos(agent_id="a")] == ["s-1"]
        assert len(await store.list_for_agent("a")) == 1
        async with store.lease("s-1"):
            pass
        await store.delete("s-1")
    async with PostgresSessionStore(postgres_url, schema=schema, prefix=prefix) as store:
        assert await store.list_ids() == []
    found = await tables_of(postgres_url, "'sessions$'")
    assert found == {(schema or "public", f"{prefix}sessions")}


@pytest.mark.parametrize("names", [{"prefix": "x" * 60}, {"schema": "ü" * 40}, {"prefix": "\0"}])
def test_a_name_that_would_be_cut_off_is_refused(names: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="not a name that PostgreSQL keeps whole"):
        PostgresSessionStore("postgresql://127.0.0.1/x", **names)  # type: ignore[arg-type]


async def test_stores_of_two_prefixes_or_schemas_see_nothing_of_each_other(
    postgres_url: str,
) -> None:
    places: list[dict[str, Any]] = [{}, {"prefix": "other_"}, {"schema": "one"}, {"schema": "two"}]
    opened = [PostgresSessionStore(postgres_url, **place) for place in places]
    for n, store in enumerate(opened):
        await store.save(version(n))
        async with store.lease("s-1"):
            assert number(await store.load("s-1")) == n
            for other in opened[:n]:
                async with other.lease("s-1"):  # leases are apart as well
                    pass
    for n, store in enumerate(opened):
        assert number(await store.load("s-1")) == n
        await store.aclose()


async def test_schema_and_search_path_lead_to_the_same_sessions_and_leases(
    postgres_url: str,
) -> None:
    async with (
        PostgresSessionStore(postgres_url) as by_path,
        PostgresSessionStore(postgres_url, schema="public") as by_name,
    ):
        await by_path.save(version(1))
        assert number(await by_name.load("s-1")) == 1
        async with by_path.lease("s-1", owner="first"):
            with pytest.raises(Exception, match="leased by first"):
                async with by_name.lease("s-1"):
                    pass


async def test_tables_of_a_later_version_are_refused(postgres_url: str) -> None:
    async with PostgresSessionStore(postgres_url) as store:
        await store.save(version(1))
    await run_sql(postgres_url, "INSERT INTO phi_version VALUES (99)")
    async with PostgresSessionStore(postgres_url) as store:
        for _ in range(2):
            with pytest.raises(SessionIOError, match="version 99, made by a later phi-sessions"):
                await store.load("s-1")
        await run_sql(postgres_url, "DELETE FROM phi_version WHERE version = 99")
        assert number(await store.load("s-1")) == 1


async def test_a_migration_that_fails_leaves_nothing_behind(postgres_url: str) -> None:
    await run_sql(postgres_url, "CREATE TABLE phi_records (mine integer)")
    async with PostgresSessionStore(postgres_url) as store:
        with pytest.raises(SessionIOError, match="already exists") as caught:
            await store.list_ids()
        assert "making the tables" in caught.value.__notes__[0]
        assert await tables_of(postgres_url) == {("public", "phi_records")}
        await run_sql(postgres_url, "DROP TABLE phi_records")
        assert await store.list_ids() == []


async def a_role(url: str, *grants: str) -> str:
    """Make a role without any right but `grants`, and return its URL."""
    name = f"role_{urlsplit(url).path.strip('/')}"
    await run_sql(
        url,
        f"CREATE ROLE {name} LOGIN PASSWORD 'secret-of-role'",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        *(grant.format(name=name) for grant in grants),
    )
    parts = urlsplit(url)
    return f"postgresql://{name}:secret-of-role@{parts.hostname}:{parts.port}{parts.path}"


RIGHTS = (
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}",
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {name}",
)


@pytest.fixture
async def no_roles_left(postgres_url: str) -> Any:
    yield
    name = f"role_{urlsplit(postgres_url).path.strip('/')}"
    await run_sql(postgres_url, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


async def test_a_role_that_may_not_make_tables_can_use_them(
    postgres_url: str, no_roles_left: None
) -> None:
    async with PostgresSessionStore(postgres_url) as store:
        await store.save(version(1))
    async with PostgresSessionStore(await a_role(postgres_url, *RIGHTS)) as store:
        session = await store.load("s-1")
        await store.save(session)
        await store.append("s-1", record(1, n=1))
        await store.save(version(2, "s-2"))
        assert await store.list_ids() == ["s-2", "s-1"]
        async with store.lease("s-1"):
            pass
        await store.delete("s-2")


async def test_a_role_that_may_not_make_tables_is_told(
    postgres_url: str, no_roles_left: None
) -> None:
    async with PostgresSessionStore(await a_role(postgres_url)) as store:
        with pytest.raises(SessionIOError, match="permission denied for schema public") as caught:
            await store.list_ids()
        assert caught.value.errno == errno.EACCES


async def test_a_read_only_role_reads_and_is_refused_to_write(
    postgres_url: str, no_roles_left: None
) -> None:
    async with PostgresSessionStore(postgres_url) as store:
        await store.save(version(1))
    reads = "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}"
    async with PostgresSessionStore(await a_role(postgres_url, reads)) as store:
        session = await store.load("s-1")
        assert number(session) == 1
        assert await store.list_ids() == ["s-1"]
        assert len(await store.list_for_agent("a")) == 1
        for call in (
            lambda: store.save(session),
            lambda: store.save(version(2, "s-2")),
            lambda: store.append("s-1", record(1)),
            lambda: store.delete("s-1"),
            lambda: store.lease("s-1").__aenter__(),
        ):
            with pytest.raises(SessionIOError, match="permission denied") as caught:
                await call()
            assert caught.value.errno == errno.EACCES
            assert "secret-of-role" not in str(caught.value) + str(caught.value.filename)
    async with PostgresSessionStore(postgres_url) as store:
        assert number(await store.load("s-1")) == 1
        async with store.lease("s-1"):
            pass


async def test_a_database_that_is_read_only_is_told(postgres_url: str) -> None:
    async with PostgresSessionStore(postgres_url) as store:
        await store.save(version(1))
    name = postgres_url.rpartition("/")[2]
    await run_sql(postgres_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    async with PostgresSessionStore(postgres_url) as store:
        assert number(await store.load("s-1")) == 1
        with pytest.raises(SessionIOError, match="read-only transaction") as caught:
            await store.save(version(2))
        assert caught.value.errno == errno.EROFS


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_a_database_of_any_encoding_keeps_any_text(
    postgres_server: Any, postgres_url: str, encoding: str
) -> None:
    name = f"encoded_{encoding.lower()}"
    await run_sql(postgres_url, f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0")
    try:
        async with PostgresSessionStore(postgres_server.url(name)) as store:
            session = version(1, "größe 名前 \U0001f600", agent_id="\0 名前")
            await store.save(session)
            loaded = await store.load(session.session_id)
            assert loaded.loops == session.loops
            assert len(await store.list_for_agent("\0 名前")) == 1
            assert await store.list_ids() == [session.session_id]
            async with store.lease(session.session_id, owner="名前"):
                pass
    finally:
        await run_sql(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


# What the server does for a statement -----------------------------------------------------------


async def plan(url: str, query: str, *args: str) -> str:
    """Return how the server carries a statement out, once no table may be read whole."""
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET enable_seqscan = off")
        await connection.execute("SET enable_bitmapscan = off")
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        await connection.execute(f"PREPARE it AS {query}")
        rows = await connection.fetch(f"EXPLAIN EXECUTE it ({', '.join(args)})")
        return "\n".join(line for (line,) in rows)
    finally:
        await connection.close()


ID = "'s-1'::bytea"
BEGIN = (ID, "NULL", "'1s'", "true")
ONE = ("'l'", "ARRAY[1::oid]", "'t'", "ARRAY[1::oid]", "ARRAY[1::oid]")


@pytest.mark.parametrize(
    ("statement", "args", "indexes"),
    [
        ("put", (*BEGIN, "'r'", *ONE, "NULL", "NULL"), {"phi_sessions_pkey", "phi_records_pkey"}),
        (
            "replace",
            (*BEGIN, "'r'", *ONE, "false", "'a'", "'h'", "1"),
            {"phi_sessions_pkey", "phi_records_pkey"},
        ),
        ("delete", BEGIN, {"phi_sessions_pkey", "phi_records_pkey"}),
        ("read", (ID,), {"phi_sessions_pkey", "phi_records_pkey"}),
        ("read_many", (ID, "ARRAY[3::oid]"), {"phi_sessions_pkey", "phi_records_pkey"}),
        ("of_agent", ("'a'",), {"phi_sessions_agent", "phi_records_pkey"}),
        ("ids_of_agent", ("'a'",), {"phi_sessions_agent"}),
        ("cards_of_agent", ("10", "'a'"), {"phi_sessions_agent"}),
        ("cards", ("10",), {"phi_sessions_saved"}),
        ("cards_by_id", (ID, "ARRAY[3::oid]"), {"phi_sessions_pkey"}),
        ("exists", (ID,), {"phi_sessions_pkey"}),
        ("head", (ID,), {"phi_sessions_pkey"}),
        ("lock", (ID, "'1s'"), {"phi_sessions_pkey"}),
        ("revision", (ID, "'1s'"), {"phi_sessions_pkey"}),
    ],
)
async def test_every_statement_finds_its_rows_by_an_index(
    postgres_url: str, statement: str, args: tuple[str, ...], indexes: set[str]
) -> None:
    async with PostgresSessionStore(postgres_url) as store:
        await store.save(version(0))
        query = getattr(store._statements, statement)
    found = await plan(postgres_url, query, *args)
    assert "Seq Scan on phi" not in found
    for index in indexes:
        assert f"using {index} on" in found, found
    if statement.startswith("cards_of") or statement in ("cards", "ids_of_agent"):
        assert "Sort" not in found, found  # the newest come first without looking at the rest


async def test_an_append_costs_the_same_however_long_the_session_is(postgres_url: str) -> None:
    import asyncpg

    async with PostgresSessionStore(postgres_url) as store:
        for loops in (10, 3000):
            await store.save(version(0, f"s-{loops}", size=loops))
        query = store._statements.put
    connection = await asyncpg.connect(postgres_url)
    touched: dict[int, int] = {}
    try:
        await connection.execute("VACUUM ANALYZE")
        await connection.execute(f"PREPARE it AS {query}")
        for loops in (10, 3000):
            args = ", ".join((f"'s-{loops}'", *BEGIN[1:], "'r'", *ONE, "NULL", "NULL"))
            for _ in range(8):  # past the custom plans
                rows = await connection.fetch(
                    f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE it ({args})"
                )
            import json

            top = json.loads(rows[0][0])[0]["Plan"]
            touched[loops] = top["Shared Hit Blocks"] + top["Shared Read Blocks"]
    finally:
        await connection.close()
    assert touched[3000] <= touched[10] + 10, touched


async def test_a_listing_reads_no_records(postgres_url: str) -> None:
    async with PostgresSessionStore(postgres_url) as store:
        for n in range(3):
            await store.save(version(n, f"s-{n}"))
        await run_sql(postgres_url, "ALTER TABLE phi_records RENAME TO elsewhere")
        assert [info.session_id async for info in store.infos()] == ["s-2", "s-1", "s-0"]
        assert [info.session_id async for info in store.infos(agent_id="a")] == [
            "s-2",
            "s-1",
            "s-0",
        ]
        assert await store.list_ids() == ["s-2", "s-1", "s-0"]
        assert await store.exists("s-1")


def test_every_name_is_that_of_the_prefix() -> None:
    names = Tables("some", "p_").names
    assert names["sessions"] == '"some"."p_sessions"'
    assert names["sessions_agent"] == '"p_sessions_agent"'
