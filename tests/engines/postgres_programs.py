"""What other processes do in the tests of the PostgreSQL store: PROGRAM URL [ARGUMENT ...]."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import warnings
from collections.abc import Coroutine
from typing import Any

import pytest

from phi_sessions import LoopRecord, Session, SessionLockedError, SessionTaskError
from phi_sessions.stores.postgres import PostgresSessionStore

# A process with threads that forks is warned; that is what is tried here.
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)


async def update(url: str, count: str) -> None:
    """Add one to a number of the session, and one to a loop record of our own, many times."""
    mine = str(os.getpid())
    async with PostgresSessionStore(url, lock_timeout=60) as store:
        for _ in range(int(count)):

            def change(session: Session) -> None:
                session.metadata["count"] += 1
                if mine not in session.loops.ids():
                    session.loops.append(LoopRecord(mine, "s-1", "a", metadata={"count": 0}))
                record = session.loops[session.loops.ids().index(mine)]
                assert record.metadata is not None
                record.metadata["count"] += 1

            await store.update("s-1", change, attempts=10_000)


async def save(url: str, session_id: str) -> None:
    """Save one session."""
    async with PostgresSessionStore(url) as store:
        await store.save(Session(session_id, "a"))


async def hold_lease(url: str, session_id: str, owner: str) -> None:
    """Hold a lease until somebody ends us."""
    async with PostgresSessionStore(url) as store, store.lease(session_id, owner=owner):
        print("held", flush=True)
        await asyncio.sleep(60)


async def hold_lease_and_fork(url: str, session_id: str) -> None:
    """Hold a lease, with a child that idles until its standard input ends."""
    async with PostgresSessionStore(url) as store, store.lease(session_id):
        if os.fork() == 0:
            os.read(0, 1)
            os._exit(0)
        print("held", flush=True)
        await asyncio.sleep(60)


async def fork_while_saving(url: str) -> None:
    """Fork again and again while saves and a lease are under way; each child saves as well."""
    async with PostgresSessionStore(url) as store, store.lease("held"):
        over = False

        async def go_on(name: str) -> None:
            session = Session(name, "a")
            while not over:
                await store.save(session)

        saves = [asyncio.create_task(go_on(f"parent-{n}")) for n in range(4)]
        for n in range(6):
            await asyncio.sleep(0.02)
            child = os.fork()
            if child == 0:
                in_child(store, f"child-{n}")
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
            assert status == 0, status
        over = True
        await asyncio.gather(*saves)
        assert len(await store.list_ids()) == 10
    print("well")


def in_child(store: PostgresSessionStore, name: str) -> None:
    """Use the parent's store in a child that was forked amid a running loop, and end."""
    code = 1
    try:
        asyncio.events._set_running_loop(None)
        asyncio.set_event_loop(None)

        async def use() -> None:
            await store.save(Session(name, "a"))
            assert (await store.load(name)).agent_id == "a"
            with pytest.raises(SessionLockedError) as caught:  # the parent holds it
                async with store.lease("held"):
                    pass
            assert caught.value.holder.pid == os.getppid()
            await store.aclose()

        asyncio.run(use())
        gc.collect()
        code = 0
    finally:
        os._exit(code)


def fork_and_exit(url: str) -> None:
    """Fork children that end the usual way: all is collected then."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(call: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(call, loop).result(30)

    store = PostgresSessionStore(url)
    run(store.save(Session("s-1", "a")))
    lease = store.lease("s-1")
    run(lease.__aenter__())  # type: ignore[arg-type]
    for _ in range(3):
        child = os.fork()
        if child == 0:
            gc.collect()
            sys.exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
        run(store.save(Session("s-1", "a")))
    run(lease.__aexit__(None, None, None))  # type: ignore[arg-type]
    run(store.aclose())
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
    print("well")


async def fork_a_given_pool(url: str) -> None:
    """A child may not use a pool that was made by its parent."""
    import asyncpg

    async with asyncpg.create_pool(url, min_size=1, max_size=2) as pool:
        async with PostgresSessionStore(pool) as store:
            await store.save(Session("s-1", "a"))
            child = os.fork()
            if child == 0:
                asyncio.events._set_running_loop(None)
                try:
                    asyncio.run(store.list_ids())
                except SessionTaskError:
                    os._exit(0)
                os._exit(1)
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
            assert status == 0, status
            await store.load("s-1")
    print("well")


if __name__ == "__main__":
    program = globals()[sys.argv[1]](*sys.argv[2:])
    if isinstance(program, Coroutine):
        asyncio.run(program)
