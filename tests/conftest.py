"""What all tests share: where counts come from, and stores to run against."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from phi_sessions import FileSystemSessionStore, MemorySessionStore, SessionStore

pytest_plugins = ("postgres_server", "redis_server", "s3_server")

SCALE = float(os.environ.get("PHI_SCALE", "1"))
"""Longer campaigns are the same tests with larger counts: PHI_SCALE=10 pytest."""


def scaled(count: int) -> int:
    """Return `count` times PHI_SCALE, at least 1."""
    return max(1, round(count * SCALE))


@pytest.fixture(params=["memory", "file"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SessionStore]:
    """Each store in turn, empty; closed afterwards."""
    made: SessionStore
    if request.param == "memory":
        made = MemorySessionStore()
    else:
        made = FileSystemSessionStore(tmp_path / "sessions")
    async with made:
        yield made


@pytest.fixture
async def file_store(tmp_path: Path) -> AsyncIterator[FileSystemSessionStore]:
    """A file store in an empty directory; closed afterwards."""
    async with FileSystemSessionStore(tmp_path / "sessions") as made:
        yield made
