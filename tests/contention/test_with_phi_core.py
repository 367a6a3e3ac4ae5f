"""phi-core writes the same sessions at the same time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from conftest import scaled
from racing_processes import race, racers, script

from phi_sessions import (
    Expect,
    FileSystemSessionStore,
    Session,
    SessionConflictError,
    SessionCorruptError,
    load_session,
)

_SETTLED = 0.04
"""Seconds without a write after which a torn file may be called damaged."""


def _is_of_one_writer(session: Session) -> bool:
    return all(loop.agent_id == session.agent_id for loop in session.loops)


@pytest.mark.parametrize("indent", [None, 2])
async def test_every_load_is_one_writers_whole_session_while_both_programs_write(
    tmp_path: Path, indent: int | None
) -> None:
    count = scaled(150)
    path = tmp_path / "shared.json"
    commands = [
        *(script("phi_core_writer.py", "store", path, f"phi-core {n}", count) for n in range(2)),
        *(script("hammer.py", tmp_path, "shared", f"ours {n}", 1, 20) for n in range(2)),
    ]
    async with FileSystemSessionStore(tmp_path, indent=indent) as store:
        await store.save(Session("shared", "us"))
        loads = 0
        while loads <= 20:  # a busy machine may need more than one race
            with racers(commands) as running:
                for racer in running:
                    racer.go()
                while any(racer.process.poll() is None for racer in running):
                    session = await store.load("shared")
                    assert _is_of_one_writer(session)
                    await store.save(Session("shared", "us"), expect=Expect.ANYTHING)
                    loads += 1
                results = [racer.result() for racer in running]
            assert [result["refused"] for result in results[2:]] == [[], []]
        race([script("phi_core_writer.py", "store", path, "phi-core last", 1)])
        session = await store.load("shared")
        assert session.agent_id == "phi-core last"
        assert _is_of_one_writer(session)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["shared.json", "shared.json.lock"]


@pytest.mark.parametrize("mode", ["store", "legacy"])
async def test_a_save_is_refused_when_phi_core_has_saved_since_the_load(
    tmp_path: Path, mode: str
) -> None:
    async with FileSystemSessionStore(tmp_path) as store:
        session = Session("s", "agent")
        await store.save(session)
        loaded = await store.load("s")
        for number, stale in enumerate((session, loaded)):
            race([script("phi_core_writer.py", mode, tmp_path / "s.json", f"phi {number}", 3)])
            stored = (tmp_path / "s.json").read_bytes()
            with pytest.raises(SessionConflictError) as caught:
                await store.save(stale)
            assert caught.value.expected == stale.revision
            assert (tmp_path / "s.json").read_bytes() == stored
        theirs = await store.load("s")
        assert theirs.agent_id == "phi 1"
        assert caught.value.found == theirs.revision
        await store.save(theirs)  # what was loaded from phi-core's file is fresh


async def test_a_file_that_phi_core_writes_in_place_is_never_called_damaged_meanwhile(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s.json"
    damaged: list[float] = []
    loads = 0
    async with FileSystemSessionStore(tmp_path) as store:
        await store.save(Session("s", "agent"))
        wrote: list[float] = []
        while loads <= 5:  # a busy machine may need more than one race
            command = script("phi_core_writer.py", "legacy", path, "phi", scaled(15))
            with racers([command]) as [writer]:
                writer.go()
                while writer.process.poll() is None:
                    try:
                        if loads % 2:
                            session = await asyncio.to_thread(load_session, "s", tmp_path)
                        else:
                            session = await store.load("s")
                        assert _is_of_one_writer(session)
                    except SessionCorruptError:
                        damaged.append(time.monotonic())
                    loads += 1
                wrote += writer.result()["wrote"]
        assert (await store.load("s")).agent_id == "phi"
    # A writer that was itself stopped for a while, by a busy machine, is not in motion.
    assert [at for at in damaged if any(at - _SETTLED < write < at for write in wrote)] == []


async def test_an_impatient_store_does_not_call_a_file_in_motion_damaged_either(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s.json"
    damaged: list[float] = []
    async with FileSystemSessionStore(tmp_path, lock_timeout=0) as store:
        await store.save(Session("s", "agent"))
        with racers([script("phi_core_writer.py", "legacy", path, "phi", scaled(8))]) as running:
            running[0].go()
            while running[0].process.poll() is None:
                try:
                    await store.load("s")  # takes no lock: there is nothing to time out
                except SessionCorruptError:
                    damaged.append(time.monotonic())
            wrote = running[0].result()["wrote"]
    assert [at for at in damaged if any(at - _SETTLED < write < at for write in wrote)] == []


async def test_a_file_that_stays_torn_is_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    async with FileSystemSessionStore(tmp_path) as store:
        await store.save(Session("s", "agent"))
        race([script("phi_core_writer.py", "torn", path, "phi", 2)])
        torn = path.read_bytes()
        with pytest.raises(SessionCorruptError) as caught:
            await store.load("s")
        assert caught.value.path == str(path)
        with pytest.raises(SessionCorruptError):
            load_session("s", tmp_path)
        with pytest.raises(SessionCorruptError):
            await store.save(Session("s", "agent"))
        assert path.read_bytes() == torn
