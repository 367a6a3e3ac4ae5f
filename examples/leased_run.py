"""A run holds its session by a lease: another run of it is told who is there, and waits or goes.

A lease keeps out other leases, and nothing else. Its holder's saves are protected as all saves are.
"""

import asyncio
import os
import tempfile

from phi_sessions import FileSystemSessionStore, LoopRecord, Session, SessionLockedError
from phi_sessions.messages import user_message

STEPS = 3


async def run(store: FileSystemSessionStore, owner: str) -> None:
    session = await store.load("report")
    for step in range(STEPS):
        loop = LoopRecord(f"{owner}.{step}", "report", "writer")
        loop.messages.append(user_message(f"step {step} of {owner}"))
        session.loops.append(loop)
        await store.save(session)
        await asyncio.sleep(0.02)  # the model thinks
    print(f"{owner} run ends after {len(session.loops)} steps")


async def run_later(store: FileSystemSessionStore) -> None:
    async with store.lease("report", owner="second", timeout=60):
        await run(store, "second")


async def run_now_or_not(store: FileSystemSessionStore) -> None:
    try:
        async with store.lease("report", owner="third"):
            await run(store, "third")
    except SessionLockedError as error:
        here = error.holder.pid == os.getpid()
        print(f"third run goes: the {error.holder.owner} has it, in this process: {here}")


async def runs(directory: str) -> None:
    async with FileSystemSessionStore(directory) as store:
        await store.save(Session("report", "writer"))
        async with store.lease("report", owner="first"):
            waiting = asyncio.create_task(run_later(store))
            await run_now_or_not(store)
            await run(store, "first")
        await waiting
        print(", ".join((await store.load("report")).loops.ids()))


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(runs(directory))


if __name__ == "__main__":
    main()
