"""Writers that go to the disk together, and whose callers, store or loop go away meanwhile.

Nobody here looks by itself whether it is time to lead a group: who is not told waits for ever.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from awaiting import Steps, eventually, until
from conftest import scaled
from safety_checks import assert_quiet, lock_is_free, lock_path
from test_event_loops import loops
from test_hops import count_hops

from phi_sessions import FileSystemSessionStore, LoopRecord, Session, SessionTaskError, load_session
from phi_sessions.stores.filesystem import committer
from phi_sessions.stores.filesystem import disk as filesystem_disk

OLD, NEW = "old", "new"
MANY = 64  # writers in one group at the most
_SECONDS = 20


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer, "_PATIENCE", 3600.0)
    monkeypatch.setattr(filesystem_disk, "most_descriptors", lambda: 10_000)


class Disk:
    """The disk, which takes its time from `stop` to `go_on`."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._open = threading.Event()
        self._open.set()
        self.waiting = 0
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, self._slow(getattr(os, name)))
        self.stop, self.go_on = self._open.clear, self._open.set

    def _slow(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def slow(fd: int) -> None:
            self.waiting += 1
            assert self._open.wait(_SECONDS)
            self.waiting -= 1
            real(fd)

        return slow


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    yield (made := Disk(monkeypatch))
    made.go_on()


@pytest.fixture
async def store(tmp_path: Path, disk: Disk) -> AsyncIterator[FileSystemSessionStore]:
    """A store with one thread: a group is under way, or its writers wait for it."""
    async with FileSystemSessionStore(tmp_path / "s", workers=1) as made:
        yield made
        disk.go_on()


class Writers:
    """Which writers of a store have begun, and which are over."""

    def __init__(self, store: FileSystemSessionStore) -> None:
        self.begun: set[str] = set()
        self.over: set[str] = set()
        directory = store._directory
        directory.save = self._noted(directory.save)  # type: ignore[method-assign]
        directory.append = self._noted(directory.append)  # type: ignore[method-assign]

    def _noted(self, job: Callable[..., Any]) -> Callable[..., Any]:
        def noted(what: Any, *rest: Any) -> Generator[Any, Any, Any]:
            session_id = what if isinstance(what, str) else what.session_id
            self.begun.add(session_id)
            try:
                yield from job(what, *rest)
            finally:
                self.over.add(session_id)

        return noted


def session(session_id: str, loop_id: str) -> Session:
    return Session(session_id, "a", loops=[LoopRecord(loop_id, session_id, "a")])


def change(store: FileSystemSessionStore, session_id: str) -> Coroutine[Any, Any, str]:
    """Append to every other session, and save the others."""
    if int(session_id.partition("-")[2]) % 2:
        return store.append(session_id, LoopRecord(NEW, session_id, "a"))
    return store.save(session(session_id, NEW))


def is_new(store: FileSystemSessionStore, session_id: str) -> bool:
    """Whether the change was made: all of it, or nothing."""
    found = load_session(session_id, store.dir).loops.ids()
    assert found in ([OLD], [NEW], [OLD, NEW])
    return NEW in found


async def prepare(store: FileSystemSessionStore, count: int) -> list[str]:
    names = [f"s-{number}" for number in range(count)]
    async with asyncio.timeout(_SECONDS):
        await asyncio.gather(*(store.save(session(name, OLD)) for name in names))
    return names


def waiting(store: FileSystemSessionStore) -> int:
    """Return how many calls no thread has taken yet."""
    return sum(len(queue._orders) for queue in list(store._committer._queues.values()))


@contextmanager
def held_back(store: FileSystemSessionStore) -> Iterator[None]:
    """Keep the store's thread busy with something else."""
    gate = threading.Event()
    store._workers.submit(gate.wait, _SECONDS)
    try:
        yield
    finally:
        gate.set()


async def queued(
    store: FileSystemSessionStore, names: list[str], at: Callable[..., None] | None = None
) -> list[asyncio.Task[Any]]:
    """Start changes that wait in this order, and call `at` whenever one is suspended."""
    tasks: list[asyncio.Task[Any]] = []
    for name in names:
        count = waiting(store) + 1
        tasks.append(asyncio.create_task(Steps(change(store, name), at).run()))
        await asyncio.sleep(0)
        await until(lambda count=count: waiting(store) == count)
    return tasks


async def all_of(tasks: list[asyncio.Task[Any]]) -> list[Any]:
    async with asyncio.timeout(_SECONDS):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)  # what was to be called at their ends was called
    return results


def once(task: asyncio.Task[Any]) -> None:
    task.cancel()


def again_and_again(task: asyncio.Task[Any]) -> None:
    if not task.done():
        task.cancel()
        asyncio.get_running_loop().call_later(0.001, again_and_again, task)


