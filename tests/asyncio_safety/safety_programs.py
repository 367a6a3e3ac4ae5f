"""Programs that the tests of this folder run in processes of their own: NAME DIRECTORY [ARG]."""

from __future__ import annotations

import asyncio
import faulthandler
import fcntl
import multiprocessing
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from safety_checks import lock_is_free, number, version

from phi_sessions import (
    FileSystemSessionStore,
    LoopRecord,
    MemorySessionStore,
    Session,
    SessionConflictError,
    SessionStore,
)

# A process with threads that forks is warned; that is what is tried here.
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)

CHILD_SECONDS = 8


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


async def use(store: SessionStore, own: str) -> None:
    """Use a store in all ways that might not survive a fork."""
    await asyncio.gather(*(store.save(version(n, own, size=3)) for n in range(5)))
    await store.save(version(7, "shared", size=20))
    number(await store.load("shared"))
    assert own in await store.list_ids()
    assert own in [info.session_id async for info in store.infos()]
    await store.delete(own)


async def keep_saving(store: SessionStore, session_id: str, size: int = 20) -> None:
    n = 0
    while True:
        n += 1
        await store.save(version(n, session_id, size=size))
        await asyncio.sleep(0)


async def end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results), results


def fork_while_saving(directory: str, rounds: str) -> None:
    store = FileSystemSessionStore(directory, lock_timeout=10)

    async def main() -> None:
        async with store:
            savers = [
                asyncio.create_task(keep_saving(store, session_id))
                for session_id in ("shared", "shared", "a", "b", "c", "d")
            ]
            for n in range(int(rounds)):
                await asyncio.sleep(0.001 * (n % 7))
                await wait_for(fork(lambda n=n: use(store, f"child-{n}")))
            await end(*savers)
            assert sorted(await store.list_ids()) == ["a", "b", "c", "d", "shared"]

    asyncio.run(main())


def fork_from_a_thread_while_saving_in_memory(directory: str, rounds: str) -> None:
    sys.setswitchinterval(1e-5)
    store = MemorySessionStore()

    async def main() -> None:
        async with store:
            await store.save(version(0, "shared"))
            saver = asyncio.create_task(keep_saving(store, "shared", 1))
            for n in range(int(rounds)):
                pid = await asyncio.to_thread(fork, lambda n=n: use(store, f"child-{n}"))
                await wait_for(pid)
            await end(saver)

    asyncio.run(main())


def fork_idle_children(directory: str, rounds: str) -> None:
    """Children that are born while the lock is held, and do nothing."""
    store = FileSystemSessionStore(directory, lock_timeout=2)
    lock = Path(directory, "s-1.json.lock")

    async def main() -> None:
        born_in_a_save, children = 0, []
        async with store:
            await store.save(version(0))
            saver = asyncio.create_task(keep_saving(store, "s-1", 500))
            while len(children) < int(rounds) or not born_in_a_save:
                while lock_is_free(lock):
                    await asyncio.sleep(0)
                told, tell = os.pipe()
                wait, go_on = os.pipe()
                pid = os.fork()
                if not pid:
                    os.close(go_on)
                    os.write(tell, b"0" if lock_is_free(lock) else b"1")
                    os.read(wait, 1)  # idle until the parent is done
                    os._exit(0)
                os.close(tell)
                os.close(wait)
                born_in_a_save += os.read(told, 1) == b"1"
                os.close(told)
                children.append((pid, go_on))
            await end(saver)
            assert lock_is_free(lock)
            await store.save(version(1))
        for pid, go_on in children:
            os.write(go_on, b"x")
            os.close(go_on)
            await wait_for(pid)
        print("born in a save:", born_in_a_save)

    asyncio.run(main())


def fork_and_be_killed(directory: str) -> None:
    """Fork while the lock is held, and be killed; the child stays until standard input ends."""
    store = FileSystemSessionStore(directory)
    lock = Path(directory, "s-1.json.lock")

    async def main() -> None:
        await store.save(version(0))
        saver = asyncio.create_task(keep_saving(store, "s-1", 500))
        await asyncio.sleep(0.02)
        while lock_is_free(lock):
            await asyncio.sleep(0)
        if os.fork():
            os.kill(os.getpid(), signal.SIGKILL)
        signal.alarm(60)
        print("idle", flush=True)
        sys.stdin.read()
        os._exit(saver.done())

    asyncio.run(main())


