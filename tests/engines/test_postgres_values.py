"""Any id, any agent and any content: kept to the byte, and never taken for SQL."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from postgres_checks import record, version
from postgres_server import run_sql

from phi_sessions import (
    Expect,
    LoopRecord,
    Revision,
    Session,
    SessionConflictError,
    SessionCorruptError,
)
from phi_sessions.stores.postgres import PostgresSessionStore

STRINGS = [
    "'; DROP TABLE phi_sessions; --",
    'a"b\\c$1 %s {} {sessions} :name ?',
    "$$ $tag$ $1::int E'\\000'",
    "nul \0 in the middle",
    "\0",
    "../../etc/passwd",
    "*?[a-z]_%",
    "{hash}tag",
    "אבג עברית \u202e rtl",
    "\U0001f600\U0001f468\u200d\U0001f469 emoji",
    "trailing space ",
    "É e\u0301 é",
    "a" * 200,
    "\x01\x1f\x7f\x80\x9f\u2028",
]


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresSessionStore]:
    async with PostgresSessionStore(postgres_url) as made:
        yield made


async def test_any_id_names_a_session_of_its_own(store: PostgresSessionStore) -> None:
    sessions = {name: version(n, name, size=2) for n, name in enumerate(STRINGS)}
    for session in sessions.values():
        await store.save(session, expect=Expect.ABSENT)
    assert await store.list_ids() == STRINGS[::-1]
    assert [info.session_id async for info in store.infos()] == STRINGS[::-1]
    for n, name in enumerate(STRINGS):
        assert (await store.load(name)).loops == sessions[name].loops
        await store.append(name, record(1, name, n=n))
        async with store.lease(name):
            assert await store.exists(name)
    for name in STRINGS:
        await store.delete(name)
    assert await store.list_ids() == []


@pytest.mark.parametrize("text", [*STRINGS, "", "x" * 10_000], ids=lambda text: ascii(text)[:20])
async def test_any_agent_loop_and_text(store: PostgresSessionStore, text: str) -> None:
    session = Session("s-1", text, metadata={text: text})
    session.loops.append(LoopRecord(text, "s-1", text, metadata={"text": text}))
    await store.save(session)
    await store.save(Session("s-2", text + "x"))
    loaded = await store.load("s-1")
    assert (loaded.agent_id, loaded.loops, loaded.metadata) == (text, session.loops, {text: text})
    assert [found.session_id for found in await store.list_for_agent(text)] == ["s-1"]
    assert [info.session_id async for info in store.infos(agent_id=text)] == ["s-1"]
    replaced = LoopRecord(text, "s-1", text, metadata={"second": text})
    added = record(1)
    await store.append("s-1", replaced)
    await store.append("s-1", added)
    assert (await store.load("s-1")).loops == [replaced, added]


async def test_an_agent_that_cannot_be_is_nobodys(store: PostgresSessionStore) -> None:
    await store.save(version(0))
    for nobody in ("\ud800", "a\udfff", "\ud83d\ude00"):
        assert await store.list_for_agent(nobody) == []
        assert [info async for info in store.infos(agent_id=nobody)] == []


@pytest.mark.parametrize("name", ["\0", "\ud800", "'", "", "x" * 100_000])
async def test_a_revision_that_cannot_be_is_in_conflict(
    store: PostgresSessionStore, name: str
) -> None:
    session = version(0)
    await store.save(session)
    for call in (
        lambda: store.save(session, expect=Revision(name)),
        lambda: store.delete("s-1", expect=Revision(name)),
    ):
        with pytest.raises(SessionConflictError) as caught:
            await call()
        assert caught.value.found == session.revision


async def test_records_with_one_loop_id_are_all_kept_and_the_last_is_replaced(
    postgres_url: str, store: PostgresSessionStore
) -> None:
    session = Session("s-1", "a")
    for n in range(4):
        session.loops.append(record(0 if n % 2 else 1, n=n))
    await store.save(session)
    loaded = await store.load("s-1")
    assert loaded.loops == session.loops
    await store.append("s-1", record(0, n=9), record(5, n=9), record(1, n=8))
    numbers = [loop.metadata["n"] for loop in (await store.load("s-1")).loops]  # type: ignore[index]
    assert numbers == [0, 1, 8, 9, 9]
    loaded = await store.load("s-1")
    del loaded.loops[1]
    loaded.loops.insert(0, record(7, n=7))
    await store.save(loaded)
    assert (await store.load("s-1")).loops == loaded.loops
    await assert_sizes_are_right(postgres_url)


async def assert_sizes_are_right(url: str) -> None:
    rows = await run_sql(
        url,
        "SELECT s.size, length(s.head) + coalesce(sum(length(r.text)), 0), s.next_position,"
        " count(r.position), coalesce(max(r.position), -1) FROM phi_sessions s"
        " LEFT JOIN phi_records r USING (session_id) GROUP BY s.session_id",
    )
    for size, counted, next_position, records, last in rows:
        assert size == counted
        assert next_position == records == last + 1


async def test_the_size_follows_every_change(
    postgres_url: str, store: PostgresSessionStore
) -> None:
    session = version(0, size=3)
    await store.save(session)
    for step in range(6):
        session = await store.load("s-1")
        session.metadata["n" * step] = "x" * step * 10
        session.loops[step % 3].metadata = {"fill": "y" * step * 7}
        session.loops.append(record(10 + step))
        await store.save(session)
        await store.append("s-1", record(10, n=step), record(20 + step))
        await assert_sizes_are_right(postgres_url)
        [info] = [info async for info in store.infos()]
        assert info.size == (await run_sql(postgres_url, "SELECT size FROM phi_sessions"))[0][0]


async def test_a_save_sends_only_what_changed(
    postgres_url: str, store: PostgresSessionStore
) -> None:
    await store.save(version(0, size=20))
    before = dict(await written_by(postgres_url))
    session = await store.load("s-1")
    session.loops[7].metadata = {"changed": True}
    session.loops.append(record(99))
    await store.save(session)
    after = dict(await written_by(postgres_url))
    assert [k for k in before if after[k] != before[k]] == [7]
    assert sorted(after.keys() - before.keys()) == [20]
    assert (await store.load("s-1")).loops == session.loops


async def written_by(url: str) -> list[tuple[int, int]]:
    rows = await run_sql(url, "SELECT position, xmin::text::bigint FROM phi_records")
    return [(position, xmin) for position, xmin in rows]


async def test_two_megabytes_in_one_record_and_in_thousands(
    postgres_url: str, store: PostgresSessionStore
) -> None:
    large = Session("large", "a", loops=[LoopRecord("l", "large", "a")])
    large.loops[0].metadata = {"text": "\0\U0001f600'" * 250_000}
    many = version(1, "many", size=2_000)
    for session in (large, many):
        await store.save(session)
        assert (await store.load(session.session_id)).loops == session.loops
    assert len(await store.list_for_agent("a")) == 2
    await assert_sizes_are_right(postgres_url)


async def test_a_listing_of_more_than_one_statement_returns(
    store: PostgresSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(23):
        await store.save(version(n, f"s-{n}", size=n % 3))
    expected = [f"s-{n}" for n in range(22, -1, -1)]
    for first in (1, 700, 3_000, 9_000):
        monkeypatch.setattr("phi_sessions.stores.postgres.listing.FIRST_BYTES", first)
        query = store._statements.of_agent.replace(str(16 * 1024 * 1024), str(first))
        monkeypatch.setattr(store._statements, "of_agent", query)
        found = await store.list_for_agent("a")
        assert [session.session_id for session in found] == expected
        for session in found:
            assert session.loops == (await store.load(session.session_id)).loops
        monkeypatch.undo()


async def test_cards_come_in_pages_and_none_is_missed_that_moves(
    store: PostgresSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phi_sessions.stores.postgres.listing._PAGE", 5)
    names = [f"s-{n}" for n in range(23)]
    for n, name in enumerate(names):
        await store.save(version(n, name, size=0, agent_id=f"agent-{n % 2}"))
    assert [info.session_id async for info in store.infos()] == names[::-1]
    assert [i.session_id async for i in store.infos(agent_id="agent-1")] == names[1::2][::-1]
    assert [i.session_id async for i in store.infos(limit=12)] == names[::-1][:12]
    seen: list[str] = []
    async for info in store.infos():
        seen.append(info.session_id)
        if len(seen) in (2, 7):  # those that were not shown yet move to the front
            for name in names[:8]:
                await store.save(version(0, name, size=0), expect=Expect.ANYTHING)
            await store.delete(names[10 + len(seen)])
    assert sorted(seen) == sorted({*names} - {names[12], names[17]})
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        ("UPDATE phi_sessions SET head = '{'", "damaged header"),
        ("UPDATE phi_sessions SET head = '\\xff'", "damaged header"),
        ("UPDATE phi_sessions SET agent_id = 'b'", "it holds a session of agent 'a'"),
        ("UPDATE phi_sessions SET session_id = 's-2'", "it holds session 's-1'"),
        ("UPDATE phi_records SET text = '{}' WHERE position = 1", "record 1"),
        ("UPDATE phi_records SET text = '\\x00ff'", "record"),
        ("UPDATE phi_records SET loop_id = 'l' WHERE position = 1", "it holds loop record 's-1.1'"),
    ],
)
async def test_damage_is_told_and_left_as_it_is(
    postgres_url: str, store: PostgresSessionStore, damage: str, what: str
) -> None:
    await store.save(version(0, "good", agent_id="b"))
    await store.save(version(0, size=3))
    move = " WHERE session_id = 's-1'" if "WHERE" not in damage else " AND session_id = 's-1'"
    await run_sql(postgres_url, damage + move)
    name = "s-2" if "s-2" in damage else "s-1"
    if name == "s-2":
        await run_sql(postgres_url, "UPDATE phi_records SET session_id = 's-2'" + move)
    with pytest.raises(SessionCorruptError) as caught:
        await store.load(name)
    error = caught.value
    assert error.session_id == name
    assert error.path is not None
    assert "phi_sessions" in error.path
    assert what.removeprefix("record") in f"{error} {error.path} damaged header"
    assert await store.exists(name)
    agent = "b" if "agent_id" in damage else "a"
    with pytest.raises(SessionCorruptError):
        await store.list_for_agent(agent)
    left = await store.list_for_agent(agent, on_error="skip")
    assert [session.session_id for session in left] == (["good"] if agent == "b" else [])
    assert "good" in [info.session_id async for info in store.infos(on_error="skip")]
    with pytest.raises(SessionCorruptError):
        await store.load(name)
    await store.save(version(1, name), expect=Expect.ANYTHING)
    assert (await store.load(name)).metadata == {"n": 1}


@pytest.mark.parametrize("agent_id", [None, "a"])
async def test_a_limit_counts_what_is_not_damaged(
    postgres_url: str, store: PostgresSessionStore, agent_id: str | None
) -> None:
    for n in range(4):
        await store.save(version(n, f"s-{n}"))
    await run_sql(postgres_url, "UPDATE phi_sessions SET head = '{' WHERE session_id = 's-3'")
    infos = store.infos(agent_id=agent_id, limit=2, on_error="skip")
    assert [info.session_id async for info in infos] == ["s-2", "s-1"]
