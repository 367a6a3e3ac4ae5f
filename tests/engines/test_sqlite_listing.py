"""The SQLite store's listings: several reads, what is gone meanwhile, what is damaged amid them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlite_samples import another, assert_sound, number, rows, version

from phi_sessions import LoopRecord, Session, SessionCorruptError
from phi_sessions.stores.sqlite import SQLiteSessionStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteSessionStore]:
    async with SQLiteSessionStore(path) as made:
        yield made


async def listed(store: SQLiteSessionStore, agent_id: str = "a") -> list[str]:
    """Return which sessions are listed, those that are damaged left out."""
    sessions = await store.list_for_agent(agent_id, on_error="skip")
    return [session.session_id for session in sessions]


async def carded(store: SQLiteSessionStore, agent_id: str = "a") -> list[str]:
    """Return which cards are listed, those that are damaged left out."""
    infos = store.infos(agent_id=agent_id, on_error="skip")
    return [info.session_id async for info in infos]


def reads(
    store: SQLiteSessionStore,
    monkeypatch: pytest.MonkeyPatch,
    after_first: Callable[[], None] | None = None,
) -> list[list[Any]]:
    """Return where each read of sessions puts what it found, from now on."""
    found: list[list[Any]] = []
    read = store._reader.sessions

    def sessions(*args: Any, **kwargs: Any) -> Any:
        found.append(read(*args, **kwargs))
        if len(found) == 1 and after_first is not None:
            after_first()
        return found[-1]

    monkeypatch.setattr(store._reader, "sessions", sessions)
    return found


def enough(monkeypatch: pytest.MonkeyPatch, size: int, batch: int = 1024) -> None:
    """Have a listing read no more than so much at a time."""
    monkeypatch.setattr("phi_sessions.stores.sqlite.store._ENOUGH", size)
    monkeypatch.setattr("phi_sessions.stores.sqlite.store._BATCH", batch)


# Several reads


async def test_listings_longer_than_one_read_lose_and_repeat_nothing(
    store: SQLiteSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    enough(monkeypatch, 3000, batch=7)
    ids = [f"s-{n}" for n in range(50)]
    await asyncio.gather(*(store.save(version(n, each)) for n, each in enumerate(ids)))
    newest = await store.list_ids()
    assert sorted(newest) == sorted(ids)
    assert [info.session_id async for info in store.infos()] == newest
    assert [info.session_id async for info in store.infos(limit=9)] == newest[:9]
    assert [session.session_id for session in await store.list_for_agent("a")] == newest
    listed: list[str] = []
    async for info in store.infos():  # each is saved again, and some are gone, while it runs
        listed.append(info.session_id)
        await store.save(version(9, newest[(len(listed) * 7) % 50]))
    assert listed == newest


@pytest.mark.parametrize("agent_id", [None, "a"])
async def test_a_session_that_is_made_anew_meanwhile_is_listed_once(
    store: SQLiteSessionStore, path: Path, monkeypatch: pytest.MonkeyPatch, agent_id: str | None
) -> None:
    enough(monkeypatch, 1)
    for n in (0, 1, 2, 3, 0, 2, 1):
        await store.save(version(n, f"s-{n}"))
    seen: list[str] = []
    async for info in store.infos(agent_id=agent_id):
        seen.append(info.session_id)
        if len(seen) == 1:  # the newest gets the number of the oldest
            await store.delete("s-3")
            await store.delete("s-1")
            await store.save(version(9, "s-1"))
            assert rows(path, "SELECT number FROM sessions WHERE session_id = 's-1'") == [(4,)]
    assert seen == ["s-1", "s-2", "s-0"]


async def test_an_agents_sessions_that_are_made_anew_meanwhile_are_listed_once(
    store: SQLiteSessionStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enough(monkeypatch, 1)
    for n in range(4):
        await store.save(version(n, f"s-{n}"))

    def renumber() -> None:  # as a deletion and a save do that get the number of a deleted one
        with another(path) as connection:
            connection.execute("DELETE FROM records")
            connection.execute("DELETE FROM sessions WHERE session_id IN ('s-0', 's-1', 's-2')")
            connection.execute("UPDATE sessions SET number = 1, records = 0, size = length(head)")

    reads(store, monkeypatch, renumber)
    assert await listed(store) == ["s-3"]


@pytest.mark.parametrize("agent_id", [None, "a"])
@pytest.mark.parametrize("size", [1, 10_000_000])
async def test_a_limit_counts_what_has_not_vanished(
    store: SQLiteSessionStore, monkeypatch: pytest.MonkeyPatch, agent_id: str | None, size: int
) -> None:
    enough(monkeypatch, size, batch=3)
    for n in range(10):
        await store.save(version(n, f"s-{n}"))
    seen: list[str] = []
    async for info in store.infos(agent_id=agent_id, limit=6):
        seen.append(info.session_id)
        if len(seen) == 1:
            await store.delete("s-5")
            await store.delete("s-4")
    assert seen == [f"s-{n}" for n in (9, 8, 7, 6, 3, 2)]


async def test_a_listing_of_fewer_than_its_limit_asks_no_more_than_once(
    store: SQLiteSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        await store.save(version(n, f"s-{n}"))
    asked = 0
    numbers = store._reader.numbers

    def counted(*args: Any) -> list[int]:
        nonlocal asked
        asked += 1
        return numbers(*args)

    monkeypatch.setattr(store._reader, "numbers", counted)
    for limit in (2, 3, 4):
        asked = 0
        assert len([info async for info in store.infos(limit=limit)]) == min(limit, 3)
        assert asked == 1


@pytest.mark.parametrize("size", [1, 3000, 30_000, 10_000_000])
async def test_sessions_of_any_length_are_listed_as_they_are_loaded(
    store: SQLiteSessionStore, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    enough(monkeypatch, size)
    for n, length in enumerate((0, 1, 0, 0, 40, 2, 0)):
        session = version(n, f"s-{n}", size=length)
        session.metadata["long"] = "y" * 5000 * (n % 2)
        await store.save(session)
    await store.append("s-4", LoopRecord("last", "s-4", "a", metadata={"n": 4}))
    newest = await store.list_ids()
    sessions = await store.list_for_agent("a")
    assert [session.session_id for session in sessions] == newest
    assert sessions == [await store.load(each) for each in newest]
    assert [len(session.loops) for session in sessions] == [41, 0, 2, 0, 0, 1, 0]


async def test_a_read_holds_no_more_than_enough(
    store: SQLiteSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    enough(monkeypatch, 3000)
    for n in range(9):  # of one record of a kilobyte, or with none and that much metadata
        session = version(n, f"s-{n}", size=n % 2)
        session.metadata["fill"] = "x" * 900 * (1 - n % 2)
        await store.save(session)
    found = reads(store, monkeypatch)
    assert len(await store.list_for_agent("a")) == 9
    assert [len(each) for each in found] == [3, 3, 3]


async def test_a_read_of_cards_holds_no_more_than_enough(
    store: SQLiteSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    enough(monkeypatch, 3000)
    for n in range(9):
        session = version(n, f"s-{n}")
        session.metadata["fill"] = "x" * 900
        await store.save(session)
    lengths: list[int] = []
    read = store._reader.cards

    def cards(*args: Any, **kwargs: Any) -> Any:
        found = read(*args, **kwargs)
        lengths.append(len(found))
        return found

    monkeypatch.setattr(store._reader, "cards", cards)
    assert len(await carded(store)) == 9
    assert lengths == [3, 3, 3]


@pytest.mark.parametrize("gone", [[3], [4, 5], [8], [3, 4, 5, 6, 7, 8], [5, 8]])
async def test_sessions_that_are_deleted_between_two_reads_are_passed_over(
    store: SQLiteSessionStore, path: Path, monkeypatch: pytest.MonkeyPatch, gone: list[int]
) -> None:
    enough(monkeypatch, 3000)
    for n in reversed(range(9)):
        await store.save(version(n, f"s-{n}", size=1))

    def delete() -> None:
        with another(path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            for n in gone:
                which = "(SELECT number FROM sessions WHERE session_id = ?)"
                connection.execute(f"DELETE FROM records WHERE session = {which}", [f"s-{n}"])
                connection.execute("DELETE FROM sessions WHERE session_id = ?", [f"s-{n}"])
            connection.execute("COMMIT")

    found = reads(store, monkeypatch, after_first=delete)
    sessions = await store.list_for_agent("a")
    left = [n for n in range(9) if n not in gone]
    assert [number(session) for session in sessions] == left
    assert [len(session.loops) for session in sessions] == [1] * len(left)
    assert len(found[0]) == 2
    assert sum(map(len, found)) == 9
    assert_sound(path)


async def test_a_session_that_is_saved_between_two_reads_keeps_its_place(
    store: SQLiteSessionStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enough(monkeypatch, 3000)
    for n in reversed(range(9)):
        await store.save(version(n, f"s-{n}", size=1))

    def renew() -> None:
        with another(path) as connection:
            newest = "(SELECT max(turn) + 1 FROM sessions)"
            connection.execute(
                f"UPDATE sessions SET turn = {newest}, revision = 'new' WHERE session_id = 's-5'"
            )

    reads(store, monkeypatch, after_first=renew)
    sessions = await store.list_for_agent("a")
    assert [number(session) for session in sessions] == list(range(9))
    assert sessions[5].revision == "new"


# Damage

IN_ROWS = {
    "head": "UPDATE sessions SET head = '{}' WHERE session_id = 's-2'",
    "head is a number": "UPDATE sessions SET head = 5 WHERE session_id = 's-2'",
    "head of another": "UPDATE sessions SET head = (SELECT head FROM sessions WHERE"
    " session_id = 's-3') WHERE session_id = 's-2'",
    "count": "UPDATE sessions SET records = 7 WHERE session_id = 's-2'",
    "size": "UPDATE sessions SET size = 7 WHERE session_id = 's-2'",
    "size is no number": "UPDATE sessions SET size = 'x' WHERE session_id = 's-2'",
    "too large": "UPDATE sessions SET size = 1 << 40 WHERE session_id = 's-2'",
    "first record is gone": "DELETE FROM records WHERE loop_id = 's-2.0'",
    "second record is gone": "DELETE FROM records WHERE loop_id = 's-2.1'",
    "last record is gone": "DELETE FROM records WHERE loop_id = 's-2.2'",
    "record is another's": "UPDATE records SET loop_id = 'x' WHERE loop_id = 's-2.1'",
    "record is cut": "UPDATE records SET text = substr(text, 1, 20) WHERE loop_id = 's-2.0'",
    "record is a number": "UPDATE records SET text = 5 WHERE loop_id = 's-2.2'",
}


@pytest.mark.parametrize("size", [1, 10_000_000])
@pytest.mark.parametrize("kind", IN_ROWS)
async def test_a_damaged_session_amid_a_listing_is_told_and_disturbs_no_other(
    store: SQLiteSessionStore, path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, size: int
) -> None:
    enough(monkeypatch, size)
    for n in range(5):
        await store.save(version(n, f"s-{n}", size=3))
    with another(path) as connection:
        assert connection.execute(IN_ROWS[kind]).rowcount == 1
    with pytest.raises(SessionCorruptError) as caught:
        await store.list_for_agent("a")
    assert (caught.value.session_id, caught.value.path) == ("s-2", str(path))
    assert await listed(store) == ["s-4", "s-3", "s-1", "s-0"]
    others = await store.list_for_agent("a", on_error="skip")
    assert others == [await store.load(session.session_id) for session in others]
    if kind.startswith("head"):
        assert await carded(store) == ["s-4", "s-3", "s-1", "s-0"]


async def test_sessions_that_are_all_damaged_are_each_told(
    store: SQLiteSessionStore, path: Path
) -> None:
    for n in range(5):
        await store.save(version(n, f"s-{n}", size=2))
    with another(path) as connection:
        connection.execute("DELETE FROM records WHERE loop_id LIKE '%.0'")
    assert await listed(store) == []
    await store.save(version(9, "sound"))
    assert await listed(store) == ["sound"]


def spoil(path: Path, name: str) -> None:
    """Make nonsense of each page that holds `name` and what fills a session's rows."""
    content = bytearray(path.read_bytes())
    spoilt = 0
    for start in range(0, len(content), 4096):
        page = content[start : start + 4096]
        if name.encode() in page and b"x" * 800 in page:
            content[start] = 0xFF  # the kind of the page
            spoilt += 1
    assert spoilt
    path.write_bytes(content)


