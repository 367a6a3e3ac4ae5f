"""A real S3 server for the tests: started when a test asks for it, on loopback."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from benchmarks.servers.s3 import S3Server
    from phi_sessions.stores.object import ObjectSessionStore

_ROOT = str(Path(__file__).resolve().parents[1])
if _ROOT not in sys.path:
    sys.path.append(_ROOT)  # the server's starter is the benchmarks' as well

BUCKET = "sessions"

_numbers = count()


@pytest.fixture(scope="session")
def _running_s3() -> Iterator[S3Server]:
    from benchmarks.servers.s3 import S3Server, S3UnavailableError

    try:
        server = S3Server()
    except S3UnavailableError as reason:
        pytest.skip(f"no S3 server: {reason}")
    try:
        server.start()
        server.make_bucket(BUCKET)
        s3_client(server).put("first", b"makes the bucket's volume, which takes a moment")
        yield server
    finally:
        server.close()


@pytest.fixture
def s3_server(_running_s3: S3Server) -> S3Server:
    """A running server with a bucket; tests may kill it."""
    if not _running_s3.is_running:
        _running_s3.start()
    return _running_s3


@pytest.fixture
def s3_prefix() -> str:
    """A prefix below which nothing is."""
    return f"test-{next(_numbers)}/of them"


@pytest.fixture
def s3_url(s3_server: S3Server, s3_prefix: str) -> str:
    """The URL of an empty place, with all that it takes to write there."""
    return s3_server.url(BUCKET, s3_prefix)


@pytest.fixture
async def s3_store(s3_url: str) -> AsyncIterator[ObjectSessionStore]:
    """A store of an empty place; closed afterwards."""
    from phi_sessions.stores.object import open_url

    async with open_url(s3_url) as made:
        yield made


def s3_client(server: S3Server, **options: Any) -> Any:
    """Return obstore's own client for the bucket."""
    from obstore.store import S3Store

    return S3Store(BUCKET, config=server.config(), client_options={"allow_http": True}, **options)  # type: ignore[arg-type]
