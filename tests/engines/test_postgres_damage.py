"""Damaged sessions in a PostgreSQL database: what may be written over them, and who is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from postgres_checks import number, record, version
from postgres_server import run_sql

from phi_sessions import (
    Expect,
    SessionConflictError,
    SessionCorruptError,
    SessionExistsError,
    SessionInfo,
)
from phi_sessions.stores.postgres import PostgresSessionStore

DAMAGED_HEAD = "UPDATE phi_sessions SET head = '{' WHERE session_id = 's-1'"
HEAD_OF_ANOTHER = (
    "UPDATE phi_sessions SET"
    " head = convert_to(replace(convert_from(head, 'UTF8'), 's-1', 's-2'), 'UTF8')"
)


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresSessionStore]:
    async with PostgresSessionStore(postgres_url) as made:
        yield made


@pytest.mark.parametrize(
    "damage",
    [
        DAMAGED_HEAD,
        "UPDATE phi_sessions SET agent_id = 'b'",
        "UPDATE phi_sessions SET size = 7",
        "UPDATE phi_records SET text = '{' WHERE position = 0",
        "UPDATE phi_records SET loop_id = 'x' WHERE position = 0",
        "DELETE FROM phi_records WHERE position = 0",
    ],
)
async def test_a_holder_that_expects_anything_heals_what_was_damaged(
    postgres_url: str, store: PostgresSessionStore, damage: str
) -> None:
    await store.save(version(1, size=2))
    held = await store.load("s-1")
    await run_sql(postgres_url, damage)
    await store.save(held, expect=Expect.ANYTHING)
    assert number(await store.load("s-1")) == 1
    assert (await store.load("s-1")).loops == held.loops


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (DAMAGED_HEAD, "damaged"),
        (HEAD_OF_ANOTHER, "'s-2'"),
        ("DELETE FROM phi_records WHERE position = 1", "should be 2"),
        ("DELETE FROM phi_records", "should be 2"),
        ("UPDATE phi_records SET text = substring(text, 2) WHERE position = 1", "damaged"),
    ],
)
@pytest.mark.parametrize(
    "call", ["delete", "delete unchanged", "delete this", "save", "prune", "update"]
)
async def test_a_damaged_session_is_not_lost(
    postgres_url: str, store: PostgresSessionStore, call: str, damage: str, what: str
) -> None:
    revision = await store.save(version(0, size=2))
    cards = [card async for card in store.infos()]
    await run_sql(postgres_url, damage)
    before = await stored(postgres_url)

    async def prune() -> None:
        async def infos(**_: object) -> AsyncIterator[SessionInfo]:
            for card in cards:  # which were read before the damage
                yield card

        store.infos = infos  # type: ignore[method-assign,assignment]
        await store.prune(older_than=timedelta(days=-1))

    calls: dict[str, Any] = {
        "delete": lambda: store.delete("s-1"),
        "delete unchanged": lambda: store.delete("s-1", expect=Expect.UNCHANGED),
        "delete this": lambda: store.delete("s-1", expect=revision),
        "save": lambda: store.save(version(1)),
        "prune": prune,
        "update": lambda: store.update("s-1", lambda _: None),
    }
    with pytest.raises(SessionCorruptError, match=what) as caught:
        await calls[call]()
    assert caught.value.session_id == "s-1"
    assert await stored(postgres_url) == before
    with pytest.raises(SessionConflictError):
        await store.delete("s-1", expect=type(revision)("other"))
    with pytest.raises(SessionExistsError):
        await store.delete("s-1", expect=Expect.ABSENT)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM phi_records WHERE session_id = 's-1' AND position = 1",
        "DELETE FROM phi_records WHERE session_id = 's-1' AND position = 2",
        "DELETE FROM phi_records WHERE session_id = 's-1'",
        (
            "INSERT INTO phi_records SELECT session_id, loop_hash, 3, loop_id, text"
            " FROM phi_records WHERE session_id = 's-1' AND position = 1"
        ),
        (
            "UPDATE phi_records SET text = convert_to(replace(convert_from(text, 'UTF8'),"
            " 'xxx', ''), 'UTF8') WHERE session_id = 's-1' AND position = 1"
        ),
    ],
)
async def test_records_that_were_lost_or_added_are_told_of(
    postgres_url: str,
    store: PostgresSessionStore,
    damage: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await store.save(version(0, "good"))
    await store.save(version(0, size=3))
    await run_sql(postgres_url, damage)
    with pytest.raises(SessionCorruptError, match="where there should be 3 and") as caught:
        await store.load("s-1")
    assert caught.value.session_id == "s-1"
    for first in (16 * 1024 * 1024, 1):
        query = store._statements.of_agent.replace(str(16 * 1024 * 1024), str(first))
        monkeypatch.setattr(store._statements, "of_agent", query)
        with pytest.raises(SessionCorruptError, match="where there should be 3 and"):
            await store.list_for_agent("a")
        [good] = await store.list_for_agent("a", on_error="skip")
        assert good.session_id == "good"


async def stored(url: str) -> list[Any]:
    heads = await run_sql(url, "SELECT * FROM phi_sessions")
    return heads + await run_sql(url, "SELECT * FROM phi_records ORDER BY position")


async def test_saves_by_hand_and_deletions_are_made_amid_other_changes(
    postgres_url: str, store: PostgresSessionStore
) -> None:
    async with PostgresSessionStore(postgres_url) as other:
        await other.save(version(0))
        is_over = False

        async def append() -> None:
            k = 0
            while not is_over:
                k += 1
                await other.save(version(k, size=1), expect=Expect.ANYTHING)
                await asyncio.sleep(0)

        busy = asyncio.create_task(append())
        for n in range(20):
            await store.save(version(n, size=2))
            await store.delete("s-1", expect=Expect.ANYTHING)
            await other.save(version(n, size=2), expect=Expect.ANYTHING)
        is_over = True
        await busy


async def test_a_save_by_hand_does_not_take_what_it_replaces_for_held(postgres_url: str) -> None:
    async with PostgresSessionStore(postgres_url, lock_timeout=0) as store:
        for n in range(3):
            await store.save(version(n, size=3 - n))
            assert number(await store.load("s-1")) == n
        await store.append("s-1", record(7, n=2))
        await store.delete("s-1")
        assert not await store.exists("s-1")


async def test_a_loaded_or_a_new_session_is_saved_by_one_statement(
    store: PostgresSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.list_ids()
    asked: list[str] = []
    loan = store._server.connection

    def connection(*args: Any) -> Any:
        asked.append("a connection")
        return loan(*args)

    monkeypatch.setattr(store._server, "connection", connection)
    session = version(0)
    for _ in range(2):
        await store.save(session)
        session.metadata["n"] = 1
    assert len(asked) == 2
    await store.append(session, record(7, n=1))
    assert len(asked) == 3


@pytest.mark.parametrize("agent_id", [None, "b"])
async def test_a_card_whose_agent_is_in_doubt_is_told_of(
    postgres_url: str, store: PostgresSessionStore, agent_id: str | None
) -> None:
    await store.save(version(0))
    await store.save(version(0, "good", agent_id="b"))
    await run_sql(postgres_url, "UPDATE phi_sessions SET agent_id = 'b' WHERE session_id = 's-1'")
    with pytest.raises(SessionCorruptError, match="agent 'a'") as caught:
        [info async for info in store.infos(agent_id=agent_id)]
    assert caught.value.session_id == "s-1"
    infos = store.infos(agent_id=agent_id, on_error="skip")
    assert [info.session_id async for info in infos] == ["good"]
