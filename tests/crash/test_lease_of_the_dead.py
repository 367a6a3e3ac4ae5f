"""A lease is freed by the kernel when its holder dies, and its file tells who holds it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from phi_sessions import FileSystemSessionStore, Session, SessionLockedError

ID = "s"
_HOLDER = """
import asyncio, os, sys
from phi_sessions import FileSystemSessionStore

async def main():
    async with FileSystemSessionStore(sys.argv[1]) as store:
        async with store.lease("s", owner="the holder"):
            child = 0
            if sys.argv[2] == "forks":
                child = os.fork()
                if child == 0:
                    os.read(0, 1)  # idle until the test ends
                    os._exit(0)
            print(child, flush=True)
            await asyncio.get_running_loop().run_in_executor(None, os.read, 0, 1)

asyncio.run(main())
"""


@contextmanager
def _holder(directory: Path, how: str = "stays") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Yield a process that holds the lease, and its forked child, 0 if there is none."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-P", "-c", _HOLDER, str(directory), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    child = 0
    try:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        yield process, child
    finally:
        process.kill()
        if child:
            os.kill(child, signal.SIGKILL)
        process.communicate(timeout=30)


async def _taken_within(store: FileSystemSessionStore, seconds: float) -> None:
    begun = time.monotonic()
    async with store.lease(ID, owner="the next", timeout=seconds):
        pass
    assert time.monotonic() - begun < seconds


async def test_a_second_holder_is_told_of_the_first(file_store: FileSystemSessionStore) -> None:
    with _holder(file_store.dir) as (process, _):
        with pytest.raises(SessionLockedError) as caught:
            async with file_store.lease(ID):
                pytest.fail("there are two holders")
        holder = caught.value.holder
        assert holder is not None
        assert (holder.session_id, holder.owner) == (ID, "the holder")
        assert (holder.pid, holder.host) == (process.pid, socket.gethostname())
        told = json.loads((file_store.dir / f"{ID}.json.lease").read_bytes())
        assert (told["owner"], told["pid"]) == ("the holder", process.pid)


async def test_a_lease_of_another_process_is_no_hindrance_to_changes(
    file_store: FileSystemSessionStore,
) -> None:
    with _holder(file_store.dir):
        session = Session(ID, "agent")
        await file_store.save(session)
        await file_store.save(session)
        await file_store.delete(ID)


async def test_a_holder_that_is_killed_frees_its_lease_at_once(
    file_store: FileSystemSessionStore,
) -> None:
    with _holder(file_store.dir) as (process, _):
        with pytest.raises(SessionLockedError):
            async with file_store.lease(ID):
                pytest.fail("there are two holders")
        process.kill()
        process.wait(30)
        async with file_store.lease(ID, owner="the next"):  # waits for nothing
            told = json.loads((file_store.dir / f"{ID}.json.lease").read_bytes())
            assert (told["owner"], told["pid"]) == ("the next", os.getpid())


async def test_a_waiter_gets_the_lease_of_a_holder_that_is_killed(
    file_store: FileSystemSessionStore,
) -> None:
    with _holder(file_store.dir) as (process, _):
        waiter = asyncio.create_task(_taken_within(file_store, 20))
        done, _ = await asyncio.wait([waiter], timeout=0.1)
        assert not done
        process.kill()
        process.wait(30)
        await waiter


async def test_an_idle_forked_child_does_not_keep_its_dead_parents_lease(
    file_store: FileSystemSessionStore,
) -> None:
    with _holder(file_store.dir, "forks") as (process, child):
        os.kill(child, 0)
        process.kill()
        process.wait(30)
        os.kill(child, 0)  # it lives
        async with file_store.lease(ID):
            pass


async def test_a_forked_child_that_ends_does_not_free_its_parents_lease(
    file_store: FileSystemSessionStore,
) -> None:
    with _holder(file_store.dir, "forks") as (_, child):
        os.kill(child, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while _state(child) not in ("Z", ""):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        with pytest.raises(SessionLockedError):
            async with file_store.lease(ID):
                pytest.fail("there are two holders")


async def test_a_lease_that_was_let_go_can_be_taken_by_another_process(
    file_store: FileSystemSessionStore,
) -> None:
    async with file_store.lease(ID):
        pass
    with _holder(file_store.dir) as (process, _):
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
        process.wait(30)
        assert process.returncode == 0
    await _taken_within(file_store, 5)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""
