"""Group commit: changes that wait at one time share a transaction, and a trip to the disk.

Whoever puts a change sees to it that a hop to the thread that writes is on its way. When it comes
there, it takes all that waits into one transaction. So while one transaction is on its way to the
disk the next one gathers, and nobody has to be told to look after the others.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from copy import copy
from typing import Any, Final, TypeVar

from ...errors import SaveOutcomeUnknownError, SessionError, SessionIOError, SessionTaskError
from ..finishing import to_its_end
from ..forking import renew_in_child
from ..patience import Patience
from ..turnstile import Turnstile
from ..workers import Workers
from .database import Database
from .driver import sqlite3
from .failures import DRIVER_ERRORS, Contended, is_uncertain, translate
from .job import Job, State, wake
from .schema import LOG_BYTES

__all__ = ["Committer"]

_MOST: Final = 256
_ENOUGH: Final = 8 * 1024 * 1024
"""Changes, and bytes of them, after which a transaction takes no more in."""

_PAGES: Final = 6 * 4096
"""Bytes that a change adds to the log besides its own: a page of each tree that it touches."""

T = TypeVar("T")


class Committer:
    """Commits changes to one database, in the order in which they were put.

    Args:
        database: Where to.
        workers: One thread, the only one that writes there.
    """

    def __init__(self, database: Database, workers: Workers) -> None:
        self._database = database
        self._workers = workers
        self._turnstile = Turnstile()
        self._log_bytes: int | None = None
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """Forget what the parent process's callers wait for."""
        self._mutex = threading.Lock()
        self._waiting: deque[Job[Any]] = deque()
        self._is_coming = False  # a hop that has not begun, and will take all that waits along

    def put(self, job: Job[T]) -> Job[T]:
        """Have `job` made after all that were put before; its caller then attends to it."""
        with self._mutex:
            self._waiting.append(job)
        return job

    async def attend(self, job: Job[T], patience: Patience) -> T:
        """Return what came of `job`; a change that was made survives a power cut.

        When the call is cancelled, a job that has not begun is dropped and one that has begun is
        awaited to its end.

        Raises:
            SaveOutcomeUnknownError: The change may be found made after a crash.
            SessionLockedError: Another process has held the database for too long.
            SessionError: Nothing was changed.
        """
        try:
            await self._see_to(job, patience)
        except BaseException as error:
            if self._withdraw(job) and not isinstance(error, GeneratorExit):
                await to_its_end(self._until_over(job))
            is_settled = job.is_visible or job.error is not None
            if not is_settled or not isinstance(error, SessionError):
                raise
        return job.result()

    async def _see_to(self, job: Job[Any], patience: Patience) -> None:
        if await self._is_served(job):
            return
        # Of those who wait for the database one asks again and again, for all of them.
        async with self._turnstile.through("", patience):
            while not await self._is_served(job):  # noqa: ASYNC110 - other processes tell nobody
                await asyncio.sleep(patience.pause())

    async def _is_served(self, job: Job[Any]) -> bool:
        """Return True when `job` is over, False when another process holds the database."""
        with self._mutex:
            if job.state is State.OVER:
                return True
            called = job.called = asyncio.get_running_loop().create_future()
            must_send = job.state is State.WAITING and not self._is_coming
            self._is_coming = self._is_coming or must_send
        if must_send:
            self._send()
        error = await called
        if error is not None and not isinstance(error, Contended):
            raise error
        return error is None

    def _send(self) -> None:
        try:
            self._workers.submit(self._serve)
        except SessionTaskError as error:
            self._call_off(error)

    async def _until_over(self, job: Job[Any]) -> None:
        while not await self._is_served(job):
            pass

    def _withdraw(self, job: Job[Any]) -> bool:
        """Drop a job that waits; True when it is under way, and will not wait again."""
        with self._mutex:
            if job.state is State.WAITING:
                self._waiting.remove(job)
                job.state = State.DROPPED
            job.is_left = True
            return job.state is State.UNDER_WAY

    # In the thread that writes -------------------------------------------------------------------

    def _serve(self) -> None:
        """Make and commit what waits, and tell those who wait for it."""
        try:
            is_first = True
            while self._goes_on(is_first=is_first):
                self._serve_some()
                is_first = False
        except BaseException as error:  # noqa: BLE001 - the callers are told
            self._call_off(error)

    def _goes_on(self, *, is_first: bool) -> bool:
        """Whether this hop is the one that is coming for jobs that wait."""
        with self._mutex:
            if is_first or not self._is_coming:
                self._is_coming = bool(self._waiting)
                return self._is_coming
            return False

    def _serve_some(self) -> None:
        over: list[Job[Any]] = []
        try:
            with self._database.lend(to_write=True) as connection:
                self._begin(connection)
                jobs = self._claim()
                try:
                    self._commit(connection, jobs)
                finally:
                    over = self._let_go(jobs)
        finally:
            wake(over, None)

    def _begin(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        if self._log_bytes is None:
            self._log_bytes = self._database.log_size()
        if self._log_bytes > LOG_BYTES:
            self._database.take_log_in()
            self._log_bytes = 0
            # The log begins anew with a transaction that finds all of it taken in.
            connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")

    def _claim(self) -> list[Job[Any]]:
        """Return the jobs of one transaction; those that are put from now on need another hop."""
        jobs: list[Job[Any]] = []
        size = 0
        with self._mutex:
            self._is_coming = False
            while self._waiting and len(jobs) < _MOST and size < _ENOUGH:
                if jobs and (jobs[0].is_alone or self._waiting[0].is_alone):
                    break
                job = self._waiting.popleft()
                job.state = State.UNDER_WAY
                jobs.append(job)
                size += job.size
        return jobs

    def _commit(self, connection: sqlite3.Connection, jobs: list[Job[Any]]) -> None:
        """Make the changes and commit them; without either, a job is to be tried again."""
        for job in jobs:
            if not self._make(connection, job):
                return  # which gives up what was made for the others, too
        try:
            connection.execute("COMMIT")
        except DRIVER_ERRORS as error:
            self._database.distrust()
            self._blame(error, jobs)
            return
        made = [job for job in jobs if job.error is None]
        for job in made:
            job.is_visible = True
        for job in made:
            job.on_visible(job.value)
        assert self._log_bytes is not None
        self._log_bytes += sum(job.size + _PAGES for job in made)

    def _make(self, connection: sqlite3.Connection, job: Job[Any]) -> bool:
        """Make one change; False when it failed and may have left something behind.

        There is no savepoint for each, which would make all of them dearer by a sixth: those that
        are refused (a conflict, nothing there) are so before they change anything, and what fails
        later is rare.
        """
        before = connection.total_changes
        try:
            job.value = job.make(connection)
        except DRIVER_ERRORS as error:
            job.error = translate(error, self._database.path, job.session_id)
            return False
        except BaseException as error:  # noqa: BLE001 - the caller is told
            job.error = error
            return connection.total_changes == before
        return True

    def _blame(self, error: Exception, jobs: list[Job[Any]]) -> None:
        """Tell those whose commit failed, or have their jobs tried again one by one."""
        kind = SaveOutcomeUnknownError if is_uncertain(error) else SessionIOError
        for job in jobs:
            if job.error is None and (kind is SaveOutcomeUnknownError or len(jobs) == 1):
                job.error = translate(error, self._database.path, job.session_id, kind=kind)

    def _let_go(self, jobs: list[Job[Any]]) -> list[Job[Any]]:
        """Return the jobs that are over.

        Those that failed through no fault of theirs wait for one more try, alone.
        """
        over: list[Job[Any]] = []
        with self._mutex:
            for job in reversed(jobs):
                if job.is_visible or job.error is not None or job.is_left:
                    job.state = State.OVER
                    over.append(job)
                else:
                    job.state = State.WAITING
                    job.is_alone = True
                    self._waiting.appendleft(job)
        return over[::-1]

    def _call_off(self, error: BaseException) -> None:
        """Tell all who wait that no hop is coming, and why."""
        with self._mutex:
            self._is_coming = False
            waiting = list(self._waiting)
        for job in waiting:
            reason = copy(error) if isinstance(error, SessionError) else error
            if isinstance(reason, SessionError):
                reason.session_id, reason.__cause__ = job.session_id, error
            wake([job], reason)
