"""asyncpg: what this store uses of it, and what its errors mean."""

from __future__ import annotations

import errno
import re
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from ...dependency import requires
from ...errors import SessionIOError, SessionLockedError

with requires("postgres"):
    import asyncpg  # type: ignore[import-untyped]
    from asyncpg.pgproto.pgproto import (  # type: ignore[import-untyped]
        BufferError,  # noqa: A004 - not the one of Python's
    )

__all__ = [
    "ERRORS",
    "Connection",
    "Pool",
    "Row",
    "address_of",
    "connect",
    "in_transaction",
    "is_a_lost_connection",
    "is_a_missing_table",
    "is_broken",
    "is_contention",
    "is_worth_a_retry",
    "leaves_the_outcome_open",
    "translate",
]

ERRORS: Final[tuple[type[Exception], ...]] = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    BufferError,
    OSError,
)
"""All that asyncpg raises of its own, a timeout among it. `SessionIOError` is an `OSError` as well:
where both may come, it is let through first."""

Row = Sequence[Any]

_NO_PORT: Final = re.compile(r":(?!\d+(?:,|$))[^\]]*$")
"""What is behind a host's name and no port, as the beginning of a password that has a ? in it."""


class Connection(Protocol):
    """What is used of `asyncpg.Connection`, whose annotations tell a type checker too little."""

    async def execute(self, query: str, *, timeout: float) -> str: ...  # noqa: ASYNC109
    async def fetch(self, query: str, *args: object, timeout: float | None = None) -> list[Row]: ...  # noqa: ASYNC109
    def get_server_pid(self) -> int: ...
    def is_closed(self) -> bool: ...
    def is_in_transaction(self) -> bool: ...
    def terminate(self) -> None: ...
    async def close(self, *, timeout: float) -> None: ...  # noqa: ASYNC109


class Pool(Protocol):
    """What is used of `asyncpg.Pool`."""

    def acquire(self) -> Awaitable[Connection]: ...
    async def release(self, connection: Connection, *, timeout: float) -> None: ...  # noqa: ASYNC109


async def connect(dsn: str, *, statement_cache_size: int, **settings: str) -> Connection:
    """Return a new connection; whoever asks sets the time limit.

    Raises:
        One of `ERRORS`.
    """
    if "application_name=" not in dsn:
        settings["application_name"] = "phi_sessions"
    try:
        untyped: Any = asyncpg
        made: Connection = await untyped.connect(
            dsn,
            timeout=None,
            statement_cache_size=statement_cache_size,
            max_cached_statement_lifetime=0,
            server_settings=settings,
        )
    except ValueError as error:
        if isinstance(error, ERRORS):
            raise
        raise OSError(errno.EINVAL, f"the DSN cannot be understood: {error}") from error
    return made


@asynccontextmanager
async def in_transaction(connection: Connection, limit: float) -> AsyncGenerator[None]:
    """Begin a transaction, and commit it, or roll it back after an error."""
    # Each statement sees what was committed before it, whatever the role's default is.
    await connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED", timeout=limit)
    try:
        yield
        await connection.execute("COMMIT", timeout=limit)
    except asyncpg.PostgresError:
        if not is_broken(connection):
            await connection.execute("ROLLBACK", timeout=limit)
        raise


