"""The tables, how a file gets them, and how each connection is set up."""

from __future__ import annotations

from typing import Final

from ...errors import SessionIOError
from .driver import sqlite3

__all__ = ["APPLICATION_ID", "LOG_BYTES", "MIGRATIONS", "Absent", "set_up"]

APPLICATION_ID: Final = 0x50484953
"""`PHIS`, in the file's header: that it is a database of this package."""

LOG_BYTES: Final = 4 * 1024 * 1024
"""How far the write-ahead log should grow before it is taken into the database."""

# Texts are bound as bytes and cast: they are bytes here, an agent's name may hold what no text
# can be encoded to, and people and their tools find text where they look for it.
#
# `place` is the session's number times 2**32 plus the record's position: the records of a session
# lie side by side, in order, with one tree fewer to write to. A session may hold two records of
# one name, so that no index can be unique there.
_FIRST: Final = (
    """CREATE TABLE sessions (
        number INTEGER PRIMARY KEY,
        session_id TEXT NOT NULL UNIQUE,
        agent_id TEXT NOT NULL,
        revision TEXT NOT NULL,
        saved_at INTEGER NOT NULL, -- nanoseconds since 1970
        turn INTEGER NOT NULL, -- the most recently saved has the highest
        records INTEGER NOT NULL,
        size INTEGER NOT NULL, -- bytes of the head and the records
        head TEXT NOT NULL
    )""",
    "CREATE UNIQUE INDEX sessions_by_turn ON sessions (turn)",
    "CREATE INDEX sessions_by_agent ON sessions (agent_id, turn)",
    """CREATE TABLE records (
        place INTEGER PRIMARY KEY,
        session INTEGER NOT NULL, -- its number
        loop_id TEXT NOT NULL,
        text TEXT NOT NULL
    )""",
    "CREATE INDEX records_by_loop ON records (session, loop_id)",
)

MIGRATIONS: list[tuple[str, ...]] = [_FIRST]
"""What takes a file from each version of the schema to the next, beginning with an empty one."""

_SETTINGS: Final = (
    # In the log, and there with each commit: less than FULL loses the last commits in a power cut.
    "PRAGMA synchronous=FULL",
    # On macOS, through the drive's own cache.
    "PRAGMA fullfsync=ON",
    "PRAGMA checkpoint_fullfsync=ON",
    # See `Database.take_log_in`.
    "PRAGMA wal_autocheckpoint=0",
    f"PRAGMA journal_size_limit={LOG_BYTES}",
    "PRAGMA temp_store=MEMORY",
    # A file from elsewhere runs no code, and its damage is noticed where it is met.
    "PRAGMA trusted_schema=OFF",
    "PRAGMA cell_size_check=ON",
)


class Absent(Exception):
    """There is no database yet."""


def set_up(connection: sqlite3.Connection, path: str, *, to_write: bool) -> None:
    """Make a new connection durable, and bring the file's schema up to date.

    Raises:
        Absent: The file is empty, and the connection is not to write.
        SessionIOError: It is another program's database, or a later version's.
    """
    connection.execute("BEGIN")  # all of one state: another process may be making the tables
    version = _version(connection, path)
    connection.execute("COMMIT")
    if version == 0 and not to_write:
        raise Absent
    [mode] = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != b"wal":
        raise SessionIOError(f"{path}: has no write-ahead log, but {mode.decode()}", filename=path)
    for setting in _SETTINGS:
        connection.execute(setting).fetchall()
    if version < len(MIGRATIONS):
        _migrate(connection, path)


def _version(connection: sqlite3.Connection, path: str) -> int:
    [application] = connection.execute("PRAGMA application_id").fetchone()
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if application == version == 0:
        [tables] = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables == 0:
            return 0
    if application != APPLICATION_ID:
        raise SessionIOError(f"{path}: is another program's database", filename=path)
    if version > len(MIGRATIONS):
        raise SessionIOError(
            f"{path}: was written by a later version of phi_sessions (schema {version}, this one"
            f" knows {len(MIGRATIONS)})",
            filename=path,
        )
    return int(version)


def _migrate(connection: sqlite3.Connection, path: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    # Only now, as another process may have been faster.
    for statements in MIGRATIONS[_version(connection, path) :]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
    connection.execute("COMMIT")
