"""One store and several event loops: one after another, side by side, and loops that vanish."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from awaiting import Steps, ended, eventually
from conftest import scaled
from safety_checks import assert_quiet, held_by_descriptor, lock_path, number, version

from phi_sessions import (
    Expect,
    FileSystemSessionStore,
    MemorySessionStore,
    Revision,
    SessionLockedError,
    SessionStore,
    SessionTaskError,
)


@pytest.fixture
def sync_store(tmp_path: Path) -> Iterator[FileSystemSessionStore]:
    """A file store that no loop is running for."""
    store = FileSystemSessionStore(tmp_path / "sessions", lock_interval=0.001)
    yield store
    asyncio.run(store.aclose())


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def start(self, call: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(call, self.loop)

    def run(self, call: Coroutine[Any, Any, Any], seconds: float = 30) -> Any:
        return self.start(call).result(seconds)

    def vanish(self) -> None:
        """Stop and close the loop as it is; its tasks hear nothing."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(10)
            assert not self._thread.is_alive()
            self.loop.close()


@contextmanager
def loops(count: int) -> Iterator[list[LoopThread]]:
    made = [LoopThread() for _ in range(count)]
    try:
        yield made
    finally:
        for one in made:
            one.vanish()


async def suspended_once(call: Coroutine[Any, Any, Any], seen: list[Any], kept: list[Any]) -> None:
    """Start a task and return when it was suspended for the first time."""
    begun = asyncio.Event()

    async def run() -> None:
        seen.append(await Steps(call, lambda n, waited: begun.set()))

    kept.append(asyncio.create_task(run()))
    await begun.wait()


def test_two_runs_share_one_store(store_of_any_kind: SessionStore) -> None:
    store = store_of_any_kind
    session = version(1)
    for n in range(1, 6):

        async def once(n: int = n) -> None:
            session.metadata["n"] = session.loops[0].metadata["n"] = n
            await asyncio.gather(*(store.save(version(n, f"s-{k}")) for k in range(2, 20)))
            await store.save(session)
            assert number(await store.load("s-1")) == n
            assert len(await store.list_ids()) == 19
            assert len([info async for info in store.infos()]) == 19

        asyncio.run(once())


@pytest.fixture(params=["memory", "file"])
def store_of_any_kind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SessionStore]:
    store: SessionStore
    if request.param == "memory":
        store = MemorySessionStore()
    else:
        store = FileSystemSessionStore(tmp_path / "sessions")
    yield store
    asyncio.run(store.aclose())


def test_a_run_that_ended_while_calls_queued_does_not_disturb_the_next(
    sync_store: FileSystemSessionStore,
) -> None:
    async def leave_many_waiting() -> None:
        for n in range(50):
            kept.append(asyncio.create_task(sync_store.save(version(n))))
        await asyncio.sleep(0.002)

    for _ in range(5):
        kept: list[asyncio.Task[Revision]] = []
        asyncio.run(leave_many_waiting())
        assert_quiet(sync_store)
    begun = time.monotonic()
    asyncio.run(sync_store.save(version(99)))  # type: ignore[arg-type]
    assert time.monotonic() - begun < 4  # nobody's turn had to run out
    assert number(asyncio.run(sync_store.load("s-1"))) == 99


def test_two_loops_share_one_store_and_one_session(store_of_any_kind: SessionStore) -> None:
    store, saved = store_of_any_kind, set()

    async def work(who: int) -> None:
        for n in range(scaled(100)):
            saved.add(await store.save(version(n, size=3), expect=Expect.ANYTHING))
            number(await store.load("s-1"))
            await store.save(version(n, f"own-{who}"))
            assert {"s-1", f"own-{who}"} <= set(await store.list_ids())

    with loops(2) as both:
        calls = [one.start(work(who)) for who, one in enumerate(both)]
        for call in calls:
            call.result(60)
        assert both[0].run(store.load("s-1")).revision in saved
    assert len(saved) == 2 * scaled(100)


