"""Sessions in one SQLite file, shared by the processes of one machine."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from ...codec import StoredRecord
from ...errors import (
    SessionCorruptError,
    SessionIOError,
    SessionLockedError,
    SessionTaskError,
)
from ...info import Selection, SessionInfo
from ...lease import Lease, SupportsLease
from ...model import Revision, Session
from ...promise import Promise
from ...store import Expectation, OnError
from ..base import BaseStore, Outcome, Stored, pack, unpack
from ..file_leases import FileLeases
from ..finishing import to_its_end
from ..patience import Patience
from ..turnstile import Passage, Turnstile
from ..workers import Workers
from . import leasing
from .committer import Committer
from .database import Database
from .driver import sqlite3
from .failures import Contended
from .job import Job
from .reading import Reader
from .schema import Absent
from .writing import Writer

__all__ = ["DEFAULT_MAX_BYTES", "SQLiteSessionStore", "open_url"]

DEFAULT_MAX_BYTES: Final = 128 * 1024 * 1024
_BATCH: Final = 1024
_ENOUGH: Final = 4 * 1024 * 1024
"""Sessions, and bytes of them, that are read in one hop of a listing."""

P = ParamSpec("P")
T = TypeVar("T")

L = TypeVar("L", Stored, SessionInfo)

_ReadMany = Callable[[sqlite3.Connection, list[int]], list[L | SessionCorruptError | None]]


class SQLiteSessionStore(BaseStore, SupportsLease):
    """Keeps sessions in one SQLite database file, a row for each loop record.

    When `save`, `append` or `delete` returns, the change survives a power cut (WAL with
    synchronous=FULL). Calls that wait at one time share a transaction. Any number of tasks,
    threads and processes of one machine may share the file. It is not for network file systems,
    which SQLite's locks and its shared memory do not work on.

    Beside the file lie SQLite's own `-wal` and `-shm`, which belong to it, and with the first
    lease a directory `-leases`. No other program should write to the tables; reading them is
    safe at any time.

    Args:
        path: The database file; made, 0600, with the first save, and so is its directory, 0700.
        lock_timeout: Seconds to wait while another process holds the database.
        max_bytes: The largest session that is written or read, in bytes.
        workers: Threads of the store's own for blocking calls, at least 2; one of them writes.
    """

    lacks = frozenset({Promise.HOSTS})

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        lock_timeout: float = 5.0,
        max_bytes: int = DEFAULT_MAX_BYTES,
        workers: int = 4,
    ) -> None:
        super().__init__()
        if os.fspath(path) in ("", ":memory:"):
            raise ValueError("the database is a file; for memory there is MemorySessionStore")
        if workers < 2:
            raise ValueError(f"workers must be at least 2: {workers}")
        self.path: Path = Path(path)
        self._lock_timeout = lock_timeout
        self._where = os.path.abspath(path)
        self._database = Database(self._where)
        self._reader = Reader(self._where, max_bytes)
        self._writer = Writer(self._where, max_bytes)
        self._workers = Workers(workers - 1, repr(self))
        self._leases = FileLeases(
            self._workers,
            partial(leasing.take, self._where),
            partial(leasing.holder_of, self._where),
        )
        self._writing = Workers(1, f"{self!r}, writing")
        self._committer = Committer(self._database, self._writing)
        self._turnstile = Turnstile()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({os.fspath(self.path)!r})"

    async def list_ids(self) -> list[str]:
        self._check_open()
        return await self._ask(self._reader.ids) or []

    async def exists(self, session_id: str) -> bool:
        self._check(session_id)
        return await self._ask(self._reader.exists, session_id) or False

    async def list_for_agent(self, agent_id: str, *, on_error: OnError = "raise") -> list[Session]:
        self._check_open()
        read = partial(self._reader.sessions, enough=_ENOUGH)
        return [
            unpack(stored)
            async for stored in self._listed(agent_id, None, read, on_error)
            if stored.header.agent_id == agent_id
        ]

    async def infos(
        self,
        *,
        agent_id: str | None = None,
        active_after: datetime | None = None,
        limit: int | None = None,
        on_error: OnError = "raise",
    ) -> AsyncIterator[SessionInfo]:
        self._check_open()
        selection = Selection(agent_id, active_after, limit)
        if selection.is_complete:
            return
        most = limit if active_after is None and on_error != "skip" else None
        read = partial(self._reader.cards, enough=_ENOUGH)
        async for info in self._listed(agent_id, most, read, on_error):
            if selection.takes(info):
                yield info
            if selection.is_complete:
                return

    async def _listed(
        self, agent_id: str | None, most: int | None, read: _ReadMany[L], on_error: OnError
    ) -> AsyncIterator[L]:
        """Yield what `read` gives for each session that there is now, newest first.

        A session that is saved meanwhile keeps its place in the listing. Where some of the `most`
        are gone by then, others follow.
        """
        begin = partial(self._reader.begin, batch=_BATCH, read=read)
        seen: set[str] = set()  # a session that is made anew may get the number of one that is gone
        while True:
            numbers, found = await self._ask(begin, agent_id, most) or ([], [])
            done = 0
            while found:
                for each in found:
                    if isinstance(each, SessionCorruptError):
                        if on_error != "skip":
                            raise each
                    elif each is not None and each.session_id not in seen:
                        seen.add(each.session_id)
                        yield each
                done += len(found)
                rest = numbers[done : done + _BATCH]
                found = await self._ask(read, rest) or [] if rest else []
            if most is None or len(numbers) < most:
                return
            most = None

    @asynccontextmanager
    async def lease(
        self,
        session_id: str,
        *,
        owner: str | None = None,
        timeout: float = 0.0,  # noqa: ASYNC109 - the contract's word
    ) -> AsyncGenerator[Lease]:
        self._check(session_id)
        lease = Lease.of_this_process(session_id, owner)
        async with self._leases.hold(lease, Patience.for_lease(timeout, session_id)):
            yield lease

    async def aclose(self) -> None:
        await super().aclose()
        await to_its_end(self._let_go())

    async def _let_go(self) -> None:
        await self._workers.aclose()
        with suppress(SessionTaskError):  # another call has closed it, or is about to
            await self._writing.run(self._database.close)
        await self._writing.aclose()

    async def _write(self, session: Session, expect: Expectation, outcome: Outcome) -> None:
        session_id = session.session_id
        async with self._turn(session_id) as patience:
            with patience.at_rest():
                outcome.parcel = parcel = await pack(session)
            size = sum(len(record.text) for record in parcel.records)
            save = partial(self._writer.save, parcel=parcel, expect=expect)
            job = self._committer.put(Job(session_id, size, save, partial(_see, outcome)))
        await self._committer.attend(job, patience)

    async def _append(
        self, session_id: str, records: list[StoredRecord], expect: Expectation, outcome: Outcome
    ) -> None:
        size = sum(len(record.text) for record in records)
        make = partial(self._writer.append, session_id=session_id, records=records, expect=expect)
        await self._change(Job(session_id, size, make, partial(_see, outcome)))

    async def _remove(self, session_id: str, expect: Expectation) -> bool:
        make = partial(self._writer.delete, session_id=session_id, expect=expect)
        return await self._change(Job(session_id, 0, make, _ignore))

    async def _change(self, job: Job[T]) -> T:
        async with self._turn(job.session_id) as patience:
            self._committer.put(job)
        return await self._committer.attend(job, patience)

    def _turn(self, session_id: str) -> Passage[Patience]:
        """Wait for this caller's turn among those who put a change of the session."""
        return self._turnstile.through(session_id, self._patience(session_id))

    def _patience(self, session_id: str | None) -> Patience:
        return Patience(self._lock_timeout, session_id, "the database is held by another")

    async def _read(self, session_id: str) -> Stored | None:
        return await self._ask(self._reader.session, session_id)

    async def _ask(
        self,
        job: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T | None:
        """Return what `job` reads in one transaction; None where there is no database yet."""
        patience = self._patience(None)
        while True:
            try:
                return await self._workers.run(
                    self._in_transaction, lambda connection: job(connection, *args, **kwargs)
                )
            except Absent:
                return None
            except Contended as error:
                pause = self._pause(patience, error)
            await asyncio.sleep(pause)

    def _pause(self, patience: Patience, reason: Contended) -> float:
        try:
            return patience.pause()
        except SessionLockedError:  # which the contract keeps for changes
            raise SessionIOError(
                f"{self._where}: held by another, waited {patience.waited:.2f} s",
                errno=errno.EBUSY,
                filename=self._where,
            ) from reason

    def _in_transaction(self, job: Callable[[sqlite3.Connection], T]) -> T:
        with self._database.lend() as connection:
            connection.execute("BEGIN")
            return job(connection)


def open_url(url: str, **options: Any) -> SQLiteSessionStore:
    """Return the store that an address names, as SQLAlchemy writes them; options are the store's.

    `sqlite:///relative.db` and `sqlite:////absolute.db`: what follows the third slash is the path,
    as it is.

    Raises:
        ValueError: The address names no file.
    """
    scheme, found, path = url.partition(":///")
    if scheme != "sqlite" or not found or "?" in path:
        raise ValueError("write sqlite:///NAME or sqlite:////ABSOLUTE, without a ?")
    return SQLiteSessionStore(path, **options)


def _see(outcome: Outcome, revision: Revision) -> None:
    outcome.revision = revision


def _ignore(_: object) -> None:
    """A delete's caller is told by the answer alone."""
