"""The tables: their names, how they are made, and how they are brought up to date."""

from __future__ import annotations

import errno
from typing import Final

from ...errors import SessionIOError
from .driver import ERRORS, Connection, in_transaction, is_a_missing_table, translate

__all__ = ["Tables"]

_LONGEST_NAME: Final = 63
"""Bytes; PostgreSQL cuts off what is longer, and two names may become one."""

_TABLES: Final = ("version", "sessions", "saves", "records", "leases")
_INDEXES: Final = ("sessions_saved", "sessions_agent")

# One entry for each version. Those that were released are not changed: a new version is an
# entry more. A listing finds an agent by a hash, as an index takes no key of any length.
_STEPS: Final = (
    """
    CREATE TABLE {sessions} (
        session_id bytea PRIMARY KEY,
        agent_id bytea NOT NULL,
        revision bytea NOT NULL,
        head bytea NOT NULL,
        size bigint NOT NULL,
        next_position bigint NOT NULL,
        saved bigint NOT NULL,
        saved_at bigint NOT NULL
    );
    CREATE INDEX {sessions_saved} ON {sessions} (saved);
    CREATE INDEX {sessions_agent} ON {sessions} (sha256(agent_id), saved);
    CREATE SEQUENCE {saves};
    CREATE TABLE {records} (
        session_id bytea NOT NULL,
        loop_hash bigint NOT NULL,
        position bigint NOT NULL,
        loop_id bytea NOT NULL,
        text bytea NOT NULL,
        PRIMARY KEY (session_id, loop_hash, position)
    );
    CREATE UNLOGGED TABLE {leases} (
        session_id bytea PRIMARY KEY,
        pid integer NOT NULL,
        lease bytea NOT NULL
    );
    """,
)


class Tables:
    """The tables of one schema whose names begin with one prefix.

    Args:
        schema: Where they are; None for the first schema of the connection's `search_path`.
        prefix: What their names begin with.

    Attributes:
        names: Each table's, index's and sequence's name, quoted, by what it is.
    """

    def __init__(self, schema: str | None, prefix: str) -> None:
        kinds = (*_TABLES, *_INDEXES)
        for name in (schema or "", *(prefix + kind for kind in kinds)):
            if "\0" in name or len(name.encode()) > _LONGEST_NAME:
                raise ValueError(f"not a name that PostgreSQL keeps whole: {name!r}")
        self.schema = schema
        place = "" if schema is None else quoted(schema) + "."
        self.names = {kind: place + quoted(prefix + kind) for kind in kinds}
        # An index is made in its table's schema, and named without it.
        for kind in _INDEXES:
            self.names[kind] = quoted(prefix + kind)

    async def prepare(self, connection: Connection, limit: float, address: str) -> None:
        """Make sure that the tables are there and up to date; make them if need be.

        Where they are already, this takes no more than the right to read them. Any number of
        processes may do this at once: one makes them, the others wait for it.

        Raises:
            SessionIOError: A later version of this package made them.
            One of `ERRORS`.
        """
        try:
            version = await self._version(connection, limit)
        except ERRORS as error:
            if not is_a_missing_table(error):
                raise
            version = 0
        if version < len(_STEPS):
            try:
                version = await self._migrate(connection, limit)
            except ERRORS as error:
                failure = translate(error, address)
                failure.add_note("This was while making the tables, which are missing or outdated.")
                raise failure from error
        if version > len(_STEPS):
            raise SessionIOError(
                f"{address}: {self.names['sessions']} is of version {version}, made by a later"
                f" phi-sessions; this one knows versions up to {len(_STEPS)}",
                errno=errno.EPROTONOSUPPORT,
                filename=address,
            )

    async def _version(self, connection: Connection, limit: float) -> int:
        query = f"SELECT max(version) FROM {self.names['version']}"  # noqa: S608 - quoted names
        [[version]] = await connection.fetch(query, timeout=limit)
        return int(version or 0)

    async def _migrate(self, connection: Connection, limit: float) -> int:
        async with in_transaction(connection, limit):
            # Not two at a time: even CREATE ... IF NOT EXISTS fails in one of two at once.
            await connection.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended('phi_sessions', 0))", timeout=limit
            )
            if self.schema is not None:
                query = "SELECT to_regnamespace($1) IS NULL"
                [[missing]] = await connection.fetch(query, quoted(self.schema), timeout=limit)
                if missing:
                    await connection.execute(f"CREATE SCHEMA {quoted(self.schema)}", timeout=limit)
            await connection.execute(
                f"CREATE TABLE IF NOT EXISTS {self.names['version']} (version integer PRIMARY KEY)",
                timeout=limit,
            )
            version = await self._version(connection, limit)
            for number, step in enumerate(_STEPS[version:], version + 1):
                await connection.execute(step.format_map(self.names), timeout=limit)
                await connection.execute(
                    f"INSERT INTO {self.names['version']} VALUES ({number})",  # noqa: S608
                    timeout=limit,
                )
        return max(version, len(_STEPS))


def quoted(name: str) -> str:
    """Return an identifier as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'