@pytest.mark.parametrize("size", [1, 10_000_000])
@pytest.mark.parametrize("damaged", [["s-0"], ["s-2"], ["s-4"], ["s-1", "s-2"], ["s-1", "s-3"]])
@pytest.mark.parametrize("where", ["head", "records"])
async def test_a_damaged_page_is_told_for_its_session_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch, where: str, damaged: list[str], size: int
) -> None:
    enough(monkeypatch, size)
    async with SQLiteSessionStore(path) as store:
        for n in range(5):
            session = Session(f"s-{n}", "a", metadata={"fill": "x" * 3000})
            if where == "records":
                session = version(n, f"s-{n}", size=30)
            await store.save(session)
        await store.save(Session("other", "b", metadata={"fill": "x" * 3000}))
    for name in damaged:
        spoil(path, f'"{name}"' if where == "head" else f'"{name}.15"')
    every = ["s-4", "s-3", "s-2", "s-1", "s-0"]
    sound = [each for each in every if each not in damaged]
    async with SQLiteSessionStore(path) as store:
        with pytest.raises(SessionCorruptError) as caught:
            await store.list_for_agent("a")
        assert caught.value.path == str(path)
        assert await listed(store) == sound
        assert await carded(store) == (sound if where == "head" else every)
        assert await listed(store, "b") == ["other"]
        with pytest.raises(SessionCorruptError):
            await store.load(damaged[0])