@pytest.mark.parametrize("cancel", [once, again_and_again])
@pytest.mark.parametrize("who", [0, 1, 4, 7])
async def test_a_call_cancelled_before_its_group_has_begun_is_dropped_at_once(
    store: FileSystemSessionStore, who: int, cancel: Callable[..., None]
) -> None:
    names = await prepare(store, 8)
    writers, hops = Writers(store), count_hops(store)
    with held_back(store):
        tasks = await queued(store, names)
        cancel(tasks[who])
        await asyncio.wait([tasks[who]], timeout=_SECONDS)
        assert tasks[who].cancelled()  # though the thread is busy
        await until(lambda: waiting(store) == 7)
    results = await all_of(tasks)
    assert [type(result) for result in results].count(str) == 7
    assert names[who] not in writers.begun
    assert [name for name in names if not is_new(store, name)] == [names[who]]
    assert len(hops) == 1 + 1 + (who == 0)  # the gate, the group, and the leader's that was dropped
    assert_quiet(store)


@pytest.mark.parametrize("cancel", [once, again_and_again])
@pytest.mark.parametrize("who", [0, 1, 4, 7])
async def test_a_call_cancelled_while_its_group_is_under_way_ends_when_its_writer_is_over(
    store: FileSystemSessionStore, disk: Disk, who: int, cancel: Callable[..., None]
) -> None:
    names = await prepare(store, 8)
    writers, hops = Writers(store), count_hops(store)
    with held_back(store):
        tasks = await queued(store, names)
        disk.stop()
    await until(lambda: disk.waiting == 1)
    assert writers.begun == set(names)
    at_its_end: list[bool] = []

    def look(task: asyncio.Task[Any]) -> None:
        free = lock_is_free(lock_path(store, names[who]))
        at_its_end.append(free and names[who] in writers.over)

    tasks[who].add_done_callback(look)
    cancel(tasks[who])
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert not any(task.done() for task in tasks)
    disk.go_on()
    results = await all_of(tasks)
    assert isinstance(results.pop(who), asyncio.CancelledError)
    assert {type(result) for result in results} == {str}
    assert at_its_end == [True]
    assert all(is_new(store, name) for name in names)
    assert len(hops) == 2
    assert_quiet(store)


@pytest.mark.parametrize("who", [[MANY], [MANY + 5], [MANY, MANY + 1, MANY + 2]])
async def test_a_call_cancelled_before_it_is_taken_is_dropped_while_a_group_is_under_way(
    store: FileSystemSessionStore, disk: Disk, who: list[int]
) -> None:
    names = await prepare(store, MANY + 8)
    writers, hops = Writers(store), count_hops(store)
    with held_back(store):
        tasks = await queued(store, names)
        disk.stop()
    await until(lambda: disk.waiting == 1)
    for number in who:
        tasks[number].cancel()
    await asyncio.wait([tasks[number] for number in who], timeout=_SECONDS)
    assert all(tasks[number].cancelled() for number in who)
    disk.go_on()
    await all_of(tasks)
    gone = {names[number] for number in who}
    assert writers.begun == set(names) - gone
    assert {name for name in names if not is_new(store, name)} == gone
    assert len(hops) == 3
    assert_quiet(store)


@pytest.mark.parametrize("count", [1, 3])
async def test_when_those_who_were_told_to_lead_are_cancelled_the_next_one_is_told(
    store: FileSystemSessionStore, disk: Disk, count: int
) -> None:
    names = await prepare(store, 10)
    hops = count_hops(store)
    disk.stop()
    first = asyncio.ensure_future(change(store, names[0]))
    await until(lambda: disk.waiting == 1)

    def told(number: int, waited: Any) -> None:  # it is done, but the task has not heard of it
        task = asyncio.current_task()
        assert task is not None
        if waited is not None:  # not a pass of the loop, which encoding may wait for
            waited.add_done_callback(lambda _: task.cancel())

    tasks = await queued(store, names[1 : count + 1], told)
    tasks += await queued(store, names[count + 1 :])
    disk.go_on()
    results = await all_of([first, *tasks])
    assert [type(result) for result in results[1 : count + 1]] == [asyncio.CancelledError] * count
    assert {type(result) for result in [results[0], *results[count + 1 :]]} == {str}
    assert [is_new(store, name) for name in names] == [
        not 1 <= number <= count for number in range(10)
    ]
    assert len(hops) == 2
    assert_quiet(store)


