"""Many tasks of one process that all want one session."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from conftest import scaled
from lock_holders import holding, python_flock

from phi_sessions import Expect, FileSystemSessionStore, LoopRecord, Session

TASKS = 100


def _sized(session_id: str, number: int, size: int) -> Session:
    session = Session(session_id, "agent", metadata={"number": number})
    if size:
        record = LoopRecord("loop", session_id, "agent")
        record.messages.append({"role": "user", "content": "x" * size})
        session.loops.append(record)
    return session


async def _save_all(store: FileSystemSessionStore, sizes: list[int]) -> list[int]:
    """Save one session from as many tasks, and return the order in which they came through."""
    through: list[int] = []

    async def save(number: int) -> None:
        await store.save(_sized("shared", number, sizes[number]), expect=Expect.ANYTHING)
        through.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(len(sizes)):
            group.create_task(save(number))
    return through


async def test_a_hundred_tasks_save_one_session_in_the_order_of_their_calls(
    file_store: FileSystemSessionStore,
) -> None:
    for _ in range(scaled(5)):
        assert await _save_all(file_store, [0] * TASKS) == list(range(TASKS))
        assert (await file_store.load("shared")).metadata == {"number": TASKS - 1}


async def test_the_order_holds_when_they_had_to_wait_for_another_process(
    file_store: FileSystemSessionStore,
) -> None:
    await file_store.save(Session("shared", "agent"))
    with holding(python_flock(file_store.dir / "shared.json.lock", 0.5)):
        assert await _save_all(file_store, [0] * TASKS) == list(range(TASKS))
    assert (await file_store.load("shared")).metadata == {"number": TASKS - 1}


async def test_a_large_save_is_not_overtaken_by_small_ones_that_were_called_later(
    file_store: FileSystemSessionStore,
) -> None:
    # A large session is encoded record by record, and the loop runs other tasks in between.
    large = Session("shared", "agent", metadata={"number": 0})
    for number in range(40):
        record = LoopRecord(f"loop {number}", "shared", "agent")
        record.messages += [{"role": "user", "content": f"{number} {n}" * 50} for n in range(200)]
        large.loops.append(record)
    through: list[int] = []

    async def save(session: Session, number: int) -> None:
        await file_store.save(session, expect=Expect.ANYTHING)
        through.append(number)

    async with asyncio.TaskGroup() as group:
        group.create_task(save(large, 0))
        for number in range(1, 10):
            group.create_task(save(_sized("shared", number, 0), number))
    assert through == list(range(10))
    assert (await file_store.load("shared")).metadata == {"number": 9}


async def test_many_sessions_do_not_wait_for_each_other_and_keep_their_order(
    file_store: FileSystemSessionStore,
) -> None:
    through: dict[str, list[int]] = {}

    async def save(session_id: str, number: int) -> None:
        await file_store.save(_sized(session_id, number, 0), expect=Expect.ANYTHING)
        through.setdefault(session_id, []).append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(10):
            for session_id in ("a", "b", "c", "d", "e"):
                group.create_task(save(session_id, number))
    assert through == {session_id: list(range(10)) for session_id in "abcde"}


async def test_waiting_tasks_take_no_descriptors_and_no_threads(tmp_path: Path) -> None:
    async with FileSystemSessionStore(tmp_path) as store:
        await store.save(Session("shared", "agent"))

        def descriptors() -> int:
            return len(os.listdir("/proc/self/fd"))

        with holding(python_flock(tmp_path / "shared.json.lock", 60)) as holder:
            before = descriptors()
            tasks = [
                asyncio.create_task(store.save(_sized("shared", n, 0), expect=Expect.ANYTHING))
                for n in range(TASKS)
            ]
            most = 0
            for _ in range(100):  # another session's saves go on: four threads are enough
                await store.save(_sized("other", 0, 0), expect=Expect.ANYTHING)
                most = max(most, descriptors())
            assert not any(task.done() for task in tasks)
            # The head of the queue opens the lock file for each attempt, and nobody else does.
            assert most <= before + 1
            holder.kill()
            await asyncio.gather(*tasks)
    assert not list(Path(tmp_path).glob("*.tmp.*"))
