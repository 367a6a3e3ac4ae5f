"""Sessions as files in a directory, shared with phi-core."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from ...change import WatchedChange, changed
from ...codec import StoredRecord
from ...errors import (
    SessionConflictError,
    SessionCorruptError,
    SessionExistsError,
    SessionIOError,
)
from ...info import Selection, SessionInfo
from ...lease import Lease, SupportsLease
from ...model import Session
from ...promise import Promise
from ...store import Expect, Expectation, OnError
from ..base import BaseStore, Outcome, Stored, not_found, pack, settling, unpack
from ..file_leases import FileLeases
from ..grip import Grip, given_back
from ..patience import Patience
from ..turnstile import Passage, Turnstile
from ..workers import Workers
from . import check, leasing
from .check import Finding
from .committer import Committer
from .directory import SessionDirectory
from .flush import Writing
from .listing import Listing
from .retry import Retry, insist

__all__ = ["DEFAULT_MAX_BYTES", "FileSystemSessionStore"]

DEFAULT_MAX_BYTES: Final = 128 * 1024 * 1024
_CHECKED_AT_ONCE: Final = 16

P = ParamSpec("P")
T = TypeVar("T")


class FileSystemSessionStore(BaseStore, SupportsLease):
    """Keeps each session in one JSON file of a directory.

    When `save` or `delete` returns, the change survives a power cut. Any number of tasks, threads
    and processes of one machine may share the directory, phi-core 0.10 among them: both take the
    same lock and read each other's files. It is not for network file systems, where hosts do not
    see each other's flock(2) and a rename may not be atomic. On a file system that folds case,
    two ids that differ in case only get the same file; the second is refused (save by a save with
    `Expect.ANYTHING`, which replaces whatever is there).

    An `update` that was overtaken once holds the session's lock while a plain function changes it,
    so that it is not overtaken again; an async function may take its time: no lock is held for it.

    Args:
        dir: The directory; made, 0700, with the first save.
        lock_timeout: Seconds to wait for a session that another holds.
        lock_interval: The longest pause between two attempts at a lock, in seconds; above 0.01 it
            makes no difference, as waiters ask each 2 to 10 ms.
        fsync: False lowers the promise: a change survives a crash of the process, but a power cut
            may undo it, or leave the file empty or damaged.
        mode: Permissions of new session files, less the umask; to a tail, see below, its owner may
            write besides.
        indent: Spaces for each level, as phi-core lays files out with 2; None writes compact
            files, whose heads are read without reading the file.
        max_bytes: The largest file that is written or read, in bytes.
        workers: Threads of the store's own for blocking calls; they start with the first call.
        tails: Whether appends, and saves that change little of a large session, go to a file
            beside the session file. It makes their cost that of the change; phi-core, which knows
            no tails, sees them after the next `compact`. With False each change rewrites the
            session file.
    """

    lacks = frozenset({Promise.HOSTS})

    def __init__(
        self,
        dir: str | os.PathLike[str],
        *,
        lock_timeout: float = 5.0,
        lock_interval: float = 0.05,
        fsync: bool = True,
        mode: int = 0o600,
        indent: int | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
        workers: int = 4,
        tails: bool = True,
    ) -> None:
        super().__init__()
        self.dir: Path = Path(dir)
        self._lock_interval = lock_interval
        self._retry = partial(Retry, timeout=lock_timeout, interval=lock_interval)
        self._directory = SessionDirectory(
            os.fspath(self.dir.absolute()),  # it stays the same wherever the process goes
            fsync=fsync,
            mode=mode,
            indent=indent,
            max_bytes=max_bytes,
            tails=tails,
        )
        self._turnstile = Turnstile()
        self._workers = Workers(workers, f"{type(self).__name__}({os.fspath(self.dir)!r})")
        self._listing = Listing(self._directory, self._workers, self._retry)
        self._leases = FileLeases(
            self._workers,
            partial(leasing.take, self._directory.path),
            partial(leasing.holder_of, self._directory.path),
        )
        self._committer = Committer(self._workers, workers)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({os.fspath(self.dir)!r})"

    async def list_ids(self) -> list[str]:
        self._check_open()
        return await self._listing.ids()

    async def exists(self, session_id: str) -> bool:
        self._check(session_id)
        return await self._workers.run(self._directory.exists, session_id)

    async def list_for_agent(self, agent_id: str, *, on_error: OnError = "raise") -> list[Session]:
        self._check_open()
        found: list[Session] = []
        for session_id in await self._listing.ids_of_agent(agent_id):
            try:
                stored = await self._read(session_id)
            except (SessionCorruptError, SessionIOError):
                if on_error != "skip":
                    raise
                continue
            if stored is not None and stored.header.agent_id == agent_id:
                found.append(unpack(stored))
        return found

    async def infos(
        self,
        *,
        agent_id: str | None = None,
        active_after: datetime | None = None,
        limit: int | None = None,
        on_error: OnError = "raise",
    ) -> AsyncIterator[SessionInfo]:
        self._check_open()
        listing = self._listing.infos(Selection(agent_id, active_after, limit), on_error)
        async with aclosing(listing):
            async for info in listing:
                yield info

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
        patience = Patience.for_lease(timeout, session_id, longest=self._lock_interval)
        async with self._leases.hold(lease, patience):
            yield lease

    async def _update_again(
        self,
        session_id: str,
        change: WatchedChange,
        create: Callable[[], Session] | None,
        attempts: int,
    ) -> Session:
        if change.is_async:  # it may take its time: nobody else is to wait for it
            return await super()._update_again(session_id, change, create, attempts)
        async with self._turn(session_id) as retry, given_back(self._workers) as grip:
            stored = await self._run(retry, self._directory.load_alone, session_id, grip)
            if stored is not None:
                session = unpack(stored)
            elif create is not None:
                session = create()
            else:
                raise not_found(session_id)
            expect = Expect.ABSENT if stored is None else stored.origin.revision
            session = await changed(change, session, session_id)
            with settling(session) as outcome:
                try:
                    await self._put(retry, session, expect, outcome, grip)
                except (SessionConflictError, SessionExistsError):
                    if attempts == 1:
                        raise
                else:
                    return session
        # By one who takes no lock, as phi-core's older functions do.
        return await super()._update_again(session_id, change, create, attempts - 1)

    async def compact(self, session_id: str) -> None:
        """Take what was appended into the session file, where phi-core sees it.

        The session stays what it is, and so does its revision (with `indent` that is the new
        file's). It happens by itself when what was appended outgrows the session file.

        Raises:
            SessionNotFoundError: Nothing is stored under the id.
            SessionLockedError: Somebody else held the session for too long.
            SessionCorruptError: What is stored is damaged; it was left as it is.
            SessionEncodeError: With `indent`, the file would be larger than `max_bytes`.
            SessionIOError: The storage failed; what was there is untouched.
            SessionTaskError: The store is closed.
        """
        self._check(session_id)
        async with self._turn(session_id) as retry:
            await self._change(retry, self._directory.compact, session_id)

    async def check(self, *, repair: bool = False) -> list[Finding]:
        """Look every session over, and return what is wrong.

        Args:
            repair: Also put it right. Nothing that holds a session's data is deleted: damaged
                files, torn lines and orphan tails are given names of their own.

        Raises:
            SessionLockedError: Somebody held a session that needed a closer look for too long.
            SessionIOError: The storage failed.
            SessionTaskError: The store is closed.
        """
        self._check_open()
        found = await self._workers.run(check.survey, self._directory.path)
        suspects = found.suspects
        for start in range(0, len(found.session_ids), _CHECKED_AT_ONCE):
            batch = found.session_ids[start : start + _CHECKED_AT_ONCE]
            suspects.update(await self._workers.run(check.needs_a_look, self._directory, batch))
        findings = found.set_aside
        for session_id in sorted(suspects):
            findings += await self._look_closer(session_id, repair)
        return findings

    async def _look_closer(self, session_id: str, repair: bool) -> list[Finding]:
        findings: list[Finding] = []
        try:
            async with self._turn(session_id) as retry:
                await self._run(
                    retry, check.look_closer, self._directory, session_id, repair, findings
                )
        except SessionCorruptError as error:
            async with self._turn(session_id) as retry:
                findings.append(
                    await self._run(retry, check.set_damaged_aside, self._directory, error, repair)
                )
        except SessionIOError as error:
            if error.errno == errno.EROFS:  # which nothing can be mended on
                raise
            findings.append(check.unreadable(self._directory, session_id, error))
        return findings

    async def aclose(self) -> None:
        await super().aclose()
        await self._workers.aclose()

    async def _write(self, session: Session, expect: Expectation, outcome: Outcome) -> None:
        async with self._turn(session.session_id) as retry:
            await self._put(retry, session, expect, outcome)

    async def _put(
        self,
        retry: Retry,
        session: Session,
        expect: Expectation,
        outcome: Outcome,
        grip: Grip | None = None,
    ) -> None:
        with retry.at_rest():
            outcome.parcel = parcel = await pack(session)
        await self._change(retry, self._directory.save, parcel, expect, outcome, grip)

    async def _append(
        self, session_id: str, records: list[StoredRecord], expect: Expectation, outcome: Outcome
    ) -> None:
        async with self._turn(session_id) as retry:
            await self._change(retry, self._directory.append, session_id, records, expect, outcome)

    async def _read(self, session_id: str) -> Stored | None:
        return await self._patiently(session_id, self._directory.load, session_id)

    async def _remove(self, session_id: str, expect: Expectation) -> bool:
        async with self._turn(session_id) as retry:
            return await self._change(retry, self._directory.delete, session_id, expect)

    def _turn(self, session_id: str) -> Passage[Retry]:
        """Wait for this caller's turn among those who take the session's lock."""
        return self._turnstile.through(session_id, self._retry(session_id))

    async def _patiently(
        self, session_id: str, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `job`, which takes no lock."""
        return await self._run(self._retry(session_id), job, *args, **kwargs)

    async def _run(self, retry: Retry, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await insist(retry, lambda: self._workers.run(job, *args, **kwargs))

    async def _change(
        self, retry: Retry, job: Callable[P, Writing[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await insist(retry, lambda: self._committer.run(job, *args, **kwargs))
