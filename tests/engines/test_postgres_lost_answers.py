"""The connection breaks amid a change: the store finds out what came of it, or says it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from awaiting import ended, until
from postgres_checks import assert_quiet, busy, held_row, number, record, version
from postgres_server import run_sql
from postgres_wire import Wire, wire_to

from phi_sessions import (
    Expect,
    SaveOutcomeUnknownError,
    Session,
    SessionIOError,
    SessionNotFoundError,
)
from phi_sessions.stores.postgres import PostgresSessionStore

Call = Callable[[PostgresSessionStore, Session], Any]

CALLS: dict[str, Call] = {
    "save": lambda store, session: store.save(session),
    "save of all": lambda store, session: store.save(by_hand(session)),
    "append to a session": lambda store, session: store.append(session, record(9, n=0)),
}


def by_hand(session: Session) -> Session:
    """Return the session as one that knows no origin, but which state it replaces."""
    made = version(int(session.metadata["n"]), size=2)
    made.revision = session.revision
    return made


@pytest.fixture
async def wire(postgres_url: str) -> AsyncIterator[Wire]:
    async with wire_to(postgres_url) as laid:
        yield laid


async def ready(store: PostgresSessionStore) -> Session:
    """Return a stored session; the one connection of the store has prepared all statements."""
    await store.save(version(0))
    await store.delete("s-1")
    session = version(0)
    await store.save(session)
    await store.save(session)
    await store.save(by_hand(session))
    loaded = await store.load("s-1")
    await store.append(loaded, record(8))
    return loaded


@pytest.mark.parametrize("call", CALLS)
async def test_a_change_whose_answer_was_lost_is_known_to_be_made(
    postgres_url: str, wire: Wire, call: str
) -> None:
    async with PostgresSessionStore(wire.url, pool_size=1) as store:
        session = await ready(store)
        before = session.revision
        wire.cut = "answer"
        revision = await CALLS[call](store, session)
        found = await store.load("s-1")
        assert found.revision == revision != before
        if call != "save of all":
            assert session.revision == revision
            await store.save(session)
        await assert_quiet(postgres_url, store)


@pytest.mark.parametrize("call", CALLS)
async def test_a_change_that_did_not_reach_the_server_is_known_not_to_be_made(
    postgres_url: str, wire: Wire, call: str
) -> None:
    async with PostgresSessionStore(wire.url, pool_size=1) as store:
        session = await ready(store)
        before = session.revision
        wire.cut = "question"
        with pytest.raises(SessionIOError) as caught:
            await CALLS[call](store, session)
        assert type(caught.value) is SessionIOError
        assert session.revision == before == (await store.load("s-1")).revision
        await CALLS[call](store, session)
        await assert_quiet(postgres_url, store)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("cut", ["question", "answer"])
async def test_a_change_that_cannot_be_asked_about_is_unknown(
    wire: Wire, call: str, cut: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phi_sessions.stores.postgres.attempts._ASKING", 0.3)
    async with PostgresSessionStore(wire.url, pool_size=1) as store:
        session = await ready(store)
        wire.cut, wire.is_down = cut, True
        with pytest.raises(SaveOutcomeUnknownError) as caught:
            await CALLS[call](store, session)
        assert caught.value.session_id == "s-1"
        assert caught.value.__notes__
        wire.is_down = False
        made = (await store.load("s-1")).revision != session.revision
        assert made == (cut == "answer")


async def test_a_server_that_is_back_soon_is_asked_again(wire: Wire) -> None:
    async with PostgresSessionStore(wire.url, pool_size=1) as store:
        session = await ready(store)
        wire.cut, wire.is_down = "answer", True
        save = asyncio.create_task(store.save(session))
        await asyncio.sleep(0.3)
        assert not save.done()
        wire.is_down = False
        assert await save == (await store.load("s-1")).revision


async def test_a_change_of_whatever_is_there_is_unknown_if_it_was_not_seen_to_be_made(
    wire: Wire,
) -> None:
    async with PostgresSessionStore(wire.url, pool_size=1) as store:
        await ready(store)
        wire.cut = "question"
        with pytest.raises(SaveOutcomeUnknownError, match="which may have come before or after"):
            await store.append("s-1", record(9))
        await store.append("s-1", record(9))
        wire.cut = "answer"
        revision = await store.append("s-1", record(9, n=3))
        found = await store.load("s-1")
        assert found.revision == revision
        assert found.loops.ids()[-1] == "s-1.9"


async def test_a_first_save_that_did_not_reach_the_server_is_known_not_to_be_made(
    wire: Wire,
) -> None:
    async with PostgresSessionStore(wire.url, pool_size=1) as store:
        await ready(store)
        wire.cut = "question"
        with pytest.raises(SessionIOError) as caught:
            await store.save(version(1, "s-2"))
        assert type(caught.value) is SessionIOError
        assert await store.find("s-2") is None


async def test_a_deletion_whose_answer_was_lost(wire: Wire) -> None:
    async with PostgresSessionStore(wire.url, pool_size=1) as store:
        await ready(store)
        wire.cut, wire.spared = "answer", 1  # it looks first whether the session is sound
        await store.delete("s-1")
        assert await store.find("s-1") is None
        session = await ready(store)
        assert session.revision is not None
        for expect in (session.revision, Expect.ANYTHING):
            wire.cut, wire.spared = "question", 1
            with pytest.raises(SessionIOError) as caught:
                await store.delete("s-1", expect=expect)
            assert type(caught.value) is SessionIOError
            assert await store.exists("s-1")
            await store.delete("s-1")
            await ready(store)
        wire.cut = "question"
        await store.delete("s-1")
        with pytest.raises(SessionNotFoundError):
            await store.delete("s-1")


async def test_a_change_that_still_waits_on_the_server_is_ended_there(
    postgres_url: str, wire: Wire
) -> None:
    async with PostgresSessionStore(wire.url, pool_size=1, lock_timeout=5) as store:
        session = await ready(store)
        async with held_row(postgres_url) as holder:
            wire.cut = "answer"
            save = asyncio.create_task(store.save(session))
            await until(lambda: _waits(postgres_url))
            # The client's side of the connection breaks; the server's statement waits on.
            [client] = store._server._opened
            lent: Any = client.connections
            assert lent._idle == []
            for writer in wire._to_clients:
                writer.transport.abort()
            await until(lambda: _asks(postgres_url))
            assert len(await busy(postgres_url)) == 2  # the holder, and who asks: it is ended
        with pytest.raises(SessionIOError) as caught:
            await save
        assert type(caught.value) is SessionIOError
        assert number(await store.load("s-1")) == 0
        assert (await store.load("s-1")).revision == session.revision
        assert holder.is_closed()
        await assert_quiet(postgres_url, store)


async def _waits(url: str) -> bool:
    query = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    return bool(await run_sql(url, query + " AND query LIKE '/* phi_sessions put%'"))


async def _asks(url: str) -> bool:
    query = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    return bool(await run_sql(url, query + " AND query LIKE '/* phi_sessions revision%'"))


async def test_a_backend_of_others_is_never_ended(postgres_url: str) -> None:
    import asyncpg

    bystander = await asyncpg.connect(postgres_url)
    await bystander.fetch("SELECT 1 /* phi_sessions */")
    async with PostgresSessionStore(postgres_url) as store:
        await store.save(version(0))
        query = store._statements.end
    rows = await run_sql(postgres_url, query.replace("$1", str(bystander.get_server_pid())))
    assert rows == []
    assert await bystander.fetchval("SELECT 1") == 1
    await bystander.close()


async def test_reads_are_tried_again_on_another_connection(wire: Wire) -> None:
    async with PostgresSessionStore(wire.url, pool_size=1) as store:
        session = await ready(store)
        calls: list[Callable[[], Any]] = [
            lambda: store.load("s-1"),
            lambda: store.exists("s-1"),
            lambda: store.list_ids(),
            lambda: store.list_for_agent("a"),
        ]
        for call in calls:
            await call()
            for cut in ("question", "answer"):
                wire.cut = cut  # type: ignore[assignment]
                assert await call()
        assert await ended(store.save(session)) == session.revision
