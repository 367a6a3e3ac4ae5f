"""Sessions out of their rows. Everything here blocks, in a transaction that the caller began."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import Any, Final, NamedTuple, TypeVar

from ... import codec
from ...codec import Origin, StoredRecord
from ...errors import SessionCorruptError
from ...info import SessionInfo, card
from ...model import Revision
from ...timestamp import Timestamp
from ..base import Stored
from . import statements
from .damage import check_kinds, check_names, check_size, damaged
from .driver import sqlite3
from .failures import DRIVER_ERRORS, is_damage
from .statements import decoded, encoded, places

__all__ = ["Reader"]

T = TypeVar("T")

_MOST: Final = 2**63 - 1
"""Rows that SQLite can be asked for."""


class _Row(NamedTuple):
    number: int
    session_id: bytes
    agent_id: bytes
    revision: bytes
    saved_at: int
    records: int
    size: int
    head: bytes


_KINDS: Final = (int, bytes, bytes, bytes, int, int, int, bytes)


class Reader:
    """Reads the sessions of the database at `path`, none larger than `max_bytes`."""

    def __init__(self, path: str, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes

    def exists(self, connection: sqlite3.Connection, session_id: str) -> bool:
        """Return whether something is stored under the id, sound or damaged."""
        return connection.execute(statements.EXISTS, (session_id,)).fetchone() is not None

    def ids(self, connection: sqlite3.Connection) -> list[str]:
        """Return all ids, the most recently saved first."""
        rows = connection.execute(statements.IDS)
        return [decoded(session_id) for (session_id,) in rows]

    def begin(
        self,
        connection: sqlite3.Connection,
        agent_id: str | None,
        most: int | None,
        *,
        batch: int,
        read: Callable[[sqlite3.Connection, list[int]], T],
    ) -> tuple[list[int], T]:
        """Return the numbers of a listing's sessions, and what `read` gives for the first."""
        numbers = self.numbers(connection, agent_id, most)
        return numbers, read(connection, numbers[:batch])

    def numbers(
        self, connection: sqlite3.Connection, agent_id: str | None, limit: int | None
    ) -> list[int]:
        """Return sessions' numbers, the most recently saved first: all, or one agent's."""
        most = -1 if limit is None else min(limit, _MOST)
        if agent_id is None:
            rows = connection.execute(statements.NUMBERS, (most,))
        else:
            rows = connection.execute(statements.NUMBERS_OF_AGENT, (encoded(agent_id), most))
        return [number for (number,) in rows]

    def session(self, connection: sqlite3.Connection, session_id: str) -> Stored | None:
        """Return the session, checked to the last record, or None.

        Raises:
            SessionCorruptError: It is damaged.
        """
        try:
            row = connection.execute(statements.BY_ID, (session_id,)).fetchone()
            return None if row is None else self._stored(connection, _row(row))
        except (*DRIVER_ERRORS, SessionCorruptError) as error:
            raise self._damage(error, session_id) from error

    def sessions(
        self, connection: sqlite3.Connection, numbers: list[int], enough: int
    ) -> list[Stored | SessionCorruptError | None]:
        """Return sessions until they hold `enough` bytes, at least one: None for what is gone."""

        def read(loop_id: Any, text: Any, *session: Any) -> tuple[Stored, int]:
            row = _row(session)
            only_record = None if loop_id is None else (loop_id, text)
            return self._stored(connection, row, only_record), row.size

        return self._each(connection, statements.SESSIONS, numbers, read, enough)

    def cards(
        self, connection: sqlite3.Connection, numbers: list[int], enough: int
    ) -> list[SessionInfo | SessionCorruptError | None]:
        """Return cards until their heads hold `enough` bytes, else as `sessions`."""

        def read(*session: Any) -> tuple[SessionInfo, int]:
            row = _row(session)
            return self._card(row), len(row.head)

        return self._each(connection, statements.CARDS, numbers, read, enough)

    def _each(
        self,
        connection: sqlite3.Connection,
        statement: str,
        numbers: list[int],
        read: Callable[..., tuple[T, int]],
        enough: int,
    ) -> list[T | SessionCorruptError | None]:
        """Return what `read` makes of each session's row; it says how many bytes it has read."""
        found: list[T | SessionCorruptError | None] = []
        values = {"numbers": json.dumps(numbers), "max_bytes": self._max_bytes}
        try:
            with closing(connection.execute(statement, values)) as rows:
                for place, *row in rows:
                    found += [None] * (place - len(found))
                    try:
                        one, size = read(*row)
                        found.append(one)
                        enough -= size
                    except (*DRIVER_ERRORS, SessionCorruptError) as error:
                        found.append(self._damage(error))
                    if enough <= 0:
                        return found
        except DRIVER_ERRORS as error:
            if found:
                return found  # the next read begins with what failed
            if len(numbers) > 1:  # whose damage it is can be told of one that is read alone
                return self._each(connection, statement, numbers[:1], read, enough)
            return [self._damage(error)]
        return found + [None] * (len(numbers) - len(found))

    def _card(self, row: _Row) -> SessionInfo:
        try:
            header = codec.decode_card(row.head)
            check_names(header, row.session_id, row.agent_id)
        except SessionCorruptError as error:
            error.session_id = decoded(row.session_id)
            raise
        saved_at = Timestamp.from_nanoseconds(row.saved_at)
        return card(header, Revision(decoded(row.revision)), saved_at, row.size)

    def _stored(
        self,
        connection: sqlite3.Connection,
        row: _Row,
        only_record: tuple[Any, Any] | None = None,
    ) -> Stored:
        try:
            if row.size > self._max_bytes:
                raise damaged(f"{row.size:,} bytes, max_bytes is {self._max_bytes:,}")
            header = codec.decode_head(row.head)
            check_names(header, row.session_id, row.agent_id)
            if only_record is None:
                with closing(connection.execute(statements.RECORDS, places(row.number))) as found:
                    records = _records(row, found)
            else:
                records = _records(row, [only_record])
        except SessionCorruptError as error:
            error.session_id = decoded(row.session_id)
            raise
        return Stored(header, Origin(Revision(decoded(row.revision)), row.head, records))

    def _damage(self, error: Exception, session_id: str | None = None) -> SessionCorruptError:
        """Return the error of one session; what concerns more than that is raised."""
        if isinstance(error, SessionCorruptError):
            reason, session_id = error.reason, error.session_id or session_id
        elif is_damage(error):
            reason = str(error)
        else:
            raise error
        where = "a session" if session_id is None else f"session {session_id!r}"
        return SessionCorruptError(
            f"{self._path}: {where} is damaged: {reason}",
            session_id=session_id,
            path=self._path,
            reason=reason,
        )


def _row(row: Sequence[Any]) -> _Row:
    try:
        check_kinds(row, _KINDS)
    except SessionCorruptError as error:
        if isinstance(row[1], bytes):
            error.session_id = decoded(row[1])
        raise
    return _Row(*row)


def _records(row: _Row, found: Iterable[tuple[Any, Any]]) -> list[StoredRecord]:
    records: list[StoredRecord] = []
    size = len(row.head)
    for name, text in found:
        check_kinds((name, text), (bytes, bytes))
        loop_id = codec.check_record(text)
        if encoded(loop_id) != name:
            raise damaged(f"loop record {loop_id!r} is stored under another name")
        records.append(StoredRecord(loop_id, text))
        size += len(text)
    check_size((len(records), size), (row.records, row.size))
    return records
