"""The SQLite store as a file: what it is made of, how it is opened, and how it is left."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from sqlite_samples import another, assert_sound, number, record, rows, version

from phi_sessions import (
    Expect,
    Promise,
    SessionLockedError,
    SessionTaskError,
)
from phi_sessions.stores.sqlite import SQLiteSessionStore, failures, open_url, place, schema


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "nested" / "sessions.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteSessionStore]:
    async with SQLiteSessionStore(path) as made:
        yield made


# The file


async def test_the_file_is_made_with_the_first_save_and_for_its_owner_alone(
    store: SQLiteSessionStore, path: Path
) -> None:
    assert await store.list_ids() == []
    assert await store.list_for_agent("a") == []
    assert [info async for info in store.infos()] == []
    assert not await store.exists("s-1")
    assert await store.find("s-1") is None
    assert not path.parent.parent.exists()  # looking makes nothing
    old = os.umask(0)
    try:
        await store.save(version(1))
    finally:
        os.umask(old)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700


async def test_a_lease_before_the_first_save_makes_the_directories_as_a_save_does(
    store: SQLiteSessionStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    sync = place._sync

    def watched(directory: str) -> None:
        sync(directory)
        synced.append(directory)

    monkeypatch.setattr(place, "_sync", watched)
    old = os.umask(0o022)
    try:
        async with store.lease("s-1"):
            pass
    finally:
        os.umask(old)
    made = [path.parent.parent, path.parent, Path(f"{path}-leases")]
    for directory in made:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700, directory
        assert str(directory.parent) in synced


async def test_a_relative_path_stays_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with SQLiteSessionStore("sessions.db") as store:
        await store.save(version(1))
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        await asyncio.gather(*(store.load("s-1") for _ in range(8)))
        await store.save(version(2))
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("name", ["a b%20c.db", "ü?#&.db", "'; DROP TABLE x; --.db", "\udcff.db"])
async def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    async with SQLiteSessionStore(tmp_path / name) as store:
        await store.save(version(1))
        assert number(await store.load("s-1")) == 1
        names = {file.name for file in tmp_path.iterdir()}
        assert names == {name, f"{name}-wal", f"{name}-shm"}
    assert [file.name for file in tmp_path.iterdir()] == [name]


async def test_a_link_to_the_file_is_the_file(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    (tmp_path / "real.db").touch(0o600)
    async with (
        SQLiteSessionStore(tmp_path / "link.db") as one,
        SQLiteSessionStore(tmp_path / "real.db") as other,
    ):
        await asyncio.gather(
            *(s.save(version(1, f"{s!r}-{n}")) for s in (one, other) for n in "ab")
        )
        assert len(await one.list_ids()) == len(await other.list_ids()) == 4
        async with one.lease("s-1"):
            with pytest.raises(SessionLockedError):
                async with other.lease("s-1"):
                    pytest.fail("there are two holders")
    assert_sound(tmp_path / "real.db")


@pytest.mark.parametrize("nothing", ["", ":memory:"])
def test_a_path_that_is_no_file_is_refused(nothing: str) -> None:
    with pytest.raises(ValueError, match="MemorySessionStore"):
        SQLiteSessionStore(nothing)
    with pytest.raises(ValueError):
        open_url(f"sqlite:///{nothing}")


def test_a_store_needs_a_thread_to_read_beside_the_one_that_writes() -> None:
    with pytest.raises(ValueError, match="workers"):
        SQLiteSessionStore("x.db", workers=1)


def test_an_address_is_what_it_is_to_sqlalchemy() -> None:
    assert open_url("sqlite:///relative.db").path == Path("relative.db")
    assert open_url("sqlite:///a/b.db", max_bytes=5).path == Path("a/b.db")
    assert open_url("sqlite:////absolute/x.db").path == Path("/absolute/x.db")
    for wrong in ("sqlite:", "sqlite://", "sqlite://host/x.db", "sqlite:///x.db?mode=ro", "x.db"):
        with pytest.raises(ValueError):
            open_url(wrong)


def test_only_other_machines_are_not_promised() -> None:
    assert SQLiteSessionStore.lacks == {Promise.HOSTS}


async def test_a_file_that_is_removed_is_made_anew(store: SQLiteSessionStore, path: Path) -> None:
    await store.save(version(1))
    assert number(await store.load("s-1")) == 1
    for file in path.parent.iterdir():
        file.unlink()
    assert await store.list_ids() == []
    await store.save(version(2, "s-2"))
    assert await store.list_ids() == ["s-2"]
    assert rows(path, "SELECT session_id FROM sessions") == [("s-2",)]


async def test_a_file_that_is_replaced_is_opened_anew(tmp_path: Path, path: Path) -> None:
    backup = tmp_path / "backup.db"
    async with SQLiteSessionStore(backup) as other:
        await other.save(version(7, "restored"))
    async with SQLiteSessionStore(path) as store:
        await store.save(version(1))
        assert await store.list_ids() == ["s-1"]
    async with SQLiteSessionStore(path) as store:
        assert await store.list_ids() == ["s-1"]
        for leftover in ("-wal", "-shm"):
            Path(f"{path}{leftover}").unlink(missing_ok=True)
        os.replace(backup, path)
        assert await store.list_ids() == ["restored"]
        await store.save(version(8, "restored"))
    assert_sound(path)


@pytest.mark.parametrize("idle", [True, False], ids=["idle", "in use"])
async def test_connections_to_a_file_that_was_removed_take_no_lock_of_the_new_one_along(
    store: SQLiteSessionStore, path: Path, idle: bool
) -> None:
    await store.save(version(1))
    database = store._database
    with ExitStack() as stack:
        readers = [stack.enter_context(database.lend()) for _ in range(3)]
        readers[0].execute("BEGIN")
        readers[0].execute("SELECT * FROM sessions").fetchall()
        if idle:
            stack.close()
        path.unlink()  # and not its index, which the new file then gets
        if not idle:
            with pytest.raises(failures.Contended), database.lend(to_write=True):
                pass
    with database.lend(to_write=True) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with database.lend() as reader:
            assert reader.execute("SELECT * FROM sessions").fetchall() == []
        program = "import sqlite3, sys; sqlite3.connect(sys.argv[1], 0).execute('BEGIN IMMEDIATE')"
        done = subprocess.run(
            [sys.executable, "-c", program, str(path)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert "database is locked" in done.stderr
    await store.save(version(2))
    assert_sound(path)


# Durability, as far as settings tell


async def test_every_connection_is_as_durable_as_it_gets(store: SQLiteSessionStore) -> None:
    await store.save(version(1))
    await asyncio.gather(*(store.load("s-1") for _ in range(20)))
    database = store._database
    links = [*database._to_write, *database._to_read]
    assert len(database._to_write) == 1
    assert len(links) >= 2
    wanted = {
        "journal_mode": b"wal",
        "synchronous": 2,
        "fullfsync": 1,
        "checkpoint_fullfsync": 1,
        "wal_autocheckpoint": 0,
        "busy_timeout": 0,
        "trusted_schema": 0,
        "application_id": schema.APPLICATION_ID,
        "user_version": len(schema.MIGRATIONS),
    }
    for link in links:
        found = {name: link.connection.execute(f"PRAGMA {name}").fetchone()[0] for name in wanted}
        assert found == wanted


async def test_the_log_is_taken_in_before_it_grows_long(
    store: SQLiteSessionStore, path: Path
) -> None:
    log = Path(f"{path}-wal")
    longest = 0
    for n in range(60):  # 12 MB
        await store.save(version(n, size=200), expect=Expect.ANYTHING)
        longest = max(longest, log.stat().st_size)
    assert longest < 2 * schema.LOG_BYTES
    assert path.stat().st_size > 200 * 900


@pytest.mark.parametrize("by", ["name", "link"])
async def test_a_process_that_finds_a_long_log_takes_it_in(
    tmp_path: Path, path: Path, by: str
) -> None:
    name = path
    if by == "link":
        name = tmp_path / "link.db"
        name.symlink_to(path)
    async with SQLiteSessionStore(path) as store:
        await store.save(version(1))
        with another(path) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM sessions").fetchall()  # keeps the log from beginning anew
            for n in range(40):
                await store.save(version(n, size=200))
        log = Path(f"{path}-wal")
        before = log.stat().st_size
        assert before > schema.LOG_BYTES
        with another(path):  # so that the log is not removed with the last connection
            async with SQLiteSessionStore(name) as late:
                await late.append("s-1", record("late"))
                for n in range(3):
                    await late.append("s-1", record(f"late-{n}"))
            assert log.stat().st_size <= schema.LOG_BYTES
    assert_sound(path)


# The end


async def test_a_store_that_is_dropped_unclosed_warns_and_closes_the_file(path: Path) -> None:
    stores = [SQLiteSessionStore(path)]
    await stores[0].save(version(1))
    gc.collect()
    with pytest.warns(ResourceWarning, match="unclosed SQLiteSessionStore"):
        stores.clear()
    assert not Path(f"{path}-wal").exists()  # the last connection takes it along


async def test_a_closed_store_leaves_one_file(store: SQLiteSessionStore, path: Path) -> None:
    await store.save(version(1))
    await store.load("s-1")
    await asyncio.gather(store.aclose(), store.aclose())
    assert list(path.parent.iterdir()) == [path]
    for call in (store.save(version(2)), store.load("s-1"), store.append("s-1", record("x"))):
        with pytest.raises(SessionTaskError):
            await call
    await store.aclose()


@pytest.mark.parametrize("passes", range(1, 6))
async def test_a_close_that_is_cancelled_closes_all_the_same(path: Path, passes: int) -> None:
    store = SQLiteSessionStore(path)
    await store.save(version(1))
    await asyncio.gather(*(store.load("s-1") for _ in range(9)))
    threads = [each for each in threading.enumerate() if str(path) in each.name]
    closing = asyncio.create_task(store.aclose())
    for _ in range(passes):
        await asyncio.sleep(0)
    closing.cancel()
    with suppress(asyncio.CancelledError):
        await closing
    assert list(path.parent.iterdir()) == [path]
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), thread.name


def test_the_driver_is_fit_to_be_used_by_several_threads() -> None:
    assert sqlite3.threadsafety > 0