def is_broken(connection: Connection) -> bool:
    """Whether a connection can be used no more."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # a pool took it back when it broke
        return True


def address_of(dsn: str) -> str:
    """Return where the server is, with no name, password or option in it.

    Raises:
        ValueError: What is name and password, and what is not, cannot be told apart.
    """
    with suppress(ValueError):  # which may quote a part of the password
        parts = urlsplit(dsn)
        hosts = parts.netloc.rpartition("@")[2]
        fields = parts.query.split("&") if "@" in parts.query else []
        is_cut = bool(fields) and _NO_PORT.search(hosts) is not None
        is_cut = is_cut or "@" in parts.path + parts.fragment
        if parts.scheme and not is_cut and all("=" in each for each in fields):
            return f"postgresql://{hosts}{parts.path}"
    raise ValueError("not the URL of a PostgreSQL server, or a part of it is not percent-encoded")


# What errors mean --------------------------------------------------------------------------------

_CONTENDED: Final = "55P03"
_MISSING_TABLE: Final = "42P01"
_RETRIED: Final = ("40001", "40P01")  # could not serialize; deadlock
_OPEN: Final = ("08", "57P", "40003")
_NUMBERS: Final = {
    "08001": errno.ECONNREFUSED,
    "08004": errno.ECONNREFUSED,
    "08": errno.ECONNRESET,
    "25006": errno.EROFS,
    "28": errno.EACCES,
    "3D": errno.ENOENT,
    "3F": errno.ENOENT,
    "42501": errno.EACCES,
    "42P01": errno.ENOENT,
    "53100": errno.ENOSPC,
    "53200": errno.ENOMEM,
    "53300": errno.EAGAIN,
    "57014": errno.ETIMEDOUT,
    "57P03": errno.ECONNREFUSED,
    "57P": errno.ECONNRESET,
}
"""Error numbers of SQLSTATEs and their classes; of several that fit, the longest counts."""

_NUMBER_IN_WORDS: Final = re.compile(r"\[Errno (\d+)\]")


def translate(
    error: Exception, address: str, session_id: str | None = None
) -> SessionIOError | SessionLockedError:
    """Return the error of this package's that says what one of `ERRORS` says."""
    state = _state(error)
    if is_contention(error):
        return SessionLockedError(
            f"session {session_id!r} is held by another writer", session_id=session_id
        )
    number = _number_of_state(state) if state else _number(error)
    message = str(error).partition("\n")[0]
    if isinstance(error, TimeoutError):
        message = message or "the server did not answer in time"
    elif state == _MISSING_TABLE:
        message += "; the tables were made by another store, or were dropped meanwhile"
    elif state in ("26000", "42P05"):
        message += "; behind a transaction-pooling proxy the store needs statement_cache_size=0"
    return SessionIOError(
        f"{address}: {message or type(error).__name__}",
        session_id=session_id,
        errno=number,
        filename=address,
    )


def is_contention(error: Exception) -> bool:
    """Whether another held the session for as long as the statement was to wait."""
    return _state(error) == _CONTENDED


def is_worth_a_retry(error: Exception) -> bool:
    """Whether the server undid the statement and asks for it once more."""
    return _state(error) in _RETRIED or isinstance(error, asyncpg.InvalidCachedStatementError)


def is_a_missing_table(error: Exception) -> bool:
    """Whether a table was asked for that is not there."""
    return _state(error) == _MISSING_TABLE


def is_a_lost_connection(error: Exception) -> bool:
    """Whether the connection broke, for no fault of the statement."""
    return leaves_the_outcome_open(error) and not isinstance(error, TimeoutError)


def leaves_the_outcome_open(error: Exception) -> bool:
    """Whether a statement that ended so may have been carried out all the same.

    A server that takes its leave may have committed just before; any other answer of its is a
    refusal.
    """
    state = _state(error)
    return state is None or state.startswith(_OPEN)


def _state(error: Exception) -> str | None:
    return getattr(error, "sqlstate", None) if isinstance(error, asyncpg.PostgresError) else None


def _number_of_state(state: str) -> int | None:
    for length in (5, 3, 2):
        if state[:length] in _NUMBERS:
            return _NUMBERS[state[:length]]
    return None


def _number(error: Exception) -> int | None:
    if isinstance(error, TimeoutError):
        return error.errno or errno.ETIMEDOUT
    if isinstance(error, OSError) and error.errno is None:
        # Where a host has several addresses asyncio tells of all failures in one text.
        words = _NUMBER_IN_WORDS.search(str(error))
        return int(words[1]) if words else None
    return error.errno if isinstance(error, OSError) else None
