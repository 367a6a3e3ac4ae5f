"""A process that forks while its threads save."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import scaled
from safety_checks import in_flight, lock_is_free, number, version

from phi_sessions import FileSystemSessionStore

PROGRAMS = Path(__file__).with_name("safety_programs.py")

if not hasattr(os, "fork"):
    pytest.skip("this system has no fork", allow_module_level=True)


def run(program: str, directory: Path, *args: object) -> str:
    """Run a program to its end and return what it printed."""
    done = subprocess.run(
        [sys.executable, str(PROGRAMS), program, str(directory), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def assert_all_is_whole(directory: Path) -> None:
    async def check() -> None:
        async with FileSystemSessionStore(directory, lock_timeout=1) as store:
            for session_id in await store.list_ids():
                session = await store.load(session_id)
                if session.metadata:
                    number(session)
                await store.save(session)

    assert all(lock_is_free(path) for path in directory.glob("*.lock"))
    asyncio.run(check())
    assert in_flight(directory) == []


def test_a_child_forked_while_its_parent_saves_can_use_the_same_store(tmp_path: Path) -> None:
    run("fork_while_saving", tmp_path, scaled(20))
    assert_all_is_whole(tmp_path)


def test_a_child_forked_while_its_parent_saves_in_memory_can_use_the_same_store(
    tmp_path: Path,
) -> None:
    run("fork_from_a_thread_while_saving_in_memory", tmp_path, scaled(60))


def test_idle_children_born_during_a_save_do_not_keep_the_lock(tmp_path: Path) -> None:
    assert run("fork_idle_children", tmp_path, scaled(15)).startswith("born in a save:")
    assert_all_is_whole(tmp_path)


def test_an_idle_child_does_not_keep_the_lock_of_a_parent_that_was_killed(tmp_path: Path) -> None:
    for n in range(scaled(12)):
        directory = tmp_path / str(n)
        parent = subprocess.Popen(
            [sys.executable, str(PROGRAMS), "fork_and_be_killed", str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert parent.stdin is not None
        assert parent.stdout is not None
        try:
            assert parent.wait(20) == -signal.SIGKILL
            assert parent.stdout.readline() == "idle\n"
            asyncio.run(save_and_sweep(directory))  # while the child is alive
        finally:
            parent.stdin.close()
            parent.stdout.read()
            parent.stdout.close()


async def save_and_sweep(directory: Path) -> None:
    async with FileSystemSessionStore(directory, lock_timeout=1) as store:
        number(await store.load("s-1"))
        await store.save(version(1))
        assert await store.list_ids() == ["s-1"]
        assert in_flight(directory) == []


@pytest.mark.parametrize("milliseconds", [0, 1, 3, 6, 10, 20, 40])
def test_a_child_forked_during_the_very_first_save_can_use_the_same_store(
    tmp_path: Path, milliseconds: int
) -> None:
    run("fork_during_the_first_save", tmp_path, milliseconds)
    assert_all_is_whole(tmp_path)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_multiprocessing_lose_nothing(tmp_path: Path, method: str) -> None:
    run("work_in_processes", tmp_path, method)
    assert_all_is_whole(tmp_path)
