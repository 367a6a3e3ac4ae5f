"""Listings of a bucket: by pages, in order, without reading what is not asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from conftest import scaled
from object_proxy import Proxy, proxy_to
from object_samples import a_loop, a_session
from s3_server import BUCKET, s3_client

from phi_sessions import SessionStore, Timestamp
from phi_sessions.stores.object import ObjectSessionStore, open_url
from phi_sessions.stores.object.layout import new_token
from phi_sessions.stores.object.manifest import Manifest, encode_manifest

if TYPE_CHECKING:
    from benchmarks.servers.s3 import S3Server


@pytest.fixture
async def proxy(s3_server: S3Server) -> AsyncIterator[Proxy]:
    async with proxy_to(s3_server.port) as running:
        yield running


@pytest.fixture
async def far(s3_server: S3Server, s3_prefix: str, proxy: Proxy) -> AsyncIterator[Any]:
    """A store of the same place as `s3_store`, whose requests are seen."""
    async with open_url(s3_server.url(BUCKET, s3_prefix, endpoint=proxy.endpoint)) as store:
        yield store


async def orders(store: SessionStore) -> list[list[str]]:
    return [
        await store.list_ids(),
        [info.session_id async for info in store.infos()],
        [info.session_id async for info in store.infos(agent_id="agent-1")],
        [session.session_id for session in await store.list_for_agent("agent-1")],
    ]


async def test_many_sessions_are_listed_by_pages(
    s3_store: ObjectSessionStore, s3_server: S3Server, s3_prefix: str
) -> None:
    count = 1_010 * scaled(1)
    await s3_store.save(template := a_session("s-0000"))
    client = s3_client(s3_server)
    sound = bytes(client.get(f"{s3_prefix}/session/s-0000").bytes())
    todo = iter(range(1, count))

    async def fill() -> None:
        for n in todo:
            data = sound.replace(b"s-0000", f"s-{n:04}".encode())
            await client.put_async(f"{s3_prefix}/session/s-{n:04}", data)

    await asyncio.gather(*(fill() for _ in range(16)))
    expected = {f"s-{n:04}" for n in range(count)}
    found = await s3_store.list_ids()
    assert set(found) == expected
    assert len(found) == count
    infos = [info async for info in s3_store.infos()]
    assert {info.session_id for info in infos} == expected
    assert {info.agent_id for info in infos} == {template.agent_id}
    assert len(infos) == count


async def test_the_latest_come_first_whatever_store_object_saved_them(
    s3_url: str, s3_store: ObjectSessionStore
) -> None:
    async with open_url(s3_url) as other:
        for n in range(scaled(40)):
            await (s3_store, other)[n % 2].save(a_session(f"s-{n * 7 % 41}"))
        expected = [f"s-{n * 7 % 41}" for n in reversed(range(scaled(40)))]
        assert await orders(s3_store) == [expected] * 4
        await other.append(expected[-1], a_loop("s-0", 9))
        expected = [expected[-1], *expected[:-1]]
        assert await orders(s3_store) == [expected] * 4


async def test_sessions_of_one_moment_are_listed_by_id(
    s3_store: ObjectSessionStore, s3_server: S3Server, s3_prefix: str
) -> None:
    client = s3_client(s3_server)
    for name in ("b", "a", "c"):
        session = a_session(name)
        await s3_store.save(session)
        found = (await s3_store._reader.look(name)).state
        assert isinstance(found, Manifest)
        at_once = encode_manifest(found._replace(saved_at=10**18))
        client.put(f"{s3_prefix}/session/{name}", at_once)
    listed = await s3_store.list_ids()
    cards = [info async for info in s3_store.infos()]
    assert [info.session_id for info in cards] == listed
    assert {info.saved_at for info in cards} == {Timestamp.from_nanoseconds(10**18)}
    if len({each["last_modified"] for each in client.list(f"{s3_prefix}/session").collect()}) == 1:
        assert listed == ["a", "b", "c"]


async def test_one_agents_listing_asks_for_its_sessions_only(
    s3_store: ObjectSessionStore, far: ObjectSessionStore, proxy: Proxy
) -> None:
    for n in range(30):
        await s3_store.save(a_session(f"s-{n}", "rare" if n % 10 == 3 else "often"))
    assert [each.session_id for each in await far.list_for_agent("rare")] == ["s-23", "s-13", "s-3"]
    assert len(proxy.seen) == 1 + 3
    proxy.seen.clear()
    assert len([info async for info in far.infos(agent_id="rare")]) == 3
    assert len(proxy.seen) == 1 + 3
    proxy.seen.clear()
    assert await far.list_for_agent("nobody") == []
    assert len(proxy.seen) == 1


async def test_cards_read_no_records(
    s3_store: ObjectSessionStore, far: ObjectSessionStore, proxy: Proxy
) -> None:
    await s3_store.save(a_session("long", loops=60, text="x" * 2_000))
    await s3_store.save(a_session("middle", loops=12, text="x" * 2_000))
    await s3_store.save(a_session("head", metadata={"text": "x" * 9_000}))
    infos = {info.session_id: info async for info in far.infos()}
    assert infos["head"].metadata == {"text": "x" * 9_000}
    assert infos["long"].size is not None
    assert infos["long"].size > 60 * 2_000
    assert not any("/part/" in path for _, path in proxy.seen)
    assert len(proxy.seen) == 1 + 3 + 1  # a head that is long takes a second look


async def test_a_limit_bounds_what_is_read(
    s3_store: ObjectSessionStore, far: ObjectSessionStore, proxy: Proxy
) -> None:
    for second in range(2):
        for n in range(10):
            await s3_store.save(a_session(f"s-{second}-{n}"))
        if second == 0:
            await asyncio.sleep(1.05)  # the server's clock tells whole seconds
    newest = [f"s-1-{n}" for n in reversed(range(10))]
    assert [info.session_id async for info in far.infos(limit=4)] == newest[:4]
    assert len(proxy.seen) <= 1 + 10
    proxy.seen.clear()
    assert [info async for info in far.infos(limit=0)] == []
    assert proxy.seen == []


async def test_keys_that_are_not_ours_are_passed_over(
    s3_store: ObjectSessionStore, s3_server: S3Server, s3_prefix: str
) -> None:
    await s3_store.save(a_session())
    client = s3_client(s3_server)
    for key in ("session/%zz", "session/a~b", "session/deep/er", "agent/none", "part/x", "else"):
        client.put(f"{s3_prefix}/{key}", b"something else")
    assert await orders(s3_store) == [["s-1"]] * 4
    await s3_store.sweep()
    assert await orders(s3_store) == [["s-1"]] * 4


AGENTS = [
    "",
    "agent",
    "a/b",
    "..",
    "a\0b",
    "'; DROP TABLE x; --",
    "*",
    "a~b",
    "\u202egent",
    "x" * 5_000,
]


async def test_any_agents_sessions_are_its_own(s3_store: ObjectSessionStore) -> None:
    for n, agent_id in enumerate(AGENTS):
        await s3_store.save(a_session(f"s-{n}", agent_id))
    for n, agent_id in enumerate(AGENTS):
        [session] = await s3_store.list_for_agent(agent_id)
        assert (session.session_id, session.agent_id) == (f"s-{n}", agent_id)
        assert [i.session_id async for i in s3_store.infos(agent_id=agent_id)] == [f"s-{n}"]
    assert await s3_store.list_for_agent("lone \ud800 surrogate") == []


IDS = [
    "a/b",
    "..",
    ".",
    "%41",
    "A",
    "a",
    "größe",
    "\u202eabc",
    "日本",
    "a b",
    "{tag}",
    "*?[x]",
    "\0",
    "😀",
]
IDS += ["x" * 200, "con", "a~b", "session", "../../etc/passwd", "a\nb", "'\"`$(x)", "e\u0301", "é"]


async def test_any_id_is_kept_apart(s3_store: ObjectSessionStore, s3_url: str) -> None:
    async with open_url(s3_url) as other:
        for session_id in IDS:
            session = a_session(session_id, loops=40, text=new_token() * 60)
            await s3_store.save(session)
            assert await other.load(session_id) == session
        assert await other.list_ids() == IDS[::-1]
        for session_id in IDS:
            await other.delete(session_id)
        assert await s3_store.list_ids() == []
