"""Every engine's store keeps every promise that it makes: the whole kit, on the real engine."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from phi_sessions import Promise, open_store
from phi_sessions.testing import Scale, check_store

SCALE = Scale()

# A collection of all that other tests left would be taken for a store that holds up the loop.
pytestmark = pytest.mark.usefixtures("frozen_heap")


async def keeps_every_promise(url: str, **options: Any) -> frozenset[Promise]:
    """Make all checks; return what the store lacks."""
    open_it = partial(open_store, url, **options)
    report = await check_store(open_it, scale=SCALE)
    assert report.ok, str(report)
    assert report.skipped == []
    async with open_it() as store:
        return store.lacks


async def test_sqlite_keeps_every_promise(tmp_path: Path) -> None:
    assert await keeps_every_promise(f"sqlite:///{tmp_path / 's.db'}") == {Promise.HOSTS}


async def test_postgres_keeps_every_promise(postgres_url: str) -> None:
    assert await keeps_every_promise(postgres_url) == set()


async def test_redis_keeps_every_promise(shared_redis: Any) -> None:
    # Its leases expire: waiting for half a minute is no better than for a second.
    lacks = await keeps_every_promise(shared_redis.url, prefix="kit", lease_expiry=2.0)
    assert lacks == {Promise.POWER_LOSS}


async def test_object_storage_keeps_every_promise(s3_url: str) -> None:
    assert await keeps_every_promise(s3_url, lease_expiry=3.0) == set()
