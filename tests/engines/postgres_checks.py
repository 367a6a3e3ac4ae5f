"""What the tests of the PostgreSQL store build, and what they look at from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from postgres_server import run_sql

from phi_sessions import LoopRecord, Session
from phi_sessions.stores.postgres import PostgresSessionStore

T = TypeVar("T")


def version(n: int, session_id: str = "s-1", *, size: int = 1, agent_id: str = "a") -> Session:
    """Return a session whose every part says `n`, with `size` loops of about a kilobyte."""
    loops = [record(k, session_id, n=n, agent_id=agent_id) for k in range(size)]
    return Session(session_id, agent_id, metadata={"n": n}, loops=loops)


def record(k: int, session_id: str = "s-1", *, n: int = 0, agent_id: str = "a") -> LoopRecord:
    """Return a loop record of about a kilobyte."""
    text = {"n": n, "fill": "x" * 900}
    return LoopRecord(f"{session_id}.{k}", session_id, agent_id, metadata=text)


def number(session: Session) -> int:
    """Return the `n` of a session after making sure that it is all of one piece."""
    n = session.metadata["n"]
    assert all(record.metadata["n"] == n for record in session.loops)
    return int(n)


@asynccontextmanager
async def held_row(url: str, session_id: str = "s-1") -> AsyncIterator[Any]:
    """Hold a session's row as another program would that changes it; give the connection."""
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute(
                "SELECT FROM phi_sessions WHERE session_id = $1 FOR UPDATE", session_id.encode()
            )
            yield connection
    finally:
        await connection.close()


async def busy(url: str) -> list[str]:
    """Return what the server does for others in this database just now."""
    rows = await run_sql(
        url,
        "SELECT state || ': ' || query FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND state <> 'idle' AND backend_type = 'client backend'",
    )
    return [text for (text,) in rows]


async def assert_quiet(url: str, store: PostgresSessionStore) -> None:
    """Nothing of any call runs any more, and every connection is back where it belongs."""
    assert await busy(url) == []
    for client in store._server._opened:
        pool: Any = client.connections
        assert pool._free._value == pool._size
        assert not any(connection.is_in_transaction() for connection, _ in pool._idle)
    assert store._turnstile._queues == {}
    assert store._leasing._line._queues == {}
