"""The SQLite store's rows: what they hold, how they are found, and how they are committed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from conftest import scaled
from sqlite_samples import another, assert_sound, number, record, rows, version

from phi_sessions import (
    Expect,
    LoopRecord,
    Session,
    SessionConflictError,
    SessionEncodeError,
    SessionNotFoundError,
)
from phi_sessions.stores.sqlite import SQLiteSessionStore, statements


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "nested" / "sessions.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteSessionStore]:
    async with SQLiteSessionStore(path) as made:
        yield made


# Queries


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (statements.EXISTS, "sqlite_autoindex_sessions_1"),
        (statements.FIND, "sqlite_autoindex_sessions_1"),
        (statements.BY_ID, "sqlite_autoindex_sessions_1"),
        (statements.IDS, "sessions_by_turn"),
        (statements.NUMBERS, "sessions_by_turn"),
        (statements.NUMBERS_OF_AGENT, "sessions_by_agent"),
        (statements.CARDS, "INTEGER PRIMARY KEY"),
        (statements.SESSIONS, "INTEGER PRIMARY KEY"),
        (statements.LOOK_OVER, "INTEGER PRIMARY KEY"),
        (statements.RECORDS, "INTEGER PRIMARY KEY"),
        (statements.FIND_RECORD, "records_by_loop"),
        (statements.CHANGE, "INTEGER PRIMARY KEY"),
        (statements.REPLACE, "INTEGER PRIMARY KEY"),
        (statements.REMOVE, "INTEGER PRIMARY KEY"),
        (statements.CHANGE_RECORD, "INTEGER PRIMARY KEY"),
        (statements.REMOVE_RECORDS, "INTEGER PRIMARY KEY"),
    ],
)
async def test_a_statement_goes_through_an_index(
    store: SQLiteSessionStore, path: Path, statement: str, index: str
) -> None:
    await store.save(version(1))
    with another(path) as connection:
        named = {"numbers": "[1]", "max_bytes": 1, "number": 1, "first": 1, "last": 1}
        values = named if ":" in statement else [1] * statement.count("?")
        plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
    told = [step[-1] for step in plan]
    assert any(index in step for step in told), told
    assert not any("TEMP B-TREE" in step for step in told), told
    for step in told:  # what is scanned is the newest first, or what is asked for
        assert "SCAN" not in step or "USING" in step or "SCAN json_each" in step, told


async def test_an_append_reads_no_record_that_was_there(
    store: SQLiteSessionStore, path: Path
) -> None:
    await store.save(version(1, size=2000))
    [link] = store._database._to_write
    said: list[str] = []
    link.connection.set_trace_callback(said.append)
    await store.append("s-1", record("new"))
    link.connection.set_trace_callback(None)
    verbs = [re.split(r"\s", statement, maxsplit=1)[0] for statement in said]
    assert verbs == ["BEGIN", "SELECT", "SELECT", "INSERT", "UPDATE", "COMMIT"]


async def test_a_save_writes_the_records_that_changed(store: SQLiteSessionStore) -> None:
    await store.save(version(1, size=50))
    session = await store.load("s-1")
    session.loops[7].metadata["n"] = 2
    session.loops.append(record("new"))
    [link] = store._database._to_write
    said: list[str] = []
    link.connection.set_trace_callback(said.append)
    await store.save(session)
    link.connection.set_trace_callback(None)
    changed = [statement.split()[:3] for statement in said if statement.startswith(("INS", "UPD"))]
    assert changed == [
        ["UPDATE", "records", "SET"],
        ["INSERT", "INTO", "records"],
        ["UPDATE", "sessions", "SET"],
    ]
    loaded = await store.load("s-1")
    assert loaded.loops == session.loops


# What the rows must be able to hold


async def test_two_records_of_one_name_are_kept(store: SQLiteSessionStore) -> None:
    twice = [LoopRecord("l", "s-1", "a", metadata=n) for n in (1, 2)]
    await store.save(Session("s-1", "a", loops=[*twice, record("last")]))
    session = await store.load("s-1")
    assert [loop.metadata for loop in session.loops] == [1, 2, None]
    await store.append("s-1", LoopRecord("l", "s-1", "a", metadata=3))
    assert [loop.metadata for loop in (await store.load("s-1")).loops] == [1, 3, None]
    session = await store.load("s-1")
    session.loops[0].metadata = 0
    await store.save(session)
    assert [loop.metadata for loop in (await store.load("s-1")).loops] == [0, 3, None]


HOSTILE = [
    "a\0b",
    "'; DROP TABLE sessions; --",
    '"',
    "%",
    "_",
    "*?[a]",
    "",
    "\u202eabc",
    "\U0001f600" * 40,
    "é",
    "e\u0301",
    "x" * 100_000,
]


@pytest.mark.parametrize("name", HOSTILE)
async def test_any_agent_and_loop_name_is_kept_apart(store: SQLiteSessionStore, name: str) -> None:
    others = [each for each in HOSTILE if each != name]
    for n, other in enumerate(others):
        await store.save(Session(f"other-{n}", other, loops=[LoopRecord(other, "o", other)]))
    await store.save(Session("s-1", name, loops=[LoopRecord(name, "s-1", name)]))
    await store.append("s-1", LoopRecord(name, "s-1", name, metadata=2))
    await store.append("s-1", LoopRecord(f"{name}x", "s-1", name))
    [session] = await store.list_for_agent(name)
    assert (session.session_id, session.loops.ids()) == ("s-1", [name, f"{name}x"])
    assert [info.session_id async for info in store.infos(agent_id=name)] == ["s-1"]


async def test_an_agent_that_cannot_be_encoded_has_no_sessions(store: SQLiteSessionStore) -> None:
    await store.save(version(1))
    assert await store.list_for_agent("\ud800") == []
    assert [info async for info in store.infos(agent_id="a\udfff")] == []
    with pytest.raises(SessionEncodeError):
        await store.save(Session("s-2", "\ud800"))


@pytest.mark.parametrize("session_id", ["a\0b", "a", "A", "'", "é", "e\u0301", "%", "..", "a/b"])
async def test_any_id_is_kept_apart(store: SQLiteSessionStore, session_id: str) -> None:
    ids = ["a\0b", "a", "A", "'", "é", "e\u0301", "%", "..", "a/b", "a\0", "a\0c"]
    for n, each in enumerate(ids):
        await store.save(version(n, each))
    assert number(await store.load(session_id)) == ids.index(session_id)
    assert await store.list_ids() == ids[::-1]
    await store.delete(session_id)
    assert await store.list_ids() == [each for each in ids[::-1] if each != session_id]


async def test_what_people_look_at_is_text(store: SQLiteSessionStore, path: Path) -> None:
    await store.save(version(1))
    kinds = "typeof(session_id) || typeof(agent_id) || typeof(head)"
    assert rows(path, f"SELECT {kinds} FROM sessions") == [("texttexttext",)]
    assert rows(path, "SELECT json_extract(head, '$.metadata.n') FROM sessions") == [(1,)]
    kinds = "typeof(loop_id) || typeof(text)"
    assert rows(path, f"SELECT {kinds} FROM records") == [("texttext",)]


async def test_a_session_larger_than_allowed_is_refused_and_not_read(path: Path) -> None:
    async with SQLiteSessionStore(path, max_bytes=10_000) as store:
        await store.save(version(1, size=5))
        for change in (
            store.save(version(2, size=20)),
            store.append("s-1", *version(2, size=20).loops),
        ):
            with pytest.raises(SessionEncodeError, match="max_bytes"):
                await change
        assert number(await store.load("s-1")) == 1
        assert len((await store.load("s-1")).loops) == 5


# Group commit


async def test_changes_that_wait_share_a_transaction(store: SQLiteSessionStore) -> None:
    await store.save(version(0))
    [link] = store._database._to_write
    said: list[str] = []
    link.connection.set_trace_callback(said.append)
    tasks = scaled(200)
    await asyncio.gather(*(store.save(version(n, f"s-{n}")) for n in range(tasks)))
    link.connection.set_trace_callback(None)
    assert said.count("COMMIT") <= tasks // 4
    assert len(await store.list_ids()) == tasks


async def test_of_those_that_share_a_transaction_only_the_one_that_fails_fails(
    store: SQLiteSessionStore, path: Path
) -> None:
    stale = version(0)
    await store.save(stale)
    await store.save(version(1), expect=Expect.ANYTHING)
    results = await asyncio.gather(
        *(store.save(version(n, f"before-{n}")) for n in range(20)),
        store.save(stale),
        store.append("absent", record("x")),
        store.delete("absent"),
        *(store.append("s-1", record(f"after-{n}")) for n in range(20)),
        return_exceptions=True,
    )
    assert [type(each) for each in results[20:23]] == [
        SessionConflictError,
        SessionNotFoundError,
        SessionNotFoundError,
    ]
    assert all(isinstance(each, str) for each in results[:20] + results[23:])
    assert (await store.load("s-1")).loops.ids()[1:] == [f"after-{n}" for n in range(20)]
    assert len(await store.list_ids()) == 21
    assert_sound(path)


async def test_changes_of_one_session_take_effect_in_the_order_in_which_they_were_called(
    store: SQLiteSessionStore,
) -> None:
    await asyncio.gather(
        store.save(version(1, size=300)),
        store.append("s-1", record("a")),
        store.save(version(2, size=300)),
        store.append("s-1", record("b")),
        store.append("s-1", record("c")),
    )
    session = await store.load("s-1")
    assert session.metadata["n"] == 2
    assert session.loops.ids()[300:] == ["b", "c"]
