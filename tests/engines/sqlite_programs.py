"""Programs that the tests of the SQLite store run in processes of their own: NAME PATH [ARG]."""

from __future__ import annotations

import asyncio
import faulthandler
import multiprocessing
import os
import signal
import sqlite3
import sys
import traceback
import warnings
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from sqlite_samples import number, record, version

from phi_sessions import LoopRecord, Session, SessionError, SessionIOError
from phi_sessions.stores.sqlite import SQLiteSessionStore

# A process with threads that forks is warned; that is what is tried here.
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)

CHILD_SECONDS = 20


def ready() -> None:
    """Say so, and wait to be told to go on."""
    print("ready", flush=True)
    sys.stdin.readline()


def patient(path: str) -> SQLiteSessionStore:
    return SQLiteSessionStore(path, lock_timeout=60)


def update(path: str, name: str, count: str) -> None:
    """Add so many records of one's own to one session, each by `update`."""

    async def main() -> None:
        async with patient(path) as store:
            ready()
            for n in range(int(count)):
                await store.update("s-1", lambda s, n=n: s.loops.append(record(f"{name}.{n}")))

    asyncio.run(main())


def append(path: str, name: str, count: str) -> None:
    """The same by `append`, several at once; each is said when it is acknowledged."""

    async def main() -> None:
        async with patient(path) as store:
            ready()

            async def add(worker: int) -> None:
                for n in range(int(count)):
                    await store.append("s-1", record(f"{name}.{worker}.{n}"))
                    print(f"{name}.{worker}.{n}", flush=True)

            await asyncio.gather(*map(add, range(4)))

    asyncio.run(main())


def save_until_refused(path: str, session_id: str) -> None:
    """Save one version after the other, saying which was acknowledged, until that fails."""

    async def main() -> None:
        async with patient(path) as store:
            n = 0
            while True:
                n += 1
                try:
                    await store.save(version(n, session_id, size=3))
                except SessionError:
                    return
                print(n, flush=True)

    asyncio.run(main())


def open_first(path: str, session_id: str) -> None:
    """Save a session where there may be no database yet."""

    async def main() -> None:
        ready()
        async with patient(path) as store:
            await store.save(version(1, session_id))
            assert session_id in await store.list_ids()

    asyncio.run(main())


def hold(path: str, how: str) -> None:
    """Hold the database as another program would, until told to let go."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=60)
    for statement in how.split(";"):
        connection.execute(statement).fetchall()
    ready()
    connection.close()


def lease(path: str, how: str) -> None:
    """Hold a lease until told to let go."""

    async def main() -> None:
        async with SQLiteSessionStore(path) as store, store.lease("s-1", owner="the holder"):
            child = 0
            if how == "forks":
                child = os.fork()
                if child == 0:
                    os.read(0, 1)  # idle until the test ends
                    os._exit(0)
            print("ready", flush=True)
            print(child, flush=True)
            await asyncio.to_thread(os.read, 0, 1)

    asyncio.run(main())


def as_nobody(path: str, what: str) -> None:
    """Try something without root's rights, and say what came of it."""
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)

    async def main() -> None:
        async with SQLiteSessionStore(path, lock_timeout=1) as store:
            try:
                print("ok", await (store.load("s-1") if what == "load" else store.save(version(2))))
            except SessionIOError as error:
                print(type(error).__name__, error.errno, error.filename)

    asyncio.run(main())


def fork(work: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Fork; the child runs `work` in a loop of its own and exits with 0 if it went well."""
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(CHILD_SECONDS)  # a child that hangs is killed, and says where it hung
    faulthandler.dump_traceback_later(CHILD_SECONDS - 1)
    code = 1
    try:
        asyncio.run(work())
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


async def wait_for(pid: int) -> None:
    """Wait for a child and fail if it failed."""
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            assert status == 0, f"a child ended with {status} (14: it hung)"
            return
        await asyncio.sleep(0.002)


async def use(store: SQLiteSessionStore, own: str) -> None:
    """Use a store in all ways that might not survive a fork."""
    await asyncio.gather(*(store.save(version(n, own, size=3)) for n in range(5)))
    await store.append("shared", LoopRecord(own, "shared", "a"))
    assert own in (await store.load("shared")).loops.ids()
    assert own in await store.list_ids()
    assert own in [info.session_id async for info in store.infos()]
    async with store.lease(own):
        await store.delete(own)


def fork_while_changing(path: str, rounds: str) -> None:
    """Fork again and again while tasks append; parent and children change the same session."""
    store = patient(path)

    async def keep_appending(name: str) -> int:
        n = 0
        while not done:
            await store.append("shared", LoopRecord(f"{name}.{n}", "shared", "a"))
            n += 1
        return n

    done = False

    async def main() -> None:
        nonlocal done
        async with store:
            await store.save(Session("shared", "a"))
            tasks = [asyncio.create_task(keep_appending(name)) for name in "abcd"]
            for n in range(int(rounds)):
                await asyncio.sleep(0.001 * (n % 7))
                first = fork(lambda n=n: use(store, f"child-{n}"))
                second = fork(lambda n=n: use(store, f"another-{n}"))
                await wait_for(first)
                await wait_for(second)
            done = True
            counts = await asyncio.gather(*tasks)
            kept = (await store.load("shared")).loops.ids()
            assert len(kept) == len(set(kept)) == sum(counts) + 2 * int(rounds)
            assert await store.list_ids() == ["shared"]
            print(sum(counts))

    asyncio.run(main())


def locks_of_a_child(path: str) -> None:
    """Say how many locks a forked child holds while its parent has used the store, too."""
    store = patient(path)

    async def main() -> None:
        await store.save(version(1))
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            asyncio.run(child(write))
            os._exit(0)
        os.waitpid(pid, 0)
        print(os.read(read, 10).decode())
        await store.save(version(3))
        await store.aclose()

    async def child(write: int) -> None:
        await store.save(version(2))
        locks = Path("/proc/locks").read_text()
        os.write(write, str(locks.count(f" {os.getpid()} ")).encode())
        await store.aclose()

    asyncio.run(main())


def work_in_processes(path: str, method: str) -> None:
    """Hand a used store's path to processes of multiprocessing, and use it on."""
    store = patient(path)

    async def main() -> None:
        async with store:
            await store.save(Session("s-1", "a"))
            context = multiprocessing.get_context(method)
            children = [context.Process(target=_add_ten, args=(path, n)) for n in range(3)]
            for child in children:
                child.start()
            for n in range(10):
                await store.append("s-1", record(f"parent.{n}"))
            for child in children:
                await asyncio.to_thread(child.join, CHILD_SECONDS)
                assert child.exitcode == 0
            assert len((await store.load("s-1")).loops) == 40

    asyncio.run(main())


def _add_ten(path: str, child: int) -> None:
    async def main() -> None:
        async with patient(path) as store:
            for n in range(10):
                await store.append("s-1", record(f"{child}.{n}"))

    asyncio.run(main())


def leave_unclosed(path: str) -> None:
    """Save, and end without closing."""

    async def main() -> None:
        store = patient(path)
        await store.save(version(1))
        assert number(await store.load("s-1")) == 1
        print("saved")
        globals()["kept"] = store

    warnings.simplefilter("ignore", ResourceWarning)
    asyncio.run(main())


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
