"""The rival of appends: rows in SQLite by aiosqlite, as durable as the store's files.

`committed`: as aiosqlite's own documentation does it, an `execute` and a `commit`, under a lock so
that tasks which share the connection do not commit each other's halves; the key of the table is
session and loop, so that a row can be put in the place of another as `append` does with records.
`autocommit`: one `execute` which commits by itself, into a table without a key: the least that a
durable row can cost.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

__all__ = ["Add", "open_autocommit", "open_committed", "versions"]

Add = Callable[[str, str, bytes], Awaitable[None]]
"""Insert one row, durably: the session, the loop, the text."""

_DURABLE = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL")


@asynccontextmanager
async def open_committed(directory: str) -> AsyncIterator[Add]:
    """Open a new database in `directory`, with a table that has a key."""
    import aiosqlite

    lock = asyncio.Lock()
    async with aiosqlite.connect(os.path.join(directory, "committed.sqlite")) as connection:

        async def add(session_id: str, loop_id: str, text: bytes) -> None:
            async with lock:
                await connection.execute(
                    "INSERT OR REPLACE INTO loops VALUES (?, ?, ?)", (session_id, loop_id, text)
                )
                await connection.commit()

        for pragma in _DURABLE:
            await connection.execute(pragma)
        await connection.execute(
            "CREATE TABLE loops (session_id TEXT, loop_id TEXT, text BLOB,"
            " PRIMARY KEY (session_id, loop_id))"
        )
        await connection.commit()
        yield add


@asynccontextmanager
async def open_autocommit(directory: str) -> AsyncIterator[Add]:
    """Open a new database in `directory`, in autocommit, with a table that has no key."""
    import aiosqlite

    path = os.path.join(directory, "autocommit.sqlite")
    async with aiosqlite.connect(path, isolation_level=None) as connection:

        async def add(session_id: str, loop_id: str, text: bytes) -> None:
            await connection.execute(
                "INSERT INTO loops VALUES (?, ?, ?)", (session_id, loop_id, text)
            )

        for pragma in _DURABLE:
            await connection.execute(pragma)
        await connection.execute("CREATE TABLE loops (session_id TEXT, loop_id TEXT, text BLOB)")
        yield add


def versions() -> str:
    """Return which rival it is."""
    return f"aiosqlite {version('aiosqlite')}, SQLite {sqlite3.sqlite_version}"
