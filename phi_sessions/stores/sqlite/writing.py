"""Sessions into their rows. Everything here blocks, in a transaction that the caller began."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final, NamedTuple

from ... import codec
from ...codec import Parcel, StoredRecord
from ...errors import SessionCorruptError, SessionEncodeError
from ...model import Revision
from ...store import Expect, Expectation
from ..base import new_revision, not_found, require
from . import statements
from .damage import check_kinds, check_names, check_size
from .driver import sqlite3
from .statements import decoded, encoded, places

__all__ = ["Writer"]


class _Found(NamedTuple):
    number: int
    revision: Revision
    records: int
    size: int


_KINDS: Final = (int, bytes, int, int)


class Writer:
    """Changes the sessions of the database at `path`, none larger than `max_bytes`."""

    def __init__(self, path: str, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes

    def save(self, connection: sqlite3.Connection, parcel: Parcel, expect: Expectation) -> Revision:
        """Store `parcel` whole and return the new revision.

        Raises:
            SessionError: As `SessionStore.save`.
        """
        found = _find(connection, parcel.session_id)
        require(expect, found and found.revision, parcel.session_id)
        size = len(parcel.head) + sum(len(record.text) for record in parcel.records)
        self._require_size(parcel.session_id, size)
        revision = new_revision()
        if found is None:
            _add(connection, parcel, revision, size)
            return revision
        if expect is Expect.UNCHANGED:
            self._require_sound(connection, found, parcel.session_id)
        # Who expects anything writes all: what is stored may be damaged where nothing changed.
        changes = None if expect is Expect.ANYTHING else _changes(parcel, found)
        head, records = changes or (parcel.head, None)
        if records is None:
            connection.execute(statements.REMOVE_RECORDS, places(found.number))
            _add_records(connection, found.number, 0, parcel.records)
        else:
            _put(connection, found, records)
        if head is not None:
            connection.execute(
                statements.REPLACE,
                (
                    encoded(parcel.agent_id),
                    head,
                    revision,
                    time.time_ns(),
                    len(parcel.records),
                    size,
                    found.number,
                ),
            )
        else:
            _change(connection, found.number, revision, len(parcel.records), size)
        return revision

    def append(
        self,
        connection: sqlite3.Connection,
        session_id: str,
        records: list[StoredRecord],
        expect: Expectation,
    ) -> Revision:
        """Add `records`, or put them in the place of those with their `loop_id`.

        Raises:
            SessionError: As `SessionStore.append`.
        """
        found = _find(connection, session_id)
        require(expect, found and found.revision, session_id)
        if found is None:
            raise not_found(session_id)
        added, grown = _put(connection, found, records)
        self._require_size(session_id, found.size + grown)
        revision = new_revision()
        _change(connection, found.number, revision, found.records + added, found.size + grown)
        return revision

    def delete(self, connection: sqlite3.Connection, session_id: str, expect: Expectation) -> bool:
        """Remove the session; False when there was none.

        Raises:
            SessionError: As `SessionStore.delete`.
        """
        found = _find(connection, session_id)
        if found is None:
            return False
        require(expect, found.revision, session_id)
        self._require_sound(connection, found, session_id)
        connection.execute(statements.REMOVE_RECORDS, places(found.number))
        connection.execute(statements.REMOVE, (found.number,))
        return True

    def _require_sound(
        self, connection: sqlite3.Connection, found: _Found, session_id: str
    ) -> None:
        """Make sure that what is about to be lost is no damaged session.

        The records are counted and measured, not decoded.

        Raises:
            SessionCorruptError: It is.
        """
        first, last = places(found.number)
        values = {"number": found.number, "first": first, "last": last}
        row = connection.execute(statements.LOOK_OVER, values).fetchone()
        try:
            check_kinds(row, (bytes, bytes, int, int))
            head, agent_id, records, size = row
            header = codec.decode_head(head)
            check_names(header, encoded(session_id), agent_id)
            check_size((records, len(head) + size), (found.records, found.size))
        except SessionCorruptError as error:
            error.session_id, error.path = session_id, self._path
            raise

    def _require_size(self, session_id: str, size: int) -> None:
        if size > self._max_bytes:
            raise SessionEncodeError(
                f"session {session_id!r} takes {size:,} bytes, max_bytes is {self._max_bytes:,}",
                session_id=session_id,
            )


def _find(connection: sqlite3.Connection, session_id: str) -> _Found | None:
    row = connection.execute(statements.FIND, (session_id,)).fetchone()
    if row is None:
        return None
    check_kinds(row, _KINDS)
    number, revision, records, size = row
    return _Found(number, Revision(decoded(revision)), records, size)


def _changes(parcel: Parcel, found: _Found) -> tuple[bytes | None, list[StoredRecord]] | None:
    """Return what `parcel` changes in what is stored, None if that is not told by its origin."""
    origin = parcel.origin
    if origin is None or (origin.revision, len(origin.records)) != (found.revision, found.records):
        return None
    return codec.changes(parcel)


def _add(connection: sqlite3.Connection, parcel: Parcel, revision: Revision, size: int) -> None:
    number = connection.execute(
        statements.ADD,
        (
            parcel.session_id,
            encoded(parcel.agent_id),
            revision,
            time.time_ns(),
            len(parcel.records),
            size,
            parcel.head,
        ),
    ).lastrowid
    assert number is not None
    _add_records(connection, number, 0, parcel.records)


def _add_records(
    connection: sqlite3.Connection, number: int, position: int, records: Iterable[StoredRecord]
) -> None:
    first, _ = places(number)
    connection.executemany(
        statements.ADD_RECORD,
        (
            (place, number, encoded(record.loop_id), record.text)
            for place, record in enumerate(records, first + position)
        ),
    )


def _put(
    connection: sqlite3.Connection, found: _Found, records: list[StoredRecord]
) -> tuple[int, int]:
    """Add or replace records; return how many were added, and by how many bytes all grew."""
    added: list[StoredRecord] = []
    grown = 0
    for record in records:
        name = encoded(record.loop_id)
        row = connection.execute(statements.FIND_RECORD, (found.number, name)).fetchone()
        if row is None:
            added.append(record)
        else:
            check_kinds(row, (int, int))
            place, size = row
            connection.execute(statements.CHANGE_RECORD, (record.text, place))
            grown -= size
        grown += len(record.text)
    if added:
        _add_records(connection, found.number, found.records, added)
    return len(added), grown


def _change(
    connection: sqlite3.Connection, number: int, revision: Revision, records: int, size: int
) -> None:
    connection.execute(statements.CHANGE, (revision, time.time_ns(), records, size, number))
