"""Sessions in one SQLite file."""

from .store import SQLiteSessionStore, open_url

__all__ = ["SQLiteSessionStore", "open_url"]
