"""A store that was closed, was closed twice, or was never closed."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from contract_samples import a_session

from phi_sessions import FileSystemSessionStore, Session, SessionStore, SessionTaskError


async def cards(store: SessionStore) -> object:
    return [info async for info in store.infos()]


CALLS: list[Callable[[SessionStore], Awaitable[object]]] = [
    lambda store: store.save(a_session()),
    lambda store: store.load("s-1"),
    lambda store: store.find("s-1"),
    lambda store: store.exists("s-1"),
    lambda store: store.delete("s-1"),
    lambda store: store.list_ids(),
    lambda store: store.list_for_agent("agent-1"),
    cards,
]


@pytest.mark.parametrize("used", [True, False], ids=["used", "unused"])
async def test_every_call_after_close_is_refused(store: SessionStore, used: bool) -> None:
    if used:
        await store.save(a_session())
    await store.aclose()
    for call in CALLS:
        with pytest.raises(SessionTaskError) as caught:
            await call(store)
        assert isinstance(caught.value, RuntimeError)


async def test_closing_twice_is_harmless(store: SessionStore) -> None:
    await store.save(a_session())
    await store.aclose()
    await store.aclose()
    await asyncio.gather(store.aclose(), store.aclose())


async def test_async_with_gives_the_store_and_closes_it(store: SessionStore) -> None:
    async with store as entered:
        assert entered is store
        await store.save(a_session())
    with pytest.raises(SessionTaskError):
        await store.load("s-1")


async def test_async_with_closes_after_an_error_and_lets_it_through(store: SessionStore) -> None:
    with pytest.raises(ZeroDivisionError):
        async with store:
            await store.save(a_session())
            _ = 1 / 0
    with pytest.raises(SessionTaskError):
        await store.list_ids()


async def test_calls_under_way_when_the_store_closes_end_or_are_refused(
    store: SessionStore,
) -> None:
    sessions = [a_session(f"s-{n % 10}") for n in range(100)]
    tasks = [asyncio.create_task(store.save(session)) for session in sessions]
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await store.aclose()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for session, result in zip(sessions, results, strict=True):
        assert result == session.revision or isinstance(result, SessionTaskError)


async def test_what_was_saved_before_the_close_is_there_for_the_next_store(
    tmp_path: Path,
) -> None:
    sessions = [a_session(f"s-{n}") for n in range(50)]
    async with FileSystemSessionStore(tmp_path) as store:
        tasks = [asyncio.create_task(store.save(session)) for session in sessions]
        await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    async with FileSystemSessionStore(tmp_path) as store:
        for session, result in zip(sessions, results, strict=True):
            found: Session | None = await store.find(session.session_id)
            assert (found.revision if found else None) == session.revision
            assert (session.revision is None) == isinstance(result, SessionTaskError)


async def test_a_store_that_is_dropped_unclosed_warns(tmp_path: Path) -> None:
    stores = [FileSystemSessionStore(tmp_path)]
    await stores[0].save(a_session())
    gc.collect()
    with pytest.warns(ResourceWarning, match="unclosed FileSystemSessionStore"):
        stores.clear()


async def test_a_store_that_was_never_used_or_was_closed_does_not_warn(tmp_path: Path) -> None:
    unused = FileSystemSessionStore(tmp_path)  # warnings are errors in this suite
    async with FileSystemSessionStore(tmp_path) as closed:
        await closed.save(a_session())
    del unused, closed
    gc.collect()