def fork_during_the_first_save(directory: str, milliseconds: str) -> None:
    store = FileSystemSessionStore(directory)

    async def main() -> None:
        async with store:
            first = asyncio.create_task(store.save(version(0, "shared", size=50)))
            await asyncio.sleep(float(milliseconds) / 1000)
            await wait_for(fork(lambda: use(store, "child")))
            await first

    asyncio.run(main())


async def add(store: SessionStore, who: str, count: int) -> None:
    for n in range(count):
        while True:
            session = await store.load("shared")
            session.loops.append(LoopRecord(f"{who}.{n}", "shared", "a"))
            try:
                await store.save(session)
                break
            except SessionConflictError:
                continue


inherited_store: FileSystemSessionStore | None = None


def worker(directory: str, who: str, count: int) -> None:
    """Add loops; with the store of the parent when that was inherited."""
    store = inherited_store or FileSystemSessionStore(directory)

    async def main() -> None:
        async with store:
            await add(store, who, count)

    asyncio.run(main())


def work_in_processes(directory: str, method: str) -> None:
    global inherited_store
    store = inherited_store = FileSystemSessionStore(directory)
    count = 20

    async def main() -> None:
        async with store:
            await store.save(Session("shared", "a"))
            context = multiprocessing.get_context(method)
            processes = [
                context.Process(target=worker, args=(directory, f"child-{k}", count))
                for k in range(3)
            ]
            for process in processes:
                process.start()
            await add(store, "parent", count)
            while any(process.is_alive() for process in processes):
                await asyncio.sleep(0.01)
            assert [process.exitcode for process in processes] == [0, 0, 0]
            kept = {record.loop_id for record in (await store.load("shared")).loops}
            names = ("parent", "child-0", "child-1", "child-2")
            assert kept == {f"{who}.{n}" for who in names for n in range(count)}

    asyncio.run(main())


def save_until_interrupted(directory: str, debug: str = "") -> None:
    """Print `SESSION N` after each save."""

    async def save(store: SessionStore, session_id: str) -> None:
        n = 0
        while True:
            n += 1
            await store.save(version(n, session_id, size=100))
            print(session_id, n, flush=True)

    async def main() -> None:
        async with FileSystemSessionStore(directory) as store:
            async with asyncio.TaskGroup() as group:
                for session_id in ("a", "b", "c", "c"):
                    group.create_task(save(store, session_id))

    asyncio.run(main(), debug=bool(debug))


def wait_with_an_open_store(directory: str) -> None:
    async def main() -> None:
        store = FileSystemSessionStore(directory)
        await store.save(version(1))
        print("ready", flush=True)
        await asyncio.sleep(60)

    asyncio.run(main())


def wait_for_a_lock(directory: str) -> None:
    async def main() -> None:
        async with FileSystemSessionStore(directory, lock_timeout=60) as store:
            await store.save(version(1))
            fd = os.open(Path(directory, "s-1.json.lock"), os.O_RDWR)
            fcntl.flock(fd, fcntl.LOCK_EX)
            task = asyncio.create_task(store.save(version(2)))
            await asyncio.sleep(0.05)
            print("ready", flush=True)
            await task

    asyncio.run(main())


def exit_with_an_open_store(directory: str, how: str) -> None:
    async def main() -> None:
        global inherited_store
        store = inherited_store = FileSystemSessionStore(directory)
        await store.save(version(1))
        tasks = [asyncio.create_task(keep_saving(store, f"s-{n}", 200)) for n in range(1, 8)]
        await asyncio.sleep(0.05)
        if how == "SystemExit":
            raise SystemExit(3)
        if how == "end":
            return
        assert tasks
        loop.stop()
        await asyncio.sleep(60)

    if how == "stopped loop":
        loop = asyncio.new_event_loop()
        left = loop.create_task(main())
        loop.run_forever()
        assert not left.done()
        if time.time_ns() % 2:
            loop.close()
    else:
        asyncio.run(main())


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
