"""Answers that are lost on the way: what was made counts once, and what was not is made."""

from __future__ import annotations

import asyncio
import time

import pytest
import redis.asyncio
from redis_checks import a_record, a_session, add_one, ids_of_a_sound_server, number
from redis_proxy import Fate, Proxy, proxy_to

from benchmarks.servers.redis import RedisServer
from phi_sessions import (
    Expect,
    SaveOutcomeUnknownError,
    SessionConflictError,
    SessionExistsError,
    SessionIOError,
    SessionNotFoundError,
)
from phi_sessions.stores.redis import RedisSessionStore
from phi_sessions.stores.redis.scripts import PATCH

LOSSES: list[Fate] = ["lose the answer", "lose the request"]


@pytest.fixture
async def warm(redis_store: RedisSessionStore) -> RedisSessionStore:
    """A store beside the one behind the proxy; the server knows all scripts."""
    session = a_session("warm")
    await redis_store.save(session)
    await redis_store.append(session, a_record("warm", 1))
    await redis_store.load("warm")
    await redis_store.delete("warm")
    return redis_store


@pytest.mark.parametrize("fate", LOSSES)
async def test_a_save_is_made_once(
    redis_server: RedisServer, warm: RedisSessionStore, fate: Fate
) -> None:
    async with proxy_to(redis_server.port) as (proxy, url), RedisSessionStore(url) as store:
        session = a_session(n=1)
        proxy.fates = [fate]
        revision = await store.save(session, expect=Expect.ABSENT)
        assert proxy.seen == 2
        assert (await warm.load("s-1")).revision == revision == session.revision

        session.metadata["n"] = session.loops[0].metadata["n"] = 2
        proxy.fates = [fate]
        await store.save(session)
        assert number(await warm.load("s-1")) == 2
    assert await ids_of_a_sound_server(redis_server) == ["s-1"]


@pytest.mark.parametrize("fate", LOSSES)
async def test_an_append_is_made_once(
    redis_server: RedisServer, warm: RedisSessionStore, fate: Fate
) -> None:
    await warm.save(a_session())
    async with proxy_to(redis_server.port) as (proxy, url), RedisSessionStore(url) as store:
        proxy.fates = [fate, fate]
        revision = await store.append("s-1", a_record("s-1", 7))
        assert proxy.seen == 3
    loaded = await warm.load("s-1")
    assert loaded.revision == revision
    assert loaded.loops.ids() == ["s-1.0", "s-1.7"]
    await ids_of_a_sound_server(redis_server)


@pytest.mark.parametrize("fate", LOSSES)
async def test_a_delete_is_made_once(
    redis_server: RedisServer, warm: RedisSessionStore, fate: Fate
) -> None:
    await warm.save(a_session())
    async with proxy_to(redis_server.port) as (proxy, url), RedisSessionStore(url) as store:
        proxy.fates = [fate]
        await store.delete("s-1")
        with pytest.raises(SessionNotFoundError):
            await store.delete("s-1")
    assert await ids_of_a_sound_server(redis_server) == []


async def test_a_load_and_a_listing_are_asked_again(
    redis_server: RedisServer, warm: RedisSessionStore
) -> None:
    await warm.save(a_session())
    async with proxy_to(redis_server.port) as (proxy, url), RedisSessionStore(url) as store:
        for call in (store.load("s-1"), store.list_ids(), store.list_for_agent("a")):
            proxy.fates = ["lose the answer"]
            assert await call


async def _while_lost(proxy: Proxy, others: RedisSessionStore, change: str) -> None:
    """Let others change the session between a lost answer and the next attempt."""
    await proxy.lost.wait()
    if change == "delete":
        await others.delete("s-1")
    else:
        for n in range(int(change)):
            await others.save(a_session(n=100 + n), expect=Expect.ANYTHING)
    proxy.is_down = False


@pytest.mark.parametrize("change", ["1", "20", "delete"])
async def test_a_save_that_others_replaced_meanwhile_was_made(
    redis_server: RedisServer, warm: RedisSessionStore, change: str
) -> None:
    session = a_session(n=1)
    await warm.save(session)
    async with proxy_to(redis_server.port) as (proxy, url), RedisSessionStore(url) as store:
        mine = await store.load("s-1")
        add_one(mine)
        proxy.fates = ["lose the answer"]
        proxy.is_down = False
        saving = asyncio.create_task(store.save(mine))
        await proxy.lost.wait()
        proxy.is_down = True
        await _while_lost(proxy, warm, change)
        await saving
        assert "count" not in ((await warm.find("s-1")) or a_session()).metadata
        with pytest.raises(SessionConflictError):
            await store.save(mine)


