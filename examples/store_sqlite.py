"""Sessions in one SQLite file: four processes add to one session, and no addition is lost.

There is no server to start. The URL is the first argument, or SESSIONS_URL, or names a file in a
temporary directory: python examples/store_sqlite.py sqlite:///sessions.db

It prints

    added    4 processes: 100 of 100 additions kept
    listed   the newest by counter: 100 additions
    deleted  it is there: False
"""

import asyncio
import os
import sys
import tempfile
from multiprocessing import get_context

from phi_sessions import Session, open_store

WRITERS, ADDITIONS = 4, 25


def count(session: Session) -> None:
    session.metadata["count"] = session.metadata.get("count", 0) + 1


async def add(url: str, session_id: str) -> int:
    async with open_store(url, lock_timeout=30.0) as store:
        for _ in range(ADDITIONS):
            await store.update(session_id, count, create=lambda: Session(session_id, "counter"))
        return int((await store.load(session_id)).metadata["count"])


def start_writer(url: str, session_id: str) -> int:
    return asyncio.run(add(url, session_id))


async def show(url: str, session_id: str) -> None:
    async with open_store(url) as store:
        async for info in store.infos(agent_id="counter", limit=1):
            print(f"listed   the newest by {info.agent_id}: {info.metadata['count']} additions")
        await store.delete(session_id)
        print(f"deleted  it is there: {await store.exists(session_id)}")


def main() -> None:
    with tempfile.TemporaryDirectory() as place, get_context("spawn").Pool(WRITERS) as pool:
        default = os.environ.get("SESSIONS_URL", f"sqlite:///{place}/sessions.db")
        url = sys.argv[1] if len(sys.argv) > 1 else default
        session_id = f"tally of {os.getpid()}"
        kept = max(pool.starmap(start_writer, [(url, session_id)] * WRITERS))
        print(f"added    {WRITERS} processes: {kept} of {WRITERS * ADDITIONS} additions kept")
        asyncio.run(show(url, session_id))


if __name__ == "__main__":
    main()
