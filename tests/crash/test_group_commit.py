"""Writers that go to the disk together get what each would get alone."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import scaled
from crash_children import KILLED
from crash_sessions import lock_is_free
from crash_tails import loop
from group_children import WRITERS, start
from group_scenes import (
    DONE,
    GROUP,
    GROUP_IDS,
    NEW,
    Journal,
    Operation,
    assert_durable_when_it_returned,
    changes,
    count_hops,
    held_back,
    in_one_group,
    kind_of,
    lock_names,
    names,
    opened,
    prepare,
    session,
    stored,
    until,
    waiting,
)

from phi_sessions import (
    Expect,
    FileSystemSessionStore,
    SessionConflictError,
    SessionCorruptError,
    SessionEncodeError,
    SessionExistsError,
    SessionNotFoundError,
)
from phi_sessions.stores.filesystem import committer, disk


@pytest.fixture(autouse=True)
def large_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of 64, also where few files may be open: here they are made one after another."""
    monkeypatch.setattr(disk, "most_descriptors", lambda: 10_000)


@pytest.mark.parametrize("together", [True, False], ids=["one-group", "as-they-come"])
async def test_nothing_is_acknowledged_before_it_is_durable(tmp_path: Path, together: bool) -> None:
    counts = {"save": 16, "create": 16, "append": WRITERS, "start": 8, "delete": 8}
    async with FileSystemSessionStore(tmp_path / "s", workers=1 if together else 4) as store:
        await prepare(store, counts)
        hops = count_hops(store)
        with Journal() as journal:
            calls = changes(store, counts)
            if together:
                results = await in_one_group(store, journal, calls)
            else:
                tasks = [journal.noted(*item) for item in calls.items()]
                results = dict(zip(calls, await asyncio.gather(*tasks), strict=True))
        assert not [result for result in results.values() if isinstance(result, Exception)]
        for session_id in calls:
            assert_durable_when_it_returned(journal, session_id)
            assert await stored(store, session_id) == DONE.get(kind_of(session_id))
        flushed = sum(o.brings_entries for o in journal.operations)
        if together:
            assert len(hops) - len(calls) <= 1 + 1 + 1  # loads; the gate, 64 calls and the rest
            assert flushed <= 4  # two for each group: for deletions, and for all others
        else:
            assert flushed < WRITERS


async def test_a_flush_of_the_directory_that_began_too_early_is_not_shared_by_another_group(
    tmp_path: Path,
) -> None:
    began, go_on = threading.Event(), threading.Event()

    def slow(operation: Operation) -> None:
        if operation.brings_entries and not began.is_set():
            began.set()
            assert go_on.wait(30)

    async with FileSystemSessionStore(tmp_path / "s", workers=2) as store:
        await store.save(session("first"))
        with Journal(slow) as journal:
            try:
                early = asyncio.create_task(journal.noted("save-0", store.save(session("save-0"))))
                await until(began.is_set, "a flush")
                async with asyncio.timeout(15):
                    late = await journal.noted("save-1", store.save(session("save-1")))
                assert not early.done()
            finally:
                go_on.set()
            assert {type(late), type(await early)} == {str}
        for session_id in ("save-0", "save-1"):
            assert_durable_when_it_returned(journal, session_id)


@contextmanager
def held_by_another_process(path: Path) -> Iterator[Callable[[], None]]:
    """Hold a lock file in another process; give a function that ends it early."""
    code = "import fcntl,os,sys; fcntl.flock(os.open(sys.argv[1], 2), 2); print(); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        yield process.kill
    finally:
        process.kill()
        process.communicate()


