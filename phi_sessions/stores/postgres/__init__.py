"""Sessions in PostgreSQL 14 or later, by asyncpg."""

from .store import PostgresSessionStore, open_url

__all__ = ["PostgresSessionStore", "open_url"]
