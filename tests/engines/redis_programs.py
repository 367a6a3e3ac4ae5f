"""Programs that the Redis tests run as processes of their own: PROGRAM URL [ARGUMENTS]."""

from __future__ import annotations

import asyncio
import os
import sys

from redis_checks import a_session, add_one, number

from phi_sessions import SessionIOError
from phi_sessions.stores.redis import RedisSessionStore


async def count(url: str, times: str) -> None:
    """Add one to `s-1` so many times; another process may try again and again meanwhile."""
    async with RedisSessionStore(url) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(int(times)):
            await store.update("s-1", add_one, attempts=10_000)


async def write(url: str, name: str) -> None:
    """Save ever higher numbers, telling each that was acknowledged, until the input ends."""
    loop = asyncio.get_running_loop()
    ended = loop.run_in_executor(None, sys.stdin.read)
    async with RedisSessionStore(url, timeout=5) as store:
        n = 0
        while not ended.done():
            n += 1
            session = a_session(name, n=n, size=3)
            try:
                await store.save(session)
            except SessionIOError as error:
                print("failed", type(error).__name__, n, flush=True)
                await asyncio.sleep(0.02)
            else:
                print("saved", n, flush=True)


async def hold(url: str, expiry: str) -> None:
    """Hold the lease of `s-1` until the end."""
    store = RedisSessionStore(url, lease_expiry=float(expiry))
    async with store.lease("s-1", owner="the child"):
        print("held", flush=True)
        await asyncio.Event().wait()


def fork(url: str) -> None:
    """Fork while a store is in use; parent and child go on with it."""
    store = RedisSessionStore(url)

    async def save(n: int) -> None:
        await store.save(a_session(f"s-{n}", n=n))
        assert number(await store.load(f"s-{n}")) == n

    async def save_and_fork() -> None:
        await asyncio.gather(*map(save, range(10)))
        saving = [asyncio.ensure_future(save(n)) for n in range(10)]
        await asyncio.sleep(0)
        if os.fork() == 0:
            # The child has this loop's memory, but not its thread of control.
            os._exit(_in_a_thread(save, 100))
        await asyncio.gather(*saving)
        await asyncio.gather(*map(save, range(10, 20)))
        _, status = os.wait()
        assert status == 0, f"the child ended with {status}"
        await save(20)

    asyncio.run(save_and_fork())
    if os.fork() == 0:
        asyncio.run(save(200))
        asyncio.run(save(201))
        asyncio.run(store.aclose())
        sys.exit()
    _, status = os.wait()
    assert status == 0, f"the second child ended with {status}"
    asyncio.run(save(21))
    asyncio.run(store.aclose())
    print("done")


def _in_a_thread(save, n: int) -> int:  # type: ignore[no-untyped-def]
    import threading

    failures: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(save(n))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    for failure in failures:
        print(repr(failure), file=sys.stderr)
    return len(failures) or thread.is_alive()


def exit_unclosed(url: str) -> None:
    """End without closing the store, twice over."""
    store = RedisSessionStore(url)
    for n in range(3):
        asyncio.run(store.save(a_session(n=n)))
    print("done")


PROGRAMS = {
    "count": count,
    "write": write,
    "hold": hold,
    "fork": fork,
    "exit_unclosed": exit_unclosed,
}

if __name__ == "__main__":
    result = PROGRAMS[sys.argv[1]](*sys.argv[2:])
    if result is not None:
        asyncio.run(result)
