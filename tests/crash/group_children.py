"""Processes of writers that go to the disk together, to be killed or to fork: JOB DIRECTORY."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from pathlib import Path

from crash_tails import loop
from group_scenes import SECONDS, Journal, in_one_group, names, session, stored, until, waiting

from phi_sessions import FileSystemSessionStore, load_session
from phi_sessions.stores.filesystem import directory as directory_module

WRITERS = 32

_fsync = os.fsync


def start(job: str, directory: Path) -> subprocess.Popen[str]:
    """Start a process that does a job."""
    return subprocess.Popen(
        [sys.executable, __file__, job, str(directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )


async def _change(store: FileSystemSessionStore, session_id: str, chance: random.Random) -> None:
    """Add loops 0, 1, 2 and so on by appends and saves, and say which are acknowledged."""
    found = await store.find(session_id)
    if found is None:
        found = session(session_id)
        await store.save(found)
    for number in itertools.count(len(found.loops)):
        record = loop(str(number), chance.choice((10, 400)), session_id)
        if chance.random() < 0.3:
            found.loops.append(record)
            await store.save(found)
        else:
            await store.append(found, record)
        os.write(1, f"{session_id} {number}\n".encode())


async def change_until_killed(directory: str) -> None:
    """Change sessions, each in a task of its own, and report each change once it is told."""
    directory_module._SMALL = 5_000  # type: ignore[misc]
    async with FileSystemSessionStore(directory, lock_timeout=10) as store:
        chance = random.Random()
        await asyncio.gather(*(_change(store, name, chance) for name in names("s", WRITERS)))


async def fork_under_way(directory: str) -> None:
    """Fork while a group waits for the disk; the child uses the store, and the parent goes on."""
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    go_on = threading.Event()

    def slow(fd: int) -> None:
        assert go_on.wait(SECONDS)
        _fsync(fd)

    async with FileSystemSessionStore(directory, workers=1) as store:
        await asyncio.gather(*(store.save(session(name)) for name in names("s", 8)))
        os.fsync = slow  # type: ignore[assignment]
        with Journal() as journal:
            calls = {name: store.save(session(name, "parent")) for name in names("s", 8)}
            group = asyncio.create_task(in_one_group(store, journal, calls))
            await until(lambda: bool(journal.of("s-7", "write")), "a group under way")
            late = asyncio.create_task(store.save(session("late", "parent")))
            await until(lambda: waiting(store) == 1, "a call that waits")
        pid = os.fork()
        if not pid:
            os.fsync = _fsync
            _be_the_child(store)
        try:
            while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
                await asyncio.sleep(0.002)
            assert ended[1] == 0, f"the child ended with {ended[1]} (14: it hung)"
            assert load_session("s-0", directory).loops.ids() == []  # it did not write for us
        finally:
            go_on.set()
        results = (await group).values()
        assert all(isinstance(result, str) for result in results), results
        await late
        for name in [*names("s", 8), "late"]:
            assert await stored(store, name) == ["parent"]
        assert await stored(store, "child") == ["child", "more"]


def _be_the_child(store: FileSystemSessionStore) -> None:
    async def use() -> None:
        assert waiting(store) == 0  # the parent's calls are not ours
        await asyncio.gather(*(store.save(session(name, "child")) for name in names("c", 8)))
        await store.save(session("child", "child"))
        await store.append("child", loop("more", session_id="child"))
        for name in names("c", 8):
            assert await stored(store, name) == ["child"]
            await store.delete(name)
        await store.aclose()

    signal.alarm(SECONDS)
    code = 1
    try:
        asyncio.run(use())
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


async def use_few_descriptors(directory: str) -> None:
    """Make many changes at once with fewer descriptors than they would take together."""
    import resource  # Windows has none

    async with FileSystemSessionStore(directory) as store:
        await asyncio.gather(*(store.save(session(name)) for name in names("old", 64)))
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
    async with FileSystemSessionStore(directory) as store:
        calls = [store.save(session(name, "new")) for name in names("new", 64)]
        calls += [store.append(name, loop("new", session_id=name)) for name in names("old", 64)]
        await asyncio.gather(*calls)
        for name in names("new", 64) + names("old", 64):
            assert await stored(store, name) == ["new"]


_JOBS = {"few": use_few_descriptors, "change": change_until_killed, "fork": fork_under_way}

if __name__ == "__main__":
    asyncio.run(_JOBS[sys.argv[1]](sys.argv[2]))
