"""Holding a session for a whole run."""

from __future__ import annotations

import asyncio
import os
import socket
import time

import pytest
from contract_samples import a_loop, a_session

from phi_sessions import (
    FileSystemSessionStore,
    InvalidSessionIdError,
    MemorySessionStore,
    SessionLockedError,
    SessionTaskError,
    Timestamp,
)

Store = MemorySessionStore | FileSystemSessionStore


async def is_held(store: Store, session_id: str = "s-1") -> bool:
    """Return whether a lease of the session is refused just now."""
    try:
        async with store.lease(session_id):
            return False
    except SessionLockedError:
        return True


async def test_a_second_holder_is_told_who_holds_it(store: Store) -> None:
    before = Timestamp.utc_now()
    async with store.lease("s-1", owner="the first") as lease:
        with pytest.raises(SessionLockedError) as caught:
            async with store.lease("s-1", owner="the second"):
                pytest.fail("both hold it")
        assert isinstance(caught.value, TimeoutError)
        holder = caught.value.holder
        assert holder == lease
        assert (holder.session_id, holder.owner) == ("s-1", "the first")
        assert (holder.pid, holder.host) == (os.getpid(), socket.gethostname())
        assert before <= holder.since <= Timestamp.utc_now()
        assert caught.value.session_id == "s-1"


async def test_an_owner_without_a_name_is_its_process(store: Store) -> None:
    async with store.lease("s-1") as lease:
        assert lease.owner == f"{socket.gethostname()}:{os.getpid()}"


async def test_the_next_holder_is_told_of_not_the_last(store: Store) -> None:
    async with store.lease("s-1", owner="a longer name than the next"):
        pass
    async with store.lease("s-1", owner="b"):
        with pytest.raises(SessionLockedError) as caught:
            async with store.lease("s-1"):
                pass
        assert caught.value.holder.owner == "b"


async def test_without_a_timeout_nobody_waits(store: Store) -> None:
    async with store.lease("s-1"):
        with pytest.raises(SessionLockedError) as caught:
            async with store.lease("s-1"):
                pass
        assert caught.value.waited < 1


async def test_a_timeout_is_waited_out(store: Store) -> None:
    async with store.lease("s-1"):
        begun = time.monotonic()
        with pytest.raises(SessionLockedError) as caught:
            async with store.lease("s-1", timeout=0.2):
                pass
        assert time.monotonic() - begun >= 0.19
        assert caught.value.waited >= 0.19
        assert caught.value.holder is not None


async def test_a_time_that_is_not_a_number_cannot_be_waited_for(store: Store) -> None:
    async with store.lease("s-1"), asyncio.timeout(20):
        with pytest.raises(ValueError, match="not a number"):
            async with store.lease("s-1", timeout=float("nan")):
                pass


async def test_a_waiter_gets_it_when_the_holder_lets_go(store: Store) -> None:
    order: list[str] = []
    is_waiting = asyncio.Event()

    async def wait() -> None:
        is_waiting.set()
        async with store.lease("s-1", timeout=20):
            order.append("second")

    async with store.lease("s-1"):
        waiter = asyncio.create_task(wait())
        await is_waiting.wait()
        await asyncio.sleep(0.02)
        order.append("first")
    await waiter
    assert order == ["first", "second"]


async def test_only_one_of_many_holds_it_at_a_time(store: Store) -> None:
    inside = 0

    async def hold() -> None:
        nonlocal inside
        async with store.lease("s-1", timeout=30):
            inside += 1
            await asyncio.sleep(0)
            assert inside == 1
            inside -= 1

    await asyncio.gather(*(hold() for _ in range(20)))
    assert not await is_held(store)


async def test_it_is_free_after_an_exception(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        async with store.lease("s-1"):
            assert await is_held(store)
            _ = 1 / 0
    assert not await is_held(store)


async def test_it_is_free_after_its_holder_is_cancelled(store: Store) -> None:
    holds = asyncio.Event()

    async def hold() -> None:
        async with store.lease("s-1"):
            holds.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await holds.wait()
    assert await is_held(store)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await is_held(store)


async def test_cancelled_while_it_is_taken_it_is_free(store: Store) -> None:
    for turns in range(20):
        context = store.lease("s-1")
        task = asyncio.ensure_future(context.__aenter__())
        for _ in range(turns % 7):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            await context.__aexit__(None, None, None)
        assert not await is_held(store)


async def test_a_waiter_that_is_cancelled_leaves_it_to_others(store: Store) -> None:
    async def hold() -> None:
        async with store.lease("s-1", timeout=30):
            pass

    async with store.lease("s-1"):
        waiters = [asyncio.create_task(hold()) for _ in range(3)]
        await asyncio.sleep(0.02)
        waiters[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiters[0]
        assert await is_held(store)
    await asyncio.gather(*waiters[1:])
    assert not await is_held(store)


async def test_leases_of_different_sessions_do_not_meet(store: Store) -> None:
    async with store.lease("s-1"), store.lease("s-2"), store.lease("S-1"):
        assert await is_held(store, "s-1")
        assert await is_held(store, "s-2")
        assert not await is_held(store, "s-3")
    assert not await is_held(store, "s-2")


async def test_a_lease_keeps_nobody_from_the_session(store: Store) -> None:
    async with store.lease("s-1"):
        session = a_session()
        await store.save(session)
        await store.append("s-1", a_loop("s-1", 1))
        await store.update("s-1", lambda s: s.metadata.update(a=1))
        assert len((await store.load("s-1")).loops) == 2
        await store.delete("s-1")
        assert await store.list_ids() == []
        assert await is_held(store)


async def test_a_lease_makes_no_session(store: Store) -> None:
    async with store.lease("s-1"):
        assert await store.list_ids() == []
        assert not await store.exists("s-1")
        assert [info async for info in store.infos()] == []


async def test_an_invalid_id_is_refused(store: Store) -> None:
    with pytest.raises(InvalidSessionIdError):
        async with store.lease(""):
            pass


async def test_a_closed_store_gives_no_lease(store: Store) -> None:
    await store.aclose()
    with pytest.raises(SessionTaskError):
        async with store.lease("s-1"):
            pass


async def test_a_lease_that_outlives_its_store_is_given_back(
    file_store: FileSystemSessionStore,
) -> None:
    async with file_store.lease("s-1"):
        await file_store.aclose()
        async with FileSystemSessionStore(file_store.dir) as other:
            assert await is_held(other)
    async with FileSystemSessionStore(file_store.dir) as other:
        assert not await is_held(other)


async def test_stores_of_one_directory_share_leases(file_store: FileSystemSessionStore) -> None:
    async with FileSystemSessionStore(file_store.dir) as other:
        async with file_store.lease("s-1", owner="mine"):
            with pytest.raises(SessionLockedError) as caught:
                async with other.lease("s-1"):
                    pass
            assert caught.value.holder.owner == "mine"
        assert not await is_held(other)
