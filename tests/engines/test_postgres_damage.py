"""Damaged sessions in a PostgreSQL database: what may be written over them, and who is told."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from postgres_checks import number, version
from postgres_server import run_sql

from phi_sessions import Expect
from phi_sessions.stores.postgres import PostgresSessionStore

DAMAGED_HEAD = "UPDATE phi_sessions SET head = '{' WHERE session_id = 's-1'"


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
