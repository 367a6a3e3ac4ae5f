"""When a cancelled call has ended, nothing of it happens any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
from object_proxy import DELAY, Act, Proxy, proxy_to
from object_samples import a_loop, a_session
from s3_server import BUCKET, s3_client

from phi_sessions import Expect, Session
from phi_sessions.stores.object import ObjectSessionStore, open_url

if TYPE_CHECKING:
    from benchmarks.servers.s3 import S3Server

Change = Callable[[ObjectSessionStore, Session], Awaitable[Any]]

CHANGES: dict[str, Change] = {
    "save": lambda store, session: store.save(session),
    "save large": lambda store, session: store.save(
        a_session(loops=40, text="x" * 2_000), expect=Expect.ANYTHING
    ),
    "create": lambda store, session: store.save(a_session("s-2")),
    "append": lambda store, session: store.append("s-1", a_loop("s-1", 9)),
    "delete": lambda store, session: store.delete("s-1"),
    "update": lambda store, session: store.update("s-1", lambda each: each.metadata.update(a=1)),
}


@pytest.fixture
async def proxy(s3_server: S3Server) -> AsyncIterator[Proxy]:
    async with proxy_to(s3_server.port) as running:
        yield running


@pytest.fixture
async def far(s3_server: S3Server, s3_prefix: str, proxy: Proxy) -> AsyncIterator[Any]:
    async with open_url(s3_server.url(BUCKET, s3_prefix, endpoint=proxy.endpoint)) as store:
        yield store


@pytest.mark.parametrize(
    ("change", "again"),
    [*((change, False) for change in CHANGES), ("save", True), ("append", True)],
)
async def test_a_put_that_was_sent_is_waited_for(
    far: ObjectSessionStore,
    s3_server: S3Server,
    s3_prefix: str,
    proxy: Proxy,
    change: str,
    again: bool,
) -> None:
    session = a_session()
    await far.save(session)
    session.metadata["n"] = 1
    client = s3_client(s3_server)

    def everything() -> list[tuple[str, str]]:
        listed = client.list(f"{s3_prefix}/session").collect()
        return sorted((each["path"], each["e_tag"]) for each in listed)

    before = everything()
    proxy.only(Act.DELAY, "PUT", "/session/")
    proxy.seen.clear()
    call = asyncio.ensure_future(CHANGES[change](far, session))
    while not any(method == "PUT" and "/session/" in path for method, path in proxy.seen):
        await asyncio.sleep(0.001)
    call.cancel()
    if again:
        await asyncio.sleep(0.01)
        call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()
    after = everything()
    assert after != before
    await asyncio.sleep(DELAY + 0.1)
    assert everything() == after
    if change == "save":  # the holder is the holder still
        await far.save(session)


async def test_a_lease_whose_put_was_sent_is_given_back(
    far: ObjectSessionStore, s3_store: ObjectSessionStore, proxy: Proxy
) -> None:
    proxy.only(Act.DELAY, "PUT", "/lease/")
    context = far.lease("s-1")
    entering = asyncio.ensure_future(context.__aenter__())
    while not any(method == "PUT" and "/lease/" in path for method, path in proxy.seen):
        await asyncio.sleep(0.001)
    entering.cancel()
    await asyncio.wait([entering])
    assert entering.cancelled()
    await asyncio.sleep(DELAY + 0.1)
    async with s3_store.lease("s-1"):
        pass


async def test_a_wait_for_another_ends_at_once(far: ObjectSessionStore, proxy: Proxy) -> None:
    session = a_session()
    await far.save(session)
    proxy.only(Act.DELAY, "PUT", "/session/")
    first = asyncio.ensure_future(far.save(session))
    waiting = [asyncio.ensure_future(far.append("s-1", a_loop("s-1", n))) for n in range(3)]
    await asyncio.sleep(0.02)
    for call in waiting:
        call.cancel()
    done, _ = await asyncio.wait(waiting, timeout=DELAY / 2)
    assert len(done) == 3
    await first
    assert len((await far.load("s-1")).loops) == 1
