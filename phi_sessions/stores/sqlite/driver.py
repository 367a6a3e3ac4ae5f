"""Python's own sqlite3, which some builds of Python lack."""

from __future__ import annotations

from ...dependency import requires

with requires("sqlite"):
    import sqlite3

__all__ = ["sqlite3"]