async def test_after_too_many_changes_of_others_the_outcome_is_unknown(
    redis_server: RedisServer, warm: RedisSessionStore
) -> None:
    await warm.save(a_session())
    async with proxy_to(redis_server.port) as (proxy, url), RedisSessionStore(url) as store:
        mine = await store.load("s-1")
        proxy.fates = ["lose the answer"]
        saving = asyncio.create_task(store.save(mine))
        await proxy.lost.wait()
        proxy.is_down = True
        await _while_lost(proxy, warm, "40")
        with pytest.raises(SaveOutcomeUnknownError) as caught:
            await saving
        assert caught.value.session_id == "s-1"

        await warm.delete("s-1")
        proxy.lost.clear()
        proxy.fates = ["lose the answer"]
        creating = asyncio.create_task(store.save(a_session(), expect=Expect.ABSENT))
        await proxy.lost.wait()
        proxy.is_down = True
        await _while_lost(proxy, warm, "40")
        with pytest.raises(SaveOutcomeUnknownError):
            await creating


async def test_without_a_server_to_ask_the_outcome_is_unknown(
    redis_server: RedisServer, warm: RedisSessionStore
) -> None:
    await warm.save(a_session())
    async with (
        proxy_to(redis_server.port) as (proxy, url),
        RedisSessionStore(url, timeout=0.3) as store,
    ):
        mine = await store.load("s-1")
        proxy.fates = ["lose the answer"]
        begun = time.monotonic()
        saving = asyncio.create_task(store.save(mine))
        await proxy.lost.wait()
        proxy.is_down = True
        with pytest.raises(SaveOutcomeUnknownError) as caught:
            await saving
        assert 0.25 < time.monotonic() - begun < 5
        assert isinstance(caught.value, SessionIOError)
        assert caught.value.filename == f"{url}/0"
        proxy.is_down = False
        await store.save(await store.load("s-1"))


async def test_a_request_that_comes_late_changes_nothing_any_more(
    redis_server: RedisServer, warm: RedisSessionStore
) -> None:
    session = a_session(n=1)
    await warm.save(session)
    async with proxy_to(redis_server.port) as (proxy, url), RedisSessionStore(url) as store:
        # The second attempt succeeds; the first comes when others have saved since.
        proxy.fates = ["hold the request"]
        await store.save(a_session(n=2), expect=Expect.ANYTHING)
        assert number(await warm.load("s-1")) == 2
        await warm.save(a_session(n=3))
        await proxy.deliver()
        assert number(await warm.load("s-1")) == 3

        # The second attempt is refused; the first comes when it would not be refused any more.
        await warm.delete("s-1")
        proxy.lost.clear()
        proxy.fates = ["hold the request"]
        creating = asyncio.create_task(store.save(a_session(n=4), expect=Expect.ABSENT))
        await proxy.lost.wait()
        proxy.is_down = True
        await _while_lost(proxy, warm, "1")
        with pytest.raises(SessionExistsError):
            await creating
        await warm.delete("s-1")
        await proxy.deliver()
        assert not await warm.exists("s-1")

        # The same, for an append to what is not there.
        proxy.lost.clear()
        proxy.fates = ["hold the request"]
        with pytest.raises(SessionNotFoundError):
            await store.append("s-1", a_record("s-1", 1))
        await warm.save(a_session(n=5))
        await proxy.deliver()
        assert number(await warm.load("s-1")) == 5
        assert len((await warm.load("s-1")).loops) == 1
    await ids_of_a_sound_server(redis_server)


async def test_updates_through_a_bad_network_count_once(
    redis_server: RedisServer, warm: RedisSessionStore
) -> None:
    await warm.save(a_session())
    fates: list[Fate] = ["lose the answer", "pass", "lose the request", "pass", "pass"]
    async with proxy_to(redis_server.port) as (proxy, url):
        stores = [RedisSessionStore(url) for _ in range(3)]
        proxy.about = PATCH.digest.encode()
        proxy.fates = fates * 12

        async def count(store: RedisSessionStore) -> None:
            for _ in range(8):
                await store.update("s-1", add_one)

        await asyncio.gather(*map(count, stores))
        for store in stores:
            await store.aclose()
    assert (await warm.load("s-1")).metadata["count"] == 24


async def test_a_client_that_sends_again_by_itself_makes_a_change_once(
    redis_server: RedisServer, warm: RedisSessionStore
) -> None:
    await warm.save(a_session())
    async with proxy_to(redis_server.port) as (proxy, url):
        client = redis.asyncio.Redis.from_url(url)  # it tries up to ten times
        async with RedisSessionStore(client) as store:
            await store.load("s-1")
            proxy.fates = ["lose the answer", "lose the answer"]
            await store.append("s-1", a_record("s-1", 7))
            mine = await store.load("s-1")
            add_one(mine)
            proxy.fates = ["lose the answer"]
            await store.save(mine)
            proxy.fates = ["lose the answer"]
            await store.delete("s-1", expect=mine.revision or Expect.ABSENT)
        await client.aclose()
