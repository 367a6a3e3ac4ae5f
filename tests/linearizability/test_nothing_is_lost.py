"""Many processes change one session: all that they did is there, and nobody saw an error."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from conftest import scaled
from lin_history import ID
from lin_processes import TIMEOUT, workers

from phi_sessions import FileSystemSessionStore, LoopRecord, Session

PROCESSES = 8
EACH = 100


@pytest.mark.parametrize("job", ["update", "append"])
async def test_nothing_that_eight_processes_do_is_lost(tmp_path: Path, job: str) -> None:
    names = [f"p{number}" for number in range(PROCESSES)]
    each = scaled(EACH)
    async with FileSystemSessionStore(tmp_path) as store:
        await store.save(Session(ID, "agent"))
        order = {"directory": str(tmp_path), "job": job, "count": each}
        with workers([{**order, "name": name} for name in names]) as processes:
            codes = await asyncio.to_thread(lambda: [p.wait(TIMEOUT) for p in processes])
        assert codes == [0] * PROCESSES
        session = await store.load(ID)
        ids = session.loops.ids()
        assert len(ids) == PROCESSES * each
        for name in names:  # each in the order in which it was asked for, and once
            own = [loop_id for loop_id in ids if loop_id.startswith(f"{name}.")]
            assert own == [f"{name}.{number}" for number in range(each)]
        if job == "update":
            assert session.metadata["count"] == PROCESSES * each
        assert await store.check() == []


async def test_a_reader_sees_every_state_in_order(tmp_path: Path) -> None:
    writers, each = 2, scaled(5_000)
    jobs = ["append", "append and compact"]
    orders: list[dict[str, Any]] = [
        {"directory": str(tmp_path), "job": job, "name": f"p{n}", "count": each, "small": 1_000}
        for n, job in enumerate(jobs)
    ]
    first = [LoopRecord(f"first.{n}", ID, "agent", metadata="x" * 200) for n in range(500)]
    async with FileSystemSessionStore(tmp_path) as store:
        await store.save(Session(ID, "agent", loops=first))
        seen: list[str] = []
        states = folds = 0
        inode = (tmp_path / f"{ID}.json").stat().st_ino
        with workers(orders) as processes:
            is_last = False
            while not is_last:
                is_last = all(process.poll() is not None for process in processes)
                ids = (await store.load(ID)).loops.ids()
                assert ids[: len(seen)] == seen
                states += len(ids) > len(seen)
                seen = ids
                now = (tmp_path / f"{ID}.json").stat().st_ino
                folds += now != inode
                inode = now
            assert [process.returncode for process in processes] == [0] * writers
        assert len(seen) == len(first) + writers * each
        assert len(set(seen)) == len(seen)
        assert states > each // 50
        assert folds > each // 200
