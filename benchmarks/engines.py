"""Each engine's store against its bare driver, which does the same in the same run.

The servers are started on loopback for it; one that cannot be started here is left out.
"""

from __future__ import annotations

from . import engines_object, engines_postgres, engines_redis, engines_sqlite
from .report import Figure
from .servers.postgres import PostgresUnavailableError
from .servers.s3 import S3UnavailableError

__all__ = ["measure"]

_ENGINES = {
    "SQLite": engines_sqlite.measure,
    "PostgreSQL": engines_postgres.measure,
    "Redis": engines_redis.measure,
    "S3": engines_object.measure,
}


async def measure(directory: str, *, quick: bool) -> tuple[list[Figure], list[str]]:
    figures: list[Figure] = []
    notes: list[str] = []
    for name, measure_engine in _ENGINES.items():
        try:
            of_engine, noted = await measure_engine(directory, quick=quick)
        except (PostgresUnavailableError, S3UnavailableError) as reason:
            notes.append(f"{name} is left out: {reason}")
            continue
        for figure in of_engine:
            figure.name = f"{name}: {figure.name}"
        figures += of_engine
        notes += [f"{name}: {note}" for note in noted]
    return figures, notes
