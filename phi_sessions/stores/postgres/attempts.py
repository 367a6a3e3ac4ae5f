"""A change of one session: made, or not made for a reason, or found out about afterwards."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final, NamedTuple

from ...errors import SaveOutcomeUnknownError, SessionError
from ...model import Revision
from ...store import Expect, Expectation
from ..base import require
from ..patience import Patience
from .connections import hang_up
from .driver import (
    ERRORS,
    Connection,
    Row,
    in_transaction,
    is_contention,
    is_worth_a_retry,
    leaves_the_outcome_open,
    translate,
)
from .rows import as_bytes, as_revision
from .server import Server
from .statements import Statements

__all__ = ["Attempts", "Change"]

_ASKING: Final = 5.0
"""Seconds to ask for the outcome of a change whose answer was lost."""

_MAY_BE_LOST: Final[tuple[type[BaseException], ...]] = (*ERRORS, asyncio.CancelledError)
_NO_ANSWER: Final[tuple[type[Exception], ...]] = (*ERRORS, SessionError)
_LONGEST: Final = 1_000_000.0  # seconds; PostgreSQL counts milliseconds in 31 bits
_PAUSE: Final = 0.05
_RETRY: Final = 0.005


class Change(NamedTuple):
    """A statement of `Statements` that changes a session.

    Attributes:
        query: The statement.
        session_id: The session.
        expect: What must be stored.
        revision: The new state's; None for none, a deletion.
        known: A state that this change replaces, and that cannot come again, if there is one.
        makes: Whether it makes the session where there is none.
        args: What the statement takes besides, a new revision first.
    """

    query: str
    session_id: str
    expect: Expectation
    revision: Revision | None
    known: Revision | None
    makes: bool
    args: tuple[object, ...]


class _Lost(Exception):
    """The answer to a change did not come."""

    def __init__(self, backend: int, error: BaseException) -> None:
        super().__init__(str(error))
        self.backend = backend
        self.error = error


class Attempts:
    """Makes changes, trying again where that helps.

    Args:
        server: Where.
        statements: The statements for its tables.
        durable: Whether a commit waits for the disk though the server's setting says otherwise.
    """

    def __init__(self, server: Server, statements: Statements, *, durable: bool) -> None:
        self._server = server
        self._statements = statements
        self._durable = durable

    async def make(self, change: Change, patience: Patience) -> bool:
        """Make the change; False when there is no session, and it makes none.

        Raises:
            SessionConflictError: What is stored is not what was expected.
            SessionExistsError: The same, for `Expect.ABSENT`.
            SessionLockedError: Another held the session for too long.
            SessionIOError: It was not made.
            SaveOutcomeUnknownError: Made or not: that could not be found out.
            asyncio.CancelledError: It was not made.
        """
        lock_first = False
        while True:
            try:
                found, is_made = await self._try(change, patience, lock_first=lock_first)
            except _Lost as lost:
                return await self._ask(change, lost)
            except SessionError:
                raise
            except ERRORS as error:
                if not (is_worth_a_retry(error) or is_contention(error)):
                    raise translate(error, self._server.address, change.session_id) from error
                if patience.left <= 0:
                    raise patience.locked() from error
                await asyncio.sleep(random.uniform(0, _RETRY))  # noqa: S311 - not a secret
                continue
            if is_made:
                return True
            if found is None and not change.makes:
                return False
            require(change.expect, found, change.session_id)
            if patience.left <= 0:
                raise patience.locked()
            lock_first = True  # somebody was faster

    async def _try(
        self, change: Change, patience: Patience, *, lock_first: bool
    ) -> tuple[Revision | None, bool]:
        async with self._server.connection() as (connection, left):
            args = (
                as_bytes(change.session_id),
                None if isinstance(change.expect, Expect) else as_bytes(change.expect),
                # The server gives up first: what is not waited for may yet be carried out.
                _setting(min(patience.left, left / 2)),
                self._durable,
                *change.args,
            )
            backend = connection.get_server_pid()
            try:
                if not lock_first:
                    rows = await connection.fetch(change.query, *args, timeout=left)
                else:
                    rows = await self._hold_and_fetch(connection, change, args, left)
            except _MAY_BE_LOST as error:
                if isinstance(error, Exception) and not leaves_the_outcome_open(error):
                    raise
                await hang_up(connection)
                raise _Lost(backend, error) from error
        [[found, is_made]] = rows
        return as_revision(found), is_made

    async def _hold_and_fetch(
        self, connection: Connection, change: Change, args: tuple[object, ...], limit: float
    ) -> list[Row]:
        async with in_transaction(connection, limit):
            await connection.fetch(self._statements.lock, args[0], args[2], timeout=limit)
            return await connection.fetch(change.query, *args, timeout=limit)

    async def _ask(self, change: Change, lost: _Lost) -> bool:
        """Find out whether a change was made."""
        failure: SessionError | None = None
        try:
            found = await self._find_out(change, lost)
        except _NO_ANSWER as error:
            failure = self._unknown(change, lost, "what came of it cannot be told")
            failure.add_note(f"The server was asked again: {error}")
        else:
            if found == change.revision:
                return True
            if found is not None and found != change.known:
                after = f"{found} is stored, which may have come before or after it"
                failure = self._unknown(change, lost, after)
        if not isinstance(lost.error, Exception):
            raise lost.error  # a cancellation: the state is the old one, as far as can be told
        if failure is None:
            failure = translate(lost.error, self._server.address, change.session_id)
        raise failure from lost.error

    def _unknown(self, change: Change, lost: _Lost, why: str) -> SaveOutcomeUnknownError:
        reason = str(lost) or type(lost.error).__name__
        return SaveOutcomeUnknownError(
            f"{self._server.address}: the answer to a change of session {change.session_id!r} was"
            f" lost ({reason}); {why}",
            session_id=change.session_id,
            filename=self._server.address,
        )

    async def _find_out(self, change: Change, lost: _Lost) -> Revision | None:
        """Return the stored revision, once the lost change cannot be made any more."""
        deadline = time.monotonic() + _ASKING
        while True:
            left = deadline - time.monotonic()
            try:
                async with self._server.connection(left) as (connection, left):
                    return await self._look(connection, change.session_id, lost.backend, left)
            except SessionError:
                raise
            except ERRORS as error:
                # A server that was killed is back in a moment, perhaps.
                if not leaves_the_outcome_open(error) or deadline - time.monotonic() < _PAUSE:
                    raise
            await asyncio.sleep(_PAUSE)

    async def _look(
        self, connection: Connection, session_id: str, backend: int, left: float
    ) -> Revision | None:
        ended = await connection.fetch(self._statements.end, backend, timeout=left)
        if any(not gone for [gone] in ended):
            raise TimeoutError("the statement runs on")
        query, limit = self._statements.revision, f"{max(round(left * 1000), 1)}ms"
        rows = await connection.fetch(query, as_bytes(session_id), limit, timeout=left)
        return as_revision(rows[0][0]) if rows else None


def _setting(seconds: float) -> str:
    """Return a time for `lock_timeout`, where 0 would stand for ever."""
    return f"{round(min(max(seconds, 0.001), _LONGEST) * 1000)}ms"
