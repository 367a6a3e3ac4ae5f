"""Every store keeps every promise that it makes: the whole kit, on real engines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from phi_sessions import Promise, open_store
from phi_sessions.testing import Scale, check_store

SCALE = Scale()

# A collection of all that other tests left would be taken for a store that holds up the loop.
pytestmark = pytest.mark.usefixtures("frozen_heap")

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """What runs a coroutine: web servers bring an event loop of their own."""
    return asyncio.run if request.param == "asyncio" else pytest.importorskip("uvloop").run


async def keeps_every_promise(url: str, **options: Any) -> frozenset[Promise]:
    """Make all checks; return what the store lacks."""
    open_it = partial(open_store, url, **options)
    report = await check_store(open_it, scale=SCALE)
    assert report.ok, str(report)
    assert report.skipped == []
    async with open_it() as store:
        return store.lacks


def test_the_file_store_keeps_every_promise(run: Run, tmp_path: Path) -> None:
    assert run(keeps_every_promise(f"file://{tmp_path / 'sessions'}")) == {Promise.HOSTS}


def test_sqlite_keeps_every_promise(run: Run, tmp_path: Path) -> None:
    assert run(keeps_every_promise(f"sqlite:///{tmp_path / 's.db'}")) == {Promise.HOSTS}


def test_postgres_keeps_every_promise(run: Run, postgres_url: str) -> None:
    assert run(keeps_every_promise(postgres_url)) == set()


def test_redis_keeps_every_promise(run: Run, shared_redis: Any) -> None:
    # Its leases expire: waiting for half a minute is no better than for a second.
    lacks = run(keeps_every_promise(shared_redis.url, prefix="kit", lease_expiry=2.0))
    assert lacks == {Promise.POWER_LOSS}


def test_object_storage_keeps_every_promise(run: Run, s3_url: str) -> None:
    assert run(keeps_every_promise(s3_url, lease_expiry=3.0)) == set()
