"""A database that is damaged, foreign, too new, full or forbidden: what is said, what is left."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import scaled
from sqlite_places import tmpfs
from sqlite_samples import another, assert_sound, number, record, rows, run, version

from phi_sessions import (
    Expect,
    SaveOutcomeUnknownError,
    SessionCorruptError,
    SessionError,
    SessionIOError,
)
from phi_sessions.stores.sqlite import SQLiteSessionStore, schema


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteSessionStore]:
    async with SQLiteSessionStore(path, lock_timeout=1) as made:
        yield made


async def every_call(store: SQLiteSessionStore) -> list[Any]:
    """Return what comes of each kind of call."""

    async def infos() -> list[Any]:
        return [info async for info in store.infos()]

    calls = [
        store.load("s-1"),
        store.exists("s-1"),
        store.list_ids(),
        store.list_for_agent("a"),
        infos(),
        store.save(version(9, "s-9")),
        store.append("s-1", record("x")),
        store.delete("s-1"),
    ]
    return [(await asyncio.gather(call, return_exceptions=True))[0] for call in calls]


# What is no database of ours


@pytest.mark.parametrize(
    "content", [b"no database, but more than a hundred bytes" * 100, b"\0" * 5000, b"SQLite format"]
)
async def test_a_file_that_is_no_database_is_refused_and_left_alone(
    store: SQLiteSessionStore, path: Path, content: bytes
) -> None:
    path.write_bytes(content)
    for result in await every_call(store):
        assert type(result) is SessionIOError
        assert result.filename == str(path)
    assert path.read_bytes() == content


async def test_another_programs_database_is_refused_and_left_alone(
    store: SQLiteSessionStore, path: Path
) -> None:
    with another(path) as connection:
        connection.execute("CREATE TABLE accounts (name TEXT)")
    before = path.read_bytes()
    for result in await every_call(store):
        assert type(result) is SessionIOError
        assert "another program's" in str(result)
    assert path.read_bytes() == before
    assert rows(path, "PRAGMA journal_mode") == [("delete",)]


async def test_a_later_versions_database_is_refused_and_left_alone(path: Path) -> None:
    async with SQLiteSessionStore(path) as store:
        await store.save(version(1))
    with another(path) as connection:
        connection.execute(f"PRAGMA user_version={len(schema.MIGRATIONS) + 1}")
    async with SQLiteSessionStore(path) as store:
        for result in await every_call(store):
            assert type(result) is SessionIOError
            assert "later version" in str(result)
    with another(path) as connection:
        connection.execute(f"PRAGMA user_version={len(schema.MIGRATIONS)}")
    async with SQLiteSessionStore(path) as store:
        assert await store.list_ids() == ["s-1"]


@pytest.mark.parametrize("what", ["directory", "fifo", "dangling link", "parent is a file"])
async def test_what_is_no_regular_file_is_refused(path: Path, what: str) -> None:
    if what == "directory":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "dangling link":
        path.symlink_to(path.parent / "nowhere")
    else:
        path.touch()
        path = path / "sessions.db"
    async with SQLiteSessionStore(path) as store, asyncio.timeout(10):
        with pytest.raises(SessionIOError):
            await store.save(version(1))


# Damage


async def test_a_damaged_session_is_told_and_disturbs_no_other(
    store: SQLiteSessionStore, path: Path
) -> None:
    for n in range(3):
        await store.save(version(n, f"s-{n}"))
    await store.save(version(7, "other", agent_id="b"))
    with another(path) as connection:
        connection.execute("UPDATE records SET text = '{\"no\": 1}' WHERE loop_id LIKE 's-1.%'")
    with pytest.raises(SessionCorruptError) as caught:
        await store.load("s-1")
    assert (caught.value.session_id, caught.value.path) == ("s-1", str(path))
    assert caught.value.reason
    assert await store.exists("s-1")
    assert number(await store.load("s-0")) == 0
    with pytest.raises(SessionCorruptError):
        await store.list_for_agent("a")
    skipped = await store.list_for_agent("a", on_error="skip")
    assert [session.session_id for session in skipped] == ["s-2", "s-0"]
    assert [session.session_id for session in await store.list_for_agent("b")] == ["other"]
    await store.save(version(5, "s-1"), expect=Expect.ANYTHING)
    assert number(await store.load("s-1")) == 5


DAMAGE = {
    "head": "UPDATE sessions SET head = '{}' WHERE session_id = 's-1'",
    "head is a number": "UPDATE sessions SET head = 5 WHERE session_id = 's-1'",
    "head of another": "UPDATE sessions SET head = (SELECT head FROM sessions WHERE"
    " session_id = 's-2') WHERE session_id = 's-1'",
    "count": "UPDATE sessions SET records = 7 WHERE session_id = 's-1'",
    "size": "UPDATE sessions SET size = 7 WHERE session_id = 's-1'",
    "agent": "UPDATE sessions SET agent_id = 'b' WHERE session_id = 's-1'",
    "record is gone": "DELETE FROM records WHERE loop_id = 's-1.0'",
    "record is another's": "UPDATE records SET loop_id = 'x' WHERE loop_id = 's-1.0'",
    "record is cut": "UPDATE records SET text = substr(text, 1, 20) WHERE loop_id = 's-1.0'",
    "record is not UTF-8": "UPDATE records SET text = CAST(x'ff' AS TEXT) WHERE loop_id = 's-1.0'",
}


@pytest.mark.parametrize("kind", DAMAGE)
async def test_damage_is_noticed_and_nothing_is_made_of_it(
    store: SQLiteSessionStore, path: Path, kind: str
) -> None:
    for name in ("s-1", "s-2"):
        await store.save(version(1, name, size=2))
    with another(path) as connection:
        assert connection.execute(DAMAGE[kind]).rowcount == 1
    with pytest.raises(SessionCorruptError) as caught:
        await store.load("s-1")
    assert caught.value.session_id == "s-1"
    assert number(await store.load("s-2")) == 1
    cards = [info.session_id async for info in store.infos(on_error="skip")]
    assert "s-2" in cards
    if kind.startswith("head"):
        for refused in (store.save(version(3)), store.delete("s-1")):
            with pytest.raises(SessionCorruptError):
                await refused
        with pytest.raises(SessionCorruptError):
            [info async for info in store.infos()]
        assert cards == ["s-2"]


async def test_any_damage_of_the_file_is_an_error_of_ours_or_none(path: Path) -> None:
    async with SQLiteSessionStore(path) as store:
        for n in range(8):
            await store.save(version(n, f"s-{n}", size=3))
    sound = path.read_bytes()
    chance = random.Random(8)
    noticed = 0
    for turn in range(scaled(150)):
        damaged = bytearray(sound)
        if turn % 5 == 0:
            damaged = damaged[: chance.randrange(len(damaged))]
        elif turn % 5 == 1:
            start = chance.randrange(len(damaged) // 512) * 512
            damaged[start : start + 512] = chance.randbytes(512)
        else:
            for _ in range(chance.choice((1, 1, 3, 30))):
                page = chance.randrange(len(damaged) // 4096) * 4096
                # The first bytes of a page say what is in it, and where.
                damaged[page + chance.choice((chance.randrange(64), chance.randrange(4096)))] = (
                    chance.randrange(256)
                )
        path.write_bytes(damaged)
        async with SQLiteSessionStore(path, lock_timeout=0.1) as store, asyncio.timeout(20):
            results = await every_call(store)
        for result in results:
            if isinstance(result, BaseException):
                assert isinstance(result, SessionError), (turn, result)
                noticed += 1
        for leftover in ("-wal", "-shm", "-journal"):
            Path(f"{path}{leftover}").unlink(missing_ok=True)
    assert noticed > scaled(50)


async def test_a_damaged_log_loses_no_more_than_it_held(path: Path) -> None:
    async with SQLiteSessionStore(path) as store:
        await store.save(version(1))
    run("leave_unclosed", path.parent / "other.db")
    log = Path(f"{path}-wal")
    log.write_bytes(b"x" * 10_000)
    async with SQLiteSessionStore(path) as store:
        assert number(await store.load("s-1")) == 1
    assert_sound(path)


# No room


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with tmpfs(tmp_path / "small", "size=2m") as place:
        yield place


async def test_a_full_disk_leaves_the_old_state_and_works_again_with_space(
    small_disk: Path,
) -> None:
    async with SQLiteSessionStore(small_disk / "sessions.db") as store:
        await store.save(version(1))
        held = await store.load("s-1")
        filler = small_disk / "filler"
        filler.write_bytes(b"x" * 1_500_000)
        large = version(2, size=900)
        for change in (
            store.save(large, expect=Expect.ANYTHING),
            store.append("s-1", *version(2, size=900).loops),
        ):
            with pytest.raises(SessionIOError) as caught:
                await change
            assert caught.value.errno == errno.ENOSPC
            assert caught.value.session_id == "s-1"
            assert not isinstance(caught.value, SaveOutcomeUnknownError)
        assert large.revision is None
        assert number(await store.load("s-1")) == 1
        assert (await store.load("s-1")).revision == held.revision
        filler.unlink()
        await store.save(held)
        await store.save(large, expect=Expect.ANYTHING)
        assert number(await store.load("s-1")) == 2
    assert_sound(small_disk / "sessions.db")


async def test_one_that_does_not_fit_fails_alone(small_disk: Path) -> None:
    async with SQLiteSessionStore(small_disk / "sessions.db") as store:
        await store.save(version(1))
        small = [store.save(version(n, f"small-{n}")) for n in range(10)]
        large = store.save(version(2, "large", size=3000))
        results = await asyncio.gather(*small[:5], large, *small[5:], return_exceptions=True)
        [error] = [result for result in results if isinstance(result, BaseException)]
        assert isinstance(error, SessionIOError)
        assert (error.errno, error.session_id) == (errno.ENOSPC, "large")
        assert sorted(await store.list_ids()) == ["s-1", *(f"small-{n}" for n in range(10))]
    assert_sound(small_disk / "sessions.db")


async def test_a_database_that_may_not_grow_refuses(store: SQLiteSessionStore, path: Path) -> None:
    await store.save(version(1))
    [link] = store._database._to_write
    [[pages]] = link.connection.execute("PRAGMA page_count").fetchall()
    link.connection.execute(f"PRAGMA max_page_count={pages + 5}").fetchall()
    with pytest.raises(SessionIOError) as caught:
        await store.save(version(2, size=100), expect=Expect.ANYTHING)
    assert caught.value.errno == errno.ENOSPC
    assert number(await store.load("s-1")) == 1
    assert_sound(path)


async def test_a_first_save_on_a_full_disk_is_refused_and_works_again(small_disk: Path) -> None:
    filler = small_disk / "filler"
    with open(filler, "wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(b"x" * 4096)
    async with SQLiteSessionStore(small_disk / "new" / "sessions.db") as store:
        with pytest.raises(SessionIOError):
            await store.save(version(1))
        assert await store.list_ids() == []
        filler.unlink()
        await store.save(version(1))
        assert await store.list_ids() == ["s-1"]


# Forbidden


async def test_a_disk_that_became_read_only_refuses_and_works_again(small_disk: Path) -> None:
    path = small_disk / "sessions.db"
    async with SQLiteSessionStore(path) as store:
        await store.save(version(1))
    remount = ["mount", str(small_disk), "-o"]
    subprocess.run([*remount, "remount,ro"], check=True, timeout=30)
    try:
        async with SQLiteSessionStore(path) as store:
            for change in (store.save(version(2)), store.append("s-1", record("x"))):
                with pytest.raises(SessionIOError) as caught:
                    await change
                assert caught.value.errno == errno.EROFS
    finally:
        subprocess.run([*remount, "remount,rw"], check=True, timeout=30)
    async with SQLiteSessionStore(path) as store:
        await store.save(version(2), expect=Expect.ANYTHING)
        assert number(await store.load("s-1")) == 2


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that others may look into; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield Path(place)
        Path(place).chmod(0o755)


@pytest.mark.parametrize("what", ["file", "directory", "new"])
async def test_who_may_not_write_is_told_so(open_place: Path, what: str) -> None:
    path = open_place / "sessions.db"
    if what != "new":
        async with SQLiteSessionStore(path) as store:
            await store.save(version(1))
        path.chmod(0o444 if what == "file" else 0o666)
    open_place.chmod(0o777 if what == "file" else 0o555)
    assert run("as_nobody", path, "save") == f"SessionIOError {errno.EACCES} {path}\n"


async def test_who_may_not_read_is_told_so(open_place: Path) -> None:
    path = open_place / "sessions.db"
    async with SQLiteSessionStore(path) as store:
        await store.save(version(1))
    assert run("as_nobody", path, "load") == f"SessionIOError {errno.EACCES} {path}\n"


async def test_a_directory_above_may_be_closed_to_who_uses_the_file(open_place: Path) -> None:
    place = open_place / "closed" / "open"
    place.mkdir(parents=True)
    place.parent.chmod(0o711)
    place.chmod(0o777)
    assert run("as_nobody", place / "sessions.db", "save").startswith("ok")