async def test_refused_calls_in_the_middle_of_a_group_disturb_nobody(tmp_path: Path) -> None:
    async with opened(tmp_path / "s", max_bytes=20_000) as store:
        await prepare(store, GROUP)
        for name in ("exists", "damaged", "stale", "stale-append"):
            await store.save(session(name, "0"))
        stale, other = await store.load("stale"), await store.load("stale-append")
        for name in ("stale", "stale-append"):
            await store.append(name, loop("1", session_id=name))
        (store.dir / "damaged.json").write_text('{"session_id":')
        foreign = loop("x", session_id="stale-append")
        lost = loop("x", session_id="absent")
        large = session("large")
        large.loops.append(loop("x", 30_000, "large"))
        good = list(changes(store, GROUP).items())
        refused: dict[str, tuple[Awaitable[Any], type[Exception]]] = {
            "stale": (store.save(stale), SessionConflictError),
            "stale-append": (store.append(other, foreign), SessionConflictError),
            "exists": (store.save(session("exists"), expect=Expect.ABSENT), SessionExistsError),
            "large": (store.save(large), SessionEncodeError),
            "absent": (store.append("absent", lost), SessionNotFoundError),
            "absent-2": (store.delete("absent-2"), SessionNotFoundError),
            "damaged": (store.delete("damaged"), SessionCorruptError),
        }
        calls = dict(good[:3])
        for (name, (call, _)), item in zip(refused.items(), good[3:], strict=True):
            calls[name] = call
            calls.update([item])
        with Journal() as journal:
            results = await in_one_group(store, journal, calls)
        for name, (_, error) in refused.items():
            assert type(results[name]) is error
        for name, _ in good:
            assert not isinstance(results[name], Exception), results[name]
            assert_durable_when_it_returned(journal, name)
            assert await stored(store, name) == DONE.get(kind_of(name))
        assert await stored(store, "stale") == ["0", "1"]
        assert await stored(store, "exists") == ["0"]


async def test_a_group_is_not_held_up_by_a_session_that_another_process_holds(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path / "s", lock_timeout=20) as store:
        await prepare(store, GROUP)
        contended = ["append-0", "save-1"]
        with ExitStack() as locks:
            first, second = (
                locks.enter_context(held_by_another_process(store.dir / f"{name}.json.lock"))
                for name in contended
            )
            with Journal() as journal:
                with held_back(store):
                    tasks = {
                        name: asyncio.create_task(journal.noted(name, call))
                        for name, call in changes(store, GROUP).items()
                    }
                    await until(lambda: waiting(store) == len(tasks), "a queue of all")
                blocked = [tasks.pop(name) for name in contended]
                async with asyncio.timeout(15):
                    results = await asyncio.gather(*tasks.values())
            assert not any(task.done() for task in blocked)
            assert not [result for result in results if isinstance(result, Exception)]
            for name in tasks:
                assert_durable_when_it_returned(journal, name)
            second()
            assert isinstance(await blocked[1], str)
            assert not blocked[0].done()
            first()
            assert isinstance(await blocked[0], str)
        for name in GROUP_IDS:
            assert await stored(store, name) == DONE.get(kind_of(name))


class Slow:
    """Has the disk take its time for the files of one session."""

    def __init__(self, *session_ids: str) -> None:
        self.waiting: set[str] = set()
        self.go_on = threading.Event()
        self._session_ids = session_ids

    def __call__(self, operation: Operation) -> None:
        if operation.is_sync and operation.session_id in self._session_ids:
            self.waiting.add(operation.session_id)
            assert self.go_on.wait(30)


@pytest.mark.parametrize("blocked", [1, 3])
async def test_a_slow_disk_under_one_group_does_not_hold_up_those_who_come_later(
    tmp_path: Path, blocked: int
) -> None:
    slow = Slow(*names("slow", blocked))
    async with FileSystemSessionStore(tmp_path / "s", workers=4) as store:
        await store.save(session("first"))
        with Journal(slow):
            try:
                held = []
                for name in names("slow", blocked):  # each in a group of its own
                    held.append(asyncio.create_task(store.save(session(name))))
                    await until(lambda name=name: name in slow.waiting, "a wait")
                async with asyncio.timeout(20):
                    for start in range(3):
                        ids = names(f"late-{start}", 10)
                        await asyncio.gather(*(store.save(session(name, NEW)) for name in ids))
                assert not any(task.done() for task in held)
            finally:
                slow.go_on.set()
            assert len(await asyncio.gather(*held)) == blocked


