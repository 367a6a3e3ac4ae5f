"""All that is said to SQLite about sessions. Values are bound, never written into a statement."""

from __future__ import annotations

from typing import Final

__all__ = [
    "ADD",
    "ADD_RECORD",
    "BY_ID",
    "CARDS",
    "CHANGE",
    "CHANGE_RECORD",
    "EXISTS",
    "FIND",
    "FIND_RECORD",
    "IDS",
    "LOOK_OVER",
    "NUMBERS",
    "NUMBERS_OF_AGENT",
    "RECORDS",
    "REMOVE",
    "REMOVE_RECORDS",
    "REPLACE",
    "SESSIONS",
    "decoded",
    "encoded",
    "places",
]

_SESSION: Final = "number, session_id, agent_id, revision, saved_at, records, size, head"
_OF_ID: Final = "FROM sessions WHERE session_id = ?"
# In the order in which the numbers are asked for, each with its place there: a CROSS JOIN keeps the
# order. To be sorted, all of them would have to be read first.
_THESE: Final = "FROM json_each(:numbers) CROSS JOIN sessions ON number = value"
# A session of one record is read with it. Of one with more, each row would tell of the session as
# well, which costs more than another statement for its records.
_ONLY_RECORD: Final = (
    "LEFT JOIN records ON place = number << 32 AND sessions.records = 1 AND size <= :max_bytes"
)

# Looking

EXISTS: Final = "SELECT 1 FROM sessions WHERE session_id = ?"
IDS: Final = "SELECT session_id FROM sessions ORDER BY turn DESC"
NUMBERS: Final = "SELECT number FROM sessions ORDER BY turn DESC LIMIT ?"
NUMBERS_OF_AGENT: Final = (
    "SELECT number FROM sessions WHERE agent_id = CAST(? AS TEXT) ORDER BY turn DESC LIMIT ?"
)
BY_ID: Final = f"SELECT {_SESSION} {_OF_ID}"
RECORDS: Final = "SELECT loop_id, text FROM records WHERE place BETWEEN ? AND ? ORDER BY place"
CARDS: Final = f"SELECT key, {_SESSION} {_THESE}"
SESSIONS: Final = f"SELECT key, loop_id, text, {_SESSION} {_THESE} {_ONLY_RECORD}"

# Changing

FIND: Final = "SELECT number, revision, records, size FROM sessions WHERE session_id = ?"
LOOK_OVER: Final = (
    "SELECT head, agent_id, (SELECT count(*) FROM records WHERE place BETWEEN :first AND :last),"
    " (SELECT ifnull(sum(length(CAST(text AS BLOB))), 0) FROM records"
    " WHERE place BETWEEN :first AND :last) FROM sessions WHERE number = :number"
)
FIND_RECORD: Final = (
    "SELECT place, length(CAST(text AS BLOB)) FROM records"
    " WHERE session = ? AND loop_id = CAST(? AS TEXT) ORDER BY place DESC LIMIT 1"
)
ADD: Final = (
    "INSERT INTO sessions (session_id, agent_id, revision, saved_at, turn, records, size, head)"
    " VALUES (?, CAST(? AS TEXT), ?, ?, (SELECT ifnull(max(turn), 0) + 1 FROM sessions), ?, ?,"
    " CAST(? AS TEXT))"
)
CHANGE: Final = (
    "UPDATE sessions SET revision = ?, saved_at = ?,"
    " turn = (SELECT max(turn) + 1 FROM sessions), records = ?, size = ? WHERE number = ?"
)
REPLACE: Final = (
    "UPDATE sessions SET agent_id = CAST(? AS TEXT), head = CAST(? AS TEXT), revision = ?,"
    " saved_at = ?, turn = (SELECT max(turn) + 1 FROM sessions), records = ?, size = ?"
    " WHERE number = ?"
)
REMOVE: Final = "DELETE FROM sessions WHERE number = ?"
ADD_RECORD: Final = (
    "INSERT INTO records (place, session, loop_id, text)"
    " VALUES (?, ?, CAST(? AS TEXT), CAST(? AS TEXT))"
)
CHANGE_RECORD: Final = "UPDATE records SET text = CAST(? AS TEXT) WHERE place = ?"
REMOVE_RECORDS: Final = "DELETE FROM records WHERE place BETWEEN ? AND ?"


def encoded(name: str) -> bytes:
    """Return `name` as it is bound, even if it holds what UTF-8 has no place for."""
    return name.encode("utf-8", "surrogatepass")


def decoded(name: bytes) -> str:
    """Return an id or a revision, which are always UTF-8 unless they are damaged."""
    return name.decode("utf-8", "replace")


def places(number: int) -> tuple[int, int]:
    """Return the first and the last place that the session's records may have."""
    return number << 32, (number << 32) + 2**32 - 1
