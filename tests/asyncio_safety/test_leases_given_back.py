"""Leases of files whose holder goes away while the store's threads have other work."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_event_loops import loops

from phi_sessions import FileSystemSessionStore
from phi_sessions.stores.sqlite import SQLiteSessionStore

Store = FileSystemSessionStore | SQLiteSessionStore
_SECONDS = 20


@pytest.fixture(params=["file", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    if request.param == "file":
        return lambda: FileSystemSessionStore(tmp_path / "s", workers=1)
    return lambda: SQLiteSessionStore(tmp_path / "s.db", workers=2)


@contextmanager
def threads_busy(store: Store) -> Iterator[None]:
    gate = threading.Event()
    for _ in range(store._workers._count):
        store._workers.submit(gate.wait, _SECONDS)
    try:
        yield
    finally:
        gate.set()


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_holder_cancelled_while_it_gives_back_frees_it(
    make: Callable[[], Store], times: int
) -> None:
    async with make() as store:
        held, leave, left = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            async with store.lease("s-1"):
                held.set()
                await leave.wait()
                left.set()

        task = asyncio.create_task(hold())
        await asyncio.wait_for(held.wait(), _SECONDS)
        with threads_busy(store):
            leave.set()
            await left.wait()
            for _ in range(times):
                await asyncio.sleep(0)
                task.cancel()
            await asyncio.sleep(0.01)
            assert not task.done()  # it has still to be given back
        await asyncio.wait([task], timeout=_SECONDS)
        assert task.cancelled()
        async with store.lease("s-1", owner="the next"):
            pass


def test_a_run_that_ends_while_its_holder_gives_back_frees_it(make: Callable[[], Store]) -> None:
    store, other = make(), make()
    kept: list[asyncio.Task[None]] = []

    async def leave_it_giving_back() -> None:
        held, left = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            async with store.lease("s-1"):
                held.set()
                await busy.wait()
                left.set()

        busy = asyncio.Event()
        kept.append(asyncio.create_task(hold()))
        await asyncio.wait_for(held.wait(), _SECONDS)
        stack.enter_context(threads_busy(store))
        busy.set()
        await left.wait()
        await asyncio.sleep(0)

    async def take() -> None:
        async with other, other.lease("s-1", owner="the next"):
            pass

    with ExitStack() as stack:
        asyncio.run(leave_it_giving_back())
        assert kept[0].cancelled()
        asyncio.run(take())
    asyncio.run(store.aclose())


async def test_a_holder_cancelled_inside_and_again_frees_it(make: Callable[[], Store]) -> None:
    async with make() as store:
        held = asyncio.Event()

        async def hold() -> None:
            async with store.lease("s-1"):
                held.set()
                await asyncio.sleep(_SECONDS)

        task = asyncio.create_task(hold())
        await asyncio.wait_for(held.wait(), _SECONDS)
        with threads_busy(store):
            for _ in range(3):
                task.cancel()
                await asyncio.sleep(0.001)
        await asyncio.wait([task], timeout=_SECONDS)
        assert task.cancelled()
        async with store.lease("s-1", owner="the next"):
            pass


def test_a_loop_that_vanishes_gives_its_lease_back(
    make: Callable[[], Store], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)  # tasks that are destroyed are told of
    store = make()
    kept: list[Any] = []
    with loops(2) as (one, other):
        held = threading.Event()

        async def hold() -> None:
            async with store.lease("s-1"):
                held.set()
                await asyncio.sleep(_SECONDS)

        async def begin() -> None:
            kept.append(asyncio.ensure_future(hold()))

        async def wait_and_take() -> None:
            async with store.lease("s-1", owner="the next", timeout=5):
                pass

        one.run(begin())
        assert held.wait(_SECONDS)
        one.vanish()
        kept.clear()
        gc.collect()
        other.run(wait_and_take(), seconds=10)
        other.run(store.aclose())


async def test_a_wait_without_end_ends_when_the_lease_is_free(make: Callable[[], Store]) -> None:
    async with make() as store, make() as other:
        taken, done = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            async with other.lease("s-1"):
                taken.set()
                await done.wait()

        async def take() -> None:
            async with store.lease("s-1", timeout=float("inf")):
                pass

        holder = asyncio.create_task(hold())
        await taken.wait()
        waiter = asyncio.create_task(take())
        await asyncio.sleep(0.05)
        assert not waiter.done()
        done.set()
        async with asyncio.timeout(_SECONDS):
            await waiter
            await holder
