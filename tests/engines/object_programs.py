"""What child processes do to a bucket: `python object_programs.py NAME URL ARGUMENT ...`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from object_samples import a_loop, a_session

from phi_sessions import SessionIOError
from phi_sessions.stores.object import open_url


async def add(url: str, count: str) -> None:
    """Add one so many times."""
    async with open_url(url) as store:
        for _ in range(int(count)):
            await store.update("s-1", _add_one, attempts=10_000)
    print("done", flush=True)


def _add_one(session: Any) -> None:
    session.metadata["count"] += 1


async def append(url: str, name: str) -> None:
    """Append for ever; tell each loop that is acknowledged, and go on after documented errors."""
    number = 0
    async with open_url(url, timeout=5) as store:
        while True:
            number += 1
            record = a_loop("s-1", 0, text="x" * 3_000)
            record.loop_id = f"{name}.{number}"
            try:
                await store.append("s-1", record)
            except SessionIOError:
                await asyncio.sleep(0.05)
                continue
            print(record.loop_id, flush=True)


async def save(url: str, name: str) -> None:
    """Save new sessions for ever; tell each that is acknowledged."""
    number = 0
    async with open_url(url) as store:
        while True:
            number += 1
            session = a_session(f"{name}-{number}", loops=30, text="x" * 3_000)
            await store.save(session)
            print(session.session_id, flush=True)


async def hold(url: str, expiry: str) -> None:
    """Hold a lease until killed."""
    async with open_url(url, lease_expiry=float(expiry)) as store:
        async with store.lease("s-1", owner="the killed one"):
            print("held", flush=True)
            await asyncio.Event().wait()


def main(name: str, *arguments: str) -> None:
    programs: list[Callable[..., Coroutine[Any, Any, None]]] = [add, append, save, hold]
    asyncio.run({each.__name__: each for each in programs}[name](*arguments))


if __name__ == "__main__":
    main(*sys.argv[1:])