async def test_whoever_keeps_the_error_of_a_damaged_session_holds_up_nobody(
    store: SQLiteSessionStore, path: Path
) -> None:
    for n in range(3):
        await store.save(version(n, f"s-{n}", size=3))
    with another(path) as connection:
        connection.execute("UPDATE records SET text = '{}' WHERE loop_id = 's-1.0'")
        errors = await asyncio.gather(
            store.load("s-1"), store.list_for_agent("a"), return_exceptions=True
        )
        assert [type(error) for error in errors] == [SessionCorruptError] * 2
        await store.save(version(9, "s-9"))
        # All of the log can be taken in and begun anew: no read of it is open still.
        [(busy, _, _)] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert busy == 0


@pytest.mark.parametrize("records", [1, 30])
async def test_a_session_larger_than_allowed_is_told_and_its_records_are_not_read(
    path: Path, records: int
) -> None:
    async with SQLiteSessionStore(path) as store:
        for n in range(3):
            await store.save(version(n, f"s-{n}", size=1))
        long = [
            LoopRecord(f"long.{n}", "long", "a", metadata={"fill": "x" * (30_000 // records)})
            for n in range(records)
        ]
        await store.save(Session("long", "a", loops=long))
    spoil(path, "x" * 4000 if records == 1 else '"long.15"')  # which is told where it is read
    async with SQLiteSessionStore(path, max_bytes=10_000) as store:
        with pytest.raises(SessionCorruptError, match="max_bytes") as caught:
            await store.list_for_agent("a")
        assert caught.value.session_id == "long"
        assert await listed(store) == ["s-2", "s-1", "s-0"]
    async with SQLiteSessionStore(path) as store:
        with pytest.raises(SessionCorruptError, match="malformed"):
            await store.list_for_agent("a")
        assert await listed(store) == ["s-2", "s-1", "s-0"]


async def test_a_listing_reads_no_records(store: SQLiteSessionStore, path: Path) -> None:
    await store.save(version(1))
    with another(path) as connection:
        connection.execute("UPDATE records SET text = 'damaged'")
    assert [info.session_id async for info in store.infos()] == ["s-1"]
    assert rows(path, "SELECT text FROM records") == [("damaged",)]