async def test_when_every_thread_is_held_up_the_next_one_that_is_free_takes_all_who_wait(
    tmp_path: Path,
) -> None:
    slow = Slow(*names("slow", 2))
    async with FileSystemSessionStore(tmp_path / "s", workers=2) as store:
        await store.save(session("first"))
        with Journal(slow):
            try:
                held = []
                for name in names("slow", 2):
                    held.append(asyncio.create_task(store.save(session(name))))
                    await until(lambda name=name: name in slow.waiting, "a wait")
                late = [asyncio.create_task(store.save(session(name))) for name in names("l", 30)]
                await until(lambda: waiting(store) == 30, "a queue of all")
                hops = count_hops(store)
            finally:
                slow.go_on.set()
            async with asyncio.timeout(20):
                await asyncio.gather(*held, *late)
            assert len(hops) <= 4


@pytest.mark.parametrize("workers", [1, 4])
async def test_as_many_groups_as_it_takes_follow_each_other_without_a_pause(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody looks by itself whether it is time to lead: who is not told would wait for ever.
    monkeypatch.setattr(committer, "_PATIENCE", 3600.0)
    slow = Slow("first")
    async with FileSystemSessionStore(tmp_path / "s", workers=workers) as store:
        with Journal(slow):
            first = asyncio.create_task(store.save(session("first")))
            await until(lambda: bool(slow.waiting), "a wait")
            ids = names("s", 64 + 64 + 10)
            tasks = [asyncio.create_task(store.save(session(name))) for name in ids]
            await until(lambda: waiting(store) == len(ids), "a queue of all")
            hops = count_hops(store)
            slow.go_on.set()
            async with asyncio.timeout(20):
                await asyncio.gather(first, *tasks)
        assert len(hops) == 3


async def test_a_writer_whose_call_found_no_way_to_a_thread_is_not_run_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise MemoryError

    async with FileSystemSessionStore(tmp_path / "s") as store:
        await store.save(session("first"))
        with monkeypatch.context() as patch:
            patch.setattr(store._workers, "submit", broken)
            with pytest.raises(MemoryError):
                await store.save(session("refused"))
        await store.save(session("last"))
        assert waiting(store) == 0
        assert await stored(store, "refused") is None


def acknowledged(directory: Path, chance: random.Random) -> dict[str, int]:
    """Have a process change sessions, kill it, and return how many changes of each it told of."""
    process = start("change", directory)
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    said: dict[str, int] = {}
    try:
        assert process.stdout is not None
        left = chance.choice((1, 10, 100, 400, 800))
        for line in process.stdout:
            name, number = line.split()
            assert int(number) == said.get(name, int(number) - 1) + 1
            said[name] = int(number)
            left -= 1
            if left == 0:
                time.sleep(chance.uniform(0, 0.004))  # somewhere between one group and the next
                process.kill()
        assert process.wait(30) == KILLED, process.stderr and process.stderr.read()
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()
    return said


async def test_a_killed_process_loses_no_acknowledged_change_and_makes_none_twice(
    tmp_path: Path,
) -> None:
    chance = random.Random(7)
    last = dict.fromkeys(names("s", WRITERS), -1)
    told = unheard = 0
    for _ in range(scaled(8)):
        said = await asyncio.to_thread(acknowledged, tmp_path / "s", chance)
        told += len(said)
        async with FileSystemSessionStore(tmp_path / "s", lock_timeout=1) as store:
            for name in names("s", WRITERS):
                found = await stored(store, name) or []
                assert found == [str(number) for number in range(len(found))]
                least = said.get(name, last[name]) + 1
                assert least <= len(found) <= least + 1  # at most the one that was not told yet
                unheard += len(found) > least
                last[name] = len(found) - 1
            kinds = {str(finding.kind) for finding in await store.check()}
            assert kinds <= {"torn tail", "leftover", "set aside"}
            assert all(lock_is_free(store.dir, name) for name in lock_names(store.dir))
    assert told > WRITERS
    assert unheard > 0  # kills fell into groups, not between them


def test_a_child_forked_while_a_group_is_under_way_can_use_the_store(tmp_path: Path) -> None:
    process = start("fork", tmp_path / "s")
    try:
        _, said = process.communicate(timeout=100)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, said) == (0, "")
