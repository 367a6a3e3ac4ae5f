"""Commits that fail, and all else that the driver can say: each is one of our errors."""

from __future__ import annotations

import asyncio
import errno
import re
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from awaiting import until
from sqlite_samples import another, assert_sound, number, record, version

from phi_sessions import (
    SaveOutcomeUnknownError,
    SessionConflictError,
    SessionCorruptError,
    SessionEncodeError,
    SessionIOError,
    SessionLockedError,
)
from phi_sessions.stores.sqlite import SQLiteSessionStore
from phi_sessions.stores.sqlite.failures import is_contention, is_uncertain, translate


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteSessionStore]:
    async with SQLiteSessionStore(path, lock_timeout=1) as made:
        yield made


# A commit that fails


class Failing:
    """A connection whose next commit fails as SQLite's would."""

    def __init__(self, connection: sqlite3.Connection, code: str, *, once: bool = True) -> None:
        self._connection = connection
        self._code = code
        self._left = 1 if once else 1000

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, *values: Any) -> Any:
        if statement == "COMMIT" and self._left:
            self._left -= 1
            error = sqlite3.OperationalError("made up")
            error.sqlite_errorcode = getattr(sqlite3, self._code)
            raise error
        return self._connection.execute(statement, *values)


def fail(store: SQLiteSessionStore, code: str, *, once: bool) -> None:
    database = store._database
    [link] = database._to_write
    database._to_write[:] = [link._replace(connection=Failing(link.connection, code, once=once))]  # type: ignore[arg-type]


@contextmanager
def held_back(store: SQLiteSessionStore) -> Iterator[None]:
    """Keep the thread that writes busy with something else."""
    gate = threading.Event()
    store._writing.submit(gate.wait, 10)
    try:
        yield
    finally:
        gate.set()


@pytest.mark.parametrize("code", ["SQLITE_IOERR_FSYNC", "SQLITE_IOERR_DIR_FSYNC"])
async def test_a_commit_that_may_come_back_after_a_crash_is_unknown(
    store: SQLiteSessionStore, path: Path, code: str
) -> None:
    await store.save(version(1))
    session = await store.load("s-1")
    before = session.revision
    fail(store, code, once=True)
    with held_back(store):
        changes = store.save(session), store.append("s-1", record("x"))
        together = asyncio.gather(*changes, return_exceptions=True)
        await until(lambda: len(store._committer._waiting) == len(changes))
    for error in await together:
        assert isinstance(error, SaveOutcomeUnknownError)
        assert (error.errno, error.session_id) == (errno.EIO, "s-1")
    assert session.revision == before
    await store.save(session)  # works again, and is known
    assert number(await store.load("s-1")) == 1
    assert_sound(path)


@pytest.mark.parametrize(
    ("code", "number_"), [("SQLITE_FULL", errno.ENOSPC), ("SQLITE_IOERR_WRITE", errno.EIO)]
)
async def test_a_commit_that_surely_failed_says_so(
    store: SQLiteSessionStore, code: str, number_: int
) -> None:
    await store.save(version(1))
    fail(store, code, once=True)
    with pytest.raises(SessionIOError) as caught:
        await store.append("s-1", record("x"))
    assert caught.value.errno == number_
    assert not isinstance(caught.value, SaveOutcomeUnknownError)
    assert len((await store.load("s-1")).loops) == 1
    await store.append("s-1", record("x"))


async def test_a_commit_of_many_that_surely_failed_is_tried_one_by_one(
    store: SQLiteSessionStore,
) -> None:
    await store.save(version(1))
    fail(store, "SQLITE_FULL", once=True)
    results = await asyncio.gather(*(store.append("s-1", record(f"r{n}")) for n in range(10)))
    assert len(set(results)) == 10
    assert (await store.load("s-1")).loops.ids()[1:] == [f"r{n}" for n in range(10)]


async def test_a_call_that_gave_up_beside_one_that_failed_was_locked(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SQLiteSessionStore(path, lock_timeout=0.3, max_bytes=10_000) as store:
        for name in "abc":
            await store.save(version(1, name))
        append = store._writer.append
        is_slow = threading.Event()

        def slow(*args: Any, **kwargs: Any) -> Any:
            is_slow.wait(10)
            return append(*args, **kwargs)

        monkeypatch.setattr(store._writer, "append", slow)
        waiting = store._committer._waiting
        with another(path) as holder:
            holder.execute("BEGIN IMMEDIATE")
            asks = asyncio.create_task(store.save(version(2, "a")))
            await until(lambda: len(waiting) == 1)
            waits = asyncio.create_task(store.save(version(2, "b")))
            await until(lambda: len(waiting) == 2)
            fails = asyncio.create_task(store.append("c", *version(2, "c", size=20).loops))
            await until(lambda: len(waiting) == 3)
            holder.execute("ROLLBACK")
        await until(lambda: not waiting)  # all three are under way, by one's asking
        await asyncio.sleep(0.5)  # and those that wait run out of patience
        is_slow.set()
        results = await asyncio.gather(asks, waits, fails, return_exceptions=True)
        assert isinstance(results[2], SessionEncodeError)
        assert isinstance(results[1], SessionLockedError)
        assert results[1].session_id == "b"
        stored = [number(await store.load(name)) for name in "abc"]
        assert stored == [1 if isinstance(results[0], SessionLockedError) else 2, 1, 1]


# All that the driver can say


def subclasses(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    yield kind
    for below in kind.__subclasses__():
        yield from subclasses(below)


@pytest.mark.parametrize("kind", [*subclasses(sqlite3.Error), *subclasses(sqlite3.Warning)])
def test_every_error_of_the_driver_is_one_of_ours(kind: type[sqlite3.Error], path: Path) -> None:
    error = translate(kind("what it says"), str(path), "s-1")
    assert isinstance(error, SessionIOError)
    assert error.filename == str(path)
    assert error.session_id == "s-1"
    assert "what it says" in str(error)


# The module also has constants that are no result of a call: limits, actions to be authorised.
RESULTS = (
    r"SQLITE_(ABORT|AUTH|BUSY|CANTOPEN|CONSTRAINT|CORRUPT|ERROR|FORMAT|FULL|INTERNAL|INTERRUPT|IOERR"
    r"|LOCKED|MISMATCH|MISUSE|NOLFS|NOMEM|NOTADB|NOTFOUND|PERM|PROTOCOL|RANGE|READONLY|SCHEMA"
    r"|TOOBIG)(_.*)?"
)
CODES = sorted(name for name in vars(sqlite3) if re.fullmatch(RESULTS, name))


@pytest.mark.parametrize("name", CODES)
def test_every_code_of_sqlite_is_an_error_of_ours(name: str, path: Path) -> None:
    error = sqlite3.OperationalError("what it says")
    error.sqlite_errorcode = getattr(sqlite3, name)
    for session_id in ("s-1", None):
        found = translate(error, str(path), session_id)
        assert isinstance(found, SessionIOError | SessionCorruptError | SessionLockedError)
        assert not isinstance(found, SessionConflictError)
        assert found.session_id == session_id
    family = name.split("_")[1]
    assert is_contention(error) == (family in ("BUSY", "LOCKED", "PROTOCOL"))
    assert is_uncertain(error) <= (family == "IOERR")
    if family in ("CORRUPT", "CONSTRAINT"):
        assert isinstance(translate(error, str(path), "s-1"), SessionCorruptError)