async def test_cancels_at_random_moments_disturb_no_other_call(tmp_path: Path, disk: Disk) -> None:
    chance = random.Random(11)
    ends = {"acknowledged": 0, "made": 0, "dropped": 0}
    async with FileSystemSessionStore(tmp_path / "s", workers=2) as store:
        writers = Writers(store)
        for _ in range(scaled(40)):
            names = await prepare(store, 12)
            writers.over.clear()
            writers.begun.clear()
            tasks = [asyncio.ensure_future(change(store, name)) for name in names]
            at_the_end: list[bool] = []
            for name, task in chance.sample(list(zip(names, tasks, strict=True)), 6):

                def look(_: Any, name: str = name, seen: list[bool] = at_the_end) -> None:
                    seen.append((name in writers.begun) is (name in writers.over))

                task.add_done_callback(look)
                if chance.random() < 0.7:
                    await asyncio.sleep(chance.uniform(0, 0.001))
                chance.choice((once, once, again_and_again))(task)
            for name, result in zip(names, await all_of(tasks), strict=True):
                was_made = is_new(store, name)
                acknowledged = isinstance(result, str)
                assert acknowledged or isinstance(result, asyncio.CancelledError)
                assert was_made or not acknowledged
                assert was_made is (name in writers.begun)
                ends["acknowledged" if acknowledged else "made" if was_made else "dropped"] += 1
            assert at_the_end == [True] * 6
            assert waiting(store) == 0
            assert_quiet(store)
    assert min(ends.values()) > 0


async def test_a_store_that_is_closed_ends_the_groups_under_way_and_refuses_the_rest(
    tmp_path: Path, disk: Disk
) -> None:
    store = FileSystemSessionStore(tmp_path / "s", workers=1)
    names = await prepare(store, MANY + 10)
    with held_back(store):
        tasks = await queued(store, names)
        disk.stop()
    await until(lambda: disk.waiting == 1)
    threads = list(store._workers._threads)
    closing = [asyncio.ensure_future(store.aclose()) for _ in range(2)]
    await asyncio.sleep(0)
    tasks.append(asyncio.ensure_future(change(store, "late-1")))
    disk.go_on()
    results = await all_of(tasks)
    await all_of(closing)
    assert {type(result) for result in results[:MANY]} == {str}
    assert {type(result) for result in results[MANY:]} == {SessionTaskError}
    assert [is_new(store, name) for name in names] == [n < MANY for n in range(len(names))]
    for thread in threads:
        thread.join(_SECONDS)
        assert not thread.is_alive()
    assert all(lock_is_free(path) for path in store.dir.glob("*.lock"))


def test_two_loops_in_two_threads_lead_groups_of_one_store_at_the_same_time(
    tmp_path: Path, disk: Disk
) -> None:
    store = FileSystemSessionStore(tmp_path / "s", workers=2)
    rounds, count = scaled(6), 24

    async def work(who: int) -> None:
        for number in range(rounds):
            tasks = [
                asyncio.ensure_future(store.append(name, LoopRecord(f"{who}.{number}", name, "a")))
                for name in names
            ]
            tasks += [
                asyncio.ensure_future(store.save(session(f"own-{who}-{k}", NEW)))
                for k in range(count)
            ]
            gone = -1 - number % count  # one of the saves
            tasks[gone].cancel()
            results = await all_of(tasks)
            assert isinstance(results.pop(gone), asyncio.CancelledError)
            assert {type(result) for result in results} == {str}

    with loops(2) as both:
        names = both[0].run(prepare(store, count))
        for call in [one.start(work(who)) for who, one in enumerate(both)]:
            call.result(60)
        assert waiting(store) == 0
        wanted = {OLD, *(f"{who}.{number}" for who in range(2) for number in range(rounds))}
        for name in names:
            found = load_session(name, store.dir).loops.ids()
            assert len(found) == len(set(found))
            assert set(found) == wanted
        assert_quiet(store)
        both[1].run(store.aclose())


@pytest.mark.parametrize("collected", ["at once", "later"])
def test_a_loop_that_is_closed_while_its_calls_wait_leaves_the_others_to_go_on(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture, collected: str
) -> None:
    caplog.set_level(logging.CRITICAL)  # tasks that are destroyed are told of
    store = FileSystemSessionStore(tmp_path / "s", workers=2)
    kept: list[Any] = []
    with loops(2) as (one, other):
        names = other.run(prepare(store, 8))

        async def leave(some: list[str]) -> None:
            kept.extend(asyncio.ensure_future(change(store, name)) for name in some)
            await asyncio.sleep(0)

        disk.stop()
        one.run(leave(names[:1]))
        eventually(lambda: disk.waiting == 1)
        one.run(leave(names[1:6]))
        eventually(lambda: waiting(store) == 5)
        going_on = [other.start(change(store, name)) for name in names[6:]]
        eventually(lambda: disk.waiting == 2)  # each loop has its own leader
        one.vanish()
        if collected == "at once":
            kept.clear()
            gc.collect()
        disk.go_on()
        assert all(isinstance(call.result(_SECONDS), str) for call in going_on)
        # Nobody is there to hear that the writer is over which a thread had begun.
        eventually(lambda: all(lock_is_free(lock_path(store, name)) for name in names))
        assert [is_new(store, name) for name in names] == [n in (0, 6, 7) for n in range(8)]
        for name in names:
            other.run(store.save(session(name, NEW)), seconds=_SECONDS)
        kept.clear()
        gc.collect()
        assert_quiet(store)
        other.run(store.aclose())
