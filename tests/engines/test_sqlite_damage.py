"""Damaged sessions in an SQLite file: what may be written over them, and who is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlite_samples import another, assert_sound, number, version

from phi_sessions import Expect, SessionCorruptError
from phi_sessions.stores.sqlite import SQLiteSessionStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteSessionStore]:
    async with SQLiteSessionStore(path) as made:
        yield made


SEEN_BY_SIZE = [
    "UPDATE sessions SET head = '{'",
    "UPDATE sessions SET agent_id = 'b'",
    "UPDATE sessions SET size = 7",
    "UPDATE records SET text = '{' WHERE loop_id = 's-1.0'",
    "DELETE FROM records WHERE loop_id = 's-1.0'",
]


@pytest.mark.parametrize(
    "damage", [*SEEN_BY_SIZE, "UPDATE records SET loop_id = 'x' WHERE loop_id = 's-1.0'"]
)
async def test_a_holder_that_expects_anything_heals_what_was_damaged(
    store: SQLiteSessionStore, path: Path, damage: str
) -> None:
    await store.save(version(1, size=2))
    held = await store.load("s-1")
    with another(path) as connection:
        assert connection.execute(damage).rowcount == 1
    await store.save(held, expect=Expect.ANYTHING)
    assert number(await store.load("s-1")) == 1
    assert (await store.load("s-1")).loops == held.loops
    assert_sound(path)


@pytest.mark.parametrize("damage", SEEN_BY_SIZE)
async def test_what_lost_a_part_is_neither_deleted_nor_replaced_by_hand(
    store: SQLiteSessionStore, path: Path, damage: str
) -> None:
    await store.save(version(1, size=2))
    with another(path) as connection:
        assert connection.execute(damage).rowcount == 1
        before = list(connection.iterdump())
    for call in (
        lambda: store.delete("s-1"),
        lambda: store.save(version(2)),
        lambda: store.prune(older_than=timedelta(0)),
    ):
        with pytest.raises(SessionCorruptError) as caught:
            await call()
        assert caught.value.session_id == "s-1"
        assert caught.value.path == str(path)
    with another(path) as connection:
        assert list(connection.iterdump()) == before


@pytest.mark.parametrize("agent_id", [None, "b"])
async def test_a_card_whose_agent_is_in_doubt_is_told_of(
    store: SQLiteSessionStore, path: Path, agent_id: str | None
) -> None:
    await store.save(version(0))
    await store.save(version(0, "good", agent_id="b"))
    with another(path) as connection:
        connection.execute("UPDATE sessions SET agent_id = 'b' WHERE session_id = 's-1'")
    with pytest.raises(SessionCorruptError, match="agent 'a'") as caught:
        [info async for info in store.infos(agent_id=agent_id)]
    assert caught.value.session_id == "s-1"
    infos = store.infos(agent_id=agent_id, on_error="skip")
    assert [info.session_id async for info in infos] == ["good"]
