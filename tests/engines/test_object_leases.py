"""Leases in a bucket: renewed while the holder lives, and lost if it cannot renew them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from object_proxy import Act, Proxy, proxy_to
from s3_server import BUCKET, s3_client

from phi_sessions import SessionIOError, SessionLockedError
from phi_sessions.stores.object import ObjectSessionStore, open_url

if TYPE_CHECKING:
    from benchmarks.servers.s3 import S3Server


@pytest.fixture
async def proxy(s3_server: S3Server) -> AsyncIterator[Proxy]:
    async with proxy_to(s3_server.port) as running:
        yield running


@pytest.fixture
async def far(s3_server: S3Server, s3_prefix: str, proxy: Proxy) -> AsyncIterator[Any]:
    """A store of the same place as `s3_store`, behind the proxy, whose leases are short."""
    url = s3_server.url(BUCKET, s3_prefix, endpoint=proxy.endpoint)
    async with open_url(url, timeout=0.3, lease_expiry=1.0) as store:
        yield store


async def is_held(store: ObjectSessionStore) -> bool:
    try:
        async with store.lease("s-1"):
            return False
    except SessionLockedError:
        return True


async def test_a_lease_is_renewed_as_long_as_it_is_held(
    far: ObjectSessionStore, s3_store: ObjectSessionStore
) -> None:
    async with far.lease("s-1"):
        begun = time.monotonic()
        while time.monotonic() - begun < 3:
            assert await is_held(s3_store)
            await asyncio.sleep(0.1)
    assert not await is_held(s3_store)


async def test_a_holder_that_could_not_renew_its_lease_is_told(
    far: ObjectSessionStore, s3_store: ObjectSessionStore, proxy: Proxy
) -> None:
    with pytest.raises(SessionLockedError, match="lost") as caught:
        async with far.lease("s-1"):
            proxy.rule = lambda method, path: Act.LOSE_REQUEST
            async with s3_store.lease("s-1", owner="the next", timeout=20):
                proxy.rule = lambda method, path: Act.PASS
                await asyncio.sleep(0.7)  # its next renewal is refused
                assert await is_held(far)
            assert caught is not None
    assert caught.value.session_id == "s-1"
    assert not await is_held(far)


async def test_what_the_holder_raised_is_what_is_heard(
    far: ObjectSessionStore, proxy: Proxy
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with far.lease("s-1"):
            proxy.rule = lambda method, path: Act.LOSE_REQUEST
            _ = 1 / 0


async def test_a_lease_that_cannot_be_given_back_in_time_ends_by_itself(
    far: ObjectSessionStore, s3_store: ObjectSessionStore, proxy: Proxy
) -> None:
    async with far.lease("s-1"):
        proxy.rule = lambda method, path: Act.LOSE_REQUEST
    proxy.rule = lambda method, path: Act.PASS
    async with s3_store.lease("s-1", timeout=20):
        pass


async def test_a_holder_that_cannot_find_out_whether_it_lost_its_lease_is_told(
    far: ObjectSessionStore, proxy: Proxy
) -> None:
    with pytest.raises(SessionIOError):
        async with far.lease("s-1"):
            proxy.rule = lambda method, path: Act.LOSE_REQUEST
            await asyncio.sleep(1.2)


@pytest.mark.parametrize("act", [Act.LOSE_ANSWER, Act.LOSE_REQUEST, Act.FAIL, Act.TURN_DOWN])
async def test_a_lost_answer_is_no_lost_lease(
    far: ObjectSessionStore, s3_store: ObjectSessionStore, proxy: Proxy, act: Act
) -> None:
    proxy.only(act, "PUT", "/lease/")
    async with far.lease("s-1"):
        assert await is_held(s3_store)
        proxy.only(act, "PUT", "/lease/")
        await asyncio.sleep(0.5)  # renewed meanwhile
        assert await is_held(s3_store)
        proxy.only(act, "PUT", "/lease/")
    assert not await is_held(s3_store)


async def test_a_renewal_whose_outcome_is_unknown_is_looked_after(
    far: ObjectSessionStore, s3_store: ObjectSessionStore, proxy: Proxy
) -> None:
    far._lease_expiry = 2.0
    async with far.lease("s-1"):
        proxy.rule = lambda method, path: Act.LOSE_ANSWER if "/lease/" in path else Act.PASS
        await asyncio.sleep(1.2)  # a renewal was made, and nobody was told
        proxy.rule = lambda method, path: Act.PASS
        assert await is_held(s3_store)
    assert not await is_held(s3_store)


async def test_an_entry_that_cannot_be_read_is_free_in_time(
    far: ObjectSessionStore, s3_server: S3Server, s3_prefix: str
) -> None:
    s3_client(s3_server).put(f"{s3_prefix}/lease/s-1", b"{damaged")
    with pytest.raises(SessionLockedError) as caught:
        async with far.lease("s-1", owner="who asks"):
            pass
    assert caught.value.holder is None
    assert "who asks" not in str(caught.value)
    async with far.lease("s-1", timeout=20):
        pass


async def test_the_hosts_clock_does_not_count(
    far: ObjectSessionStore, s3_store: ObjectSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time
    async with far.lease("s-1"):
        for ahead in (10**6, -(10**6)):
            monkeypatch.setattr(time, "time", lambda: now() + ahead)  # noqa: B023
            assert await is_held(s3_store)


async def test_nothing_of_a_lease_runs_on(s3_store: ObjectSessionStore) -> None:
    before = asyncio.all_tasks()
    async with s3_store.lease("s-1"):
        assert len(asyncio.all_tasks()) > len(before)
    assert asyncio.all_tasks() == before
