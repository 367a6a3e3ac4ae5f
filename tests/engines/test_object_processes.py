"""Many processes on one bucket, some of them killed; the server killed and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import scaled
from object_samples import a_loop, a_session, ids_of

from phi_sessions import SessionIOError, SessionLockedError, SessionTaskError
from phi_sessions.stores.object import ObjectSessionStore, open_url

if TYPE_CHECKING:
    from benchmarks.servers.s3 import S3Server

PROGRAMS = Path(__file__).with_name("object_programs.py")
PATIENCE = 120


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A child process, which is gone afterwards."""
    process = subprocess.Popen(
        [sys.executable, str(PROGRAMS), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROGRAMS.parent,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def told(process: subprocess.Popen[str], lines: int | None = None) -> list[str]:
    """Return what a process printed: so many lines, or the rest of them."""
    assert process.stdout is not None
    if lines is None:
        return process.stdout.read().split()
    return [process.stdout.readline().strip() for _ in range(lines)]


async def test_eight_processes_that_add_lose_nothing(
    s3_url: str, s3_store: ObjectSessionStore
) -> None:
    times = scaled(100)
    await s3_store.save(a_session(metadata={"count": 0}))
    with ExitStack() as stack:
        children = [stack.enter_context(running("add", s3_url, str(times))) for _ in range(8)]
        for child in children:
            assert await asyncio.to_thread(told, child) == ["done"]
    assert (await s3_store.load("s-1")).metadata == {"count": 8 * times}


async def test_what_killed_processes_had_acknowledged_is_there(
    s3_url: str, s3_store: ObjectSessionStore
) -> None:
    await s3_store.save(a_session(loops=0))
    acknowledged: list[str] = []
    saved: list[str] = []
    for turn in range(scaled(3)):
        with (
            running("append", s3_url, f"a{turn}") as one,
            running("save", s3_url, f"b{turn}") as two,
        ):
            acknowledged += await asyncio.to_thread(told, one, 25 + 7 * turn)
            saved += await asyncio.to_thread(told, two, 10)
            one.kill()
            two.kill()
            acknowledged += await asyncio.to_thread(told, one)
            saved += await asyncio.to_thread(told, two)
    loops = ids_of(await s3_store.load("s-1"))
    assert set(acknowledged) <= set(loops)
    assert len(loops) == len(set(loops)) <= len(acknowledged) + scaled(3)
    assert set(saved) <= set(await s3_store.list_ids())
    for session in await s3_store.list_for_agent("agent-1"):
        assert session.session_id == "s-1" or len(session.loops) == 30


async def test_what_a_killed_server_had_acknowledged_is_there_when_it_is_back(
    s3_server: S3Server, s3_url: str
) -> None:
    async with open_url(s3_url, timeout=5) as store:
        await store.save(a_session(loops=0))
        acknowledged: list[str] = []
        documented: list[BaseException] = []
        done = False

        async def append(name: str) -> None:
            number = 0
            while not done:
                number += 1
                record = a_loop("s-1", 0, text="x" * 3_000)
                record.loop_id = f"{name}.{number}"
                try:
                    await store.append("s-1", record)
                    acknowledged.append(record.loop_id)
                except SessionIOError as error:
                    documented.append(error)
                    await asyncio.sleep(0.05)

        tasks = [asyncio.create_task(append(f"t{n}")) for n in range(3)]
        with running("append", s3_url, "other") as child:
            for _ in range(scaled(1)):
                before = len(acknowledged)
                await _until(lambda: len(acknowledged) >= before + 20)  # noqa: B023
                await asyncio.to_thread(told, child, 10)
                s3_server.kill()
                await _until(lambda: len(documented) >= 3)
                s3_server.start()
            before = len(acknowledged)
            await _until(lambda: len(acknowledged) >= before + 10)
            theirs = await asyncio.to_thread(told, child, 20)
        done = True
        await asyncio.gather(*tasks)
        loops = ids_of(await store.load("s-1"))
        assert set(acknowledged) <= set(loops)
        assert set(theirs) <= set(loops)
        assert len(loops) == len(set(loops))


async def _until(condition: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


async def test_the_lease_of_a_killed_process_is_free_when_it_has_run_out(s3_url: str) -> None:
    async with open_url(s3_url) as store:
        with running("hold", s3_url, "1") as child:
            assert await asyncio.to_thread(told, child, 1) == ["held"]
            with pytest.raises(SessionLockedError) as caught:
                async with store.lease("s-1"):
                    pass
            assert caught.value.holder.owner == "the killed one"
            assert caught.value.holder.pid == child.pid
            child.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            async with store.lease("s-1", timeout=30):
                assert 0.5 < time.monotonic() - killed < 10


def test_a_forked_child_is_told_that_obstore_is_not_for_it(s3_url: str) -> None:
    store = open_url(s3_url)
    asyncio.run(store.save(a_session()))
    reader, writer = os.pipe()
    with warnings.catch_warnings():  # of a fork while there are threads, which is the point
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        answer = b"nothing"
        try:
            asyncio.run(store.load("s-1"))
        except SessionTaskError as error:
            answer = str(error).encode()
        finally:
            os.write(writer, answer)
            os._exit(0)
    os.close(writer)
    assert b"forked" in os.read(reader, 1000)
    os.close(reader)
    os.waitpid(child, 0)
    assert len(asyncio.run(store.load("s-1")).loops) == 1
    asyncio.run(store.aclose())


def test_a_store_serves_loops_in_several_threads_and_one_after_the_other(s3_url: str) -> None:
    store = open_url(s3_url)
    failed: list[BaseException] = []

    async def work(name: str) -> None:
        for n in range(scaled(15)):
            await store.append("s-1", a_loop("s-1", hash((name, n))))
            await store.save(a_session(f"{name}-{n}"))
            assert (await store.load(f"{name}-{n}")).agent_id == "agent-1"

    def run(name: str) -> None:
        try:
            asyncio.run(work(name))
        except BaseException as error:
            failed.append(error)

    asyncio.run(store.save(a_session(loops=0)))
    threads = [threading.Thread(target=run, args=(f"thread-{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(asyncio.run(store.list_ids())) == 3 * scaled(15) + 1
    assert len(asyncio.run(store.load("s-1")).loops) == 3 * scaled(15)
    asyncio.run(store.aclose())