def test_two_loops_that_try_again_on_a_conflict_lose_nothing(
    store_of_any_kind: SessionStore,
) -> None:
    from phi_sessions import LoopRecord, Session, SessionConflictError

    store, rounds = store_of_any_kind, scaled(40)

    async def work(who: int) -> None:
        for n in range(rounds):
            while True:
                session = await store.load("s-1")
                session.loops.append(LoopRecord(f"{who}.{n}", "s-1", "a"))
                try:
                    await store.save(session)
                    break
                except SessionConflictError:
                    await asyncio.sleep(0)

    with loops(3) as three:
        three[0].run(store.save(Session("s-1", "a")))
        calls = [one.start(work(who)) for who, one in enumerate(three)]
        for call in calls:
            call.result(60)
        kept = {record.loop_id for record in three[0].run(store.load("s-1")).loops}
    assert kept == {f"{who}.{n}" for who in range(3) for n in range(rounds)}


def test_first_come_first_served_across_loops(sync_store: FileSystemSessionStore) -> None:
    order: list[str] = []
    save = sync_store._directory.save

    def noted(parcel: Any, *rest: Any) -> Iterator[Any]:
        yield from save(parcel, *rest)  # raises while the lock is held elsewhere
        order.append(parcel.agent_id)

    sync_store._directory.save = noted  # type: ignore[method-assign]
    seen: list[Any] = []
    kept: list[Any] = []
    with loops(3) as three, held_by_descriptor(lock_path(sync_store)) as let_go:
        for n in range(30):
            call = sync_store.save(version(n, agent_id=f"{n:02}"))
            three[n % 3].run(suspended_once(call, seen, kept))
        assert order == []
        let_go()
        eventually(lambda: len(seen) == 30)
    assert order == [f"{n:02}" for n in range(30)]
    assert_quiet(sync_store)


def test_a_loop_that_vanishes_while_its_calls_queue_does_not_block_others(
    sync_store: FileSystemSessionStore,
) -> None:
    seen: list[Any] = []
    lost: list[Any] = []
    kept: list[Any] = []
    with loops(2) as (one, other), held_by_descriptor(lock_path(sync_store)) as let_go:
        other.run(suspended_once(sync_store.save(version(0)), seen, kept))
        for n in range(1, 10):
            loop, into = (one, lost) if n % 2 else (other, seen)
            loop.run(suspended_once(sync_store.save(version(n)), into, kept))
        one.vanish()
        let_go()
        eventually(lambda: len(seen) == 5, seconds=3)
        assert lost == []
        assert number(other.run(sync_store.load("s-1"))) == 8
        other.run(sync_store.save(version(10)), seconds=3)
        assert_quiet(sync_store)
    kept.clear()
    gc.collect()


def test_a_loop_that_vanishes_at_the_head_of_the_queue_does_not_block_newcomers(
    sync_store: FileSystemSessionStore,
) -> None:
    kept: list[Any] = []
    with loops(2) as (one, other):
        with held_by_descriptor(lock_path(sync_store)):
            one.run(suspended_once(sync_store.save(version(0)), [], kept))
            one.vanish()
        other.run(sync_store.save(version(1)), seconds=3)
        other.run(sync_store.delete("s-1"), seconds=3)
        assert_quiet(sync_store)
    kept.clear()
    gc.collect()


@pytest.mark.parametrize("newcomer", [True, False])
def test_a_loop_that_vanishes_at_the_head_of_the_queue_does_not_block_those_behind(
    sync_store: FileSystemSessionStore, newcomer: bool
) -> None:
    kept: list[Any] = []  # nobody collects the tasks of the lost loop
    with loops(2) as (one, other), held_by_descriptor(lock_path(sync_store)) as let_go:
        one.run(suspended_once(sync_store.save(version(0)), [], kept))
        behind = [other.start(ended(sync_store.save(version(n)))) for n in (1, 2)]
        eventually(lambda: len(sync_store._turnstile._queues.get("s-1", ())) == 3)
        one.vanish()
        let_go()
        if newcomer:
            behind.append(other.start(ended(sync_store.save(version(3)))))
        results = [call.result(30) for call in behind]
        assert [type(result) for result in results] == [str] * len(behind)
        assert number(other.run(sync_store.load("s-1"))) == len(behind)
    kept.clear()
    gc.collect()


