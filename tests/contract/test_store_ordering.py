"""Listings begin with the most recently saved."""

from __future__ import annotations

import os
import random

import pytest
from conftest import scaled
from contract_samples import a_session

from phi_sessions import FileSystemSessionStore, SessionConflictError, SessionStore


async def orders(store: SessionStore) -> list[list[str]]:
    """Return the order of each kind of listing."""
    return [
        await store.list_ids(),
        [info.session_id async for info in store.infos()],
        [info.session_id async for info in store.infos(agent_id="agent-1")],
        [session.session_id for session in await store.list_for_agent("agent-1")],
    ]


async def test_the_most_recently_saved_comes_first(store: SessionStore) -> None:
    for session_id in ("b", "c", "a"):
        await store.save(a_session(session_id))
    assert await orders(store) == [["a", "c", "b"]] * 4
    await store.save(await store.load("b"))
    assert await orders(store) == [["b", "a", "c"]] * 4
    await store.load("c")  # looking changes nothing
    assert await orders(store) == [["b", "a", "c"]] * 4
    await store.delete("a")
    await store.save(a_session("a"))
    assert await orders(store) == [["a", "b", "c"]] * 4


async def test_many_saves_in_a_row_keep_their_order(store: SessionStore) -> None:
    ids = [f"s-{n}" for n in range(scaled(300))]
    random.Random(1).shuffle(ids)
    for session_id in ids:
        await store.save(a_session(session_id, loops=0))
    assert await orders(store) == [ids[::-1]] * 4


async def test_a_refused_save_does_not_move_a_session_up(store: SessionStore) -> None:
    session = a_session("a")
    old = await store.save(session)
    await store.save(session)
    await store.save(a_session("b"))
    with pytest.raises(SessionConflictError):
        await store.save(session, expect=old)
    assert await orders(store) == [["b", "a"]] * 4


async def test_times_inside_the_session_do_not_count(store: SessionStore) -> None:
    sessions = [a_session(f"s-{n}") for n in range(5)]
    for session in reversed(sessions):  # the youngest is saved first
        await store.save(session)
    assert await orders(store) == [[f"s-{n}" for n in range(5)]] * 4


async def test_files_of_one_moment_are_listed_by_id(file_store: FileSystemSessionStore) -> None:
    ids = ["b", "a", "B", "ä", "a/b", "10", "9", "\U0001f600", "\uffee"]
    for session_id in ids:
        await file_store.save(a_session(session_id))
    for path in file_store.dir.glob("*.json"):
        os.utime(path, ns=(10**18, 10**18))
    await file_store.save(a_session("newest"))
    assert await orders(file_store) == [["newest", *sorted(ids)]] * 4