def test_a_loop_that_vanishes_during_a_save_leaves_a_whole_session_and_a_free_lock(
    sync_store: FileSystemSessionStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "concurrent.futures")  # nobody is there for the answer
    kept: list[Any] = []
    for n in range(1, 11):
        with loops(1) as (one,):
            one.run(suspended_once(sync_store.save(version(n, size=500)), [], kept))
        begun = time.monotonic()
        asyncio.run(sync_store.save(version(n, "other")))  # type: ignore[arg-type]
        asyncio.run(sync_store.save(version(n + 100)))  # type: ignore[arg-type]
        assert time.monotonic() - begun < 4
        assert number(asyncio.run(sync_store.load("s-1"))) == n + 100
    assert_quiet(sync_store)
    kept.clear()
    gc.collect()


def test_a_lease_whose_loop_vanished_is_the_next_holders_when_the_first_is_cleared_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)  # tasks that are destroyed are told of
    store = MemorySessionStore()
    kept: list[Any] = []
    with loops(2) as (one, other):
        held = threading.Event()

        async def hold() -> None:
            async with store.lease("s-1", owner="the first"):
                held.set()
                await asyncio.sleep(30)

        async def begin() -> None:
            kept.append(asyncio.ensure_future(hold()))

        async def take() -> None:
            async with store.lease("s-1", owner="the next", timeout=5) as lease:
                kept.clear()
                gc.collect()
                with pytest.raises(SessionLockedError) as caught:
                    async with store.lease("s-1"):
                        pass
                assert caught.value.holder == lease
            async with store.lease("s-1"):
                pass

        one.run(begin())
        assert held.wait(10)
        one.vanish()
        other.run(take())


def test_everything_works_in_debug_mode(
    store_of_any_kind: SessionStore, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_of_any_kind

    async def work(who: int) -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        loop.slow_callback_duration = 60
        for n in range(10):
            tasks = [asyncio.create_task(store.save(version(n))) for _ in range(5)]
            await asyncio.sleep(0)
            tasks[n % 5].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(r, str | asyncio.CancelledError) for r in results)
            await store.save(version(n, f"own-{who}"))
            assert [info async for info in store.infos()]
            assert await store.list_for_agent("a")
            await store.delete(f"own-{who}")

    asyncio.run(work(0), debug=True)
    with loops(2) as both:
        for call in [one.start(work(who)) for who, one in enumerate(both)]:
            call.result(60)
    asyncio.run(store.aclose(), debug=True)
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_store_can_be_closed_from_another_loop(store_of_any_kind: SessionStore) -> None:
    store = store_of_any_kind
    with loops(2) as (one, other):
        one.run(store.save(version(1)))
        other.run(store.aclose())
        for loop in (one, other):
            with pytest.raises(SessionTaskError):
                loop.run(store.load("s-1"))
            loop.run(store.aclose())


@contextmanager
def threads_switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def test_calls_that_meet_a_close_in_another_loop_end(tmp_path: Path) -> None:
    async def work(store: FileSystemSessionStore) -> None:
        try:
            while True:
                await store.exists("s-1")
        except SessionTaskError:
            return

    with threads_switching_often(), loops(3) as (one, two, closer):
        for n in range(scaled(150)):
            store = FileSystemSessionStore(tmp_path, workers=1)
            calls = [loop.start(work(store)) for loop in (one, two) for _ in range(2)]
            time.sleep(n % 10 / 5000)
            closer.run(store.aclose())
            for call in calls:
                call.result(10)


def test_first_calls_of_two_loops_at_the_same_time_start_no_more_threads_than_agreed(
    tmp_path: Path,
) -> None:
    def working() -> int:
        return sum(str(tmp_path) in thread.name for thread in threading.enumerate())

    barrier = threading.Barrier(2)

    async def first(store: FileSystemSessionStore) -> None:
        barrier.wait(10)
        await store.exists("s-1")

    with threads_switching_often(), loops(2) as both:
        for _ in range(scaled(100)):
            store = FileSystemSessionStore(tmp_path, workers=2)
            for call in [one.start(first(store)) for one in both]:
                call.result(10)
            assert working() <= 2
            both[0].run(store.aclose())
            eventually(lambda: working() == 0, seconds=5)
