"""Sessions in PostgreSQL: eight workers write notes, and one of them has the session for a report.

Start a server:  docker run --rm -p 5432:5432 -e POSTGRES_PASSWORD=phi postgres:17
Run this:        python examples/store_postgres.py postgresql://postgres:phi@localhost/postgres

The URL may stand in SESSIONS_URL, too; by default it is the server above. It prints

    noted    8 workers: 80 of 80 notes kept
    reports  1 worker has the session, 7 are turned away by the one who has it
"""

import asyncio
import os
import sys
import uuid

from phi_sessions import LoopRecord, Session, SessionLockedError, SupportsLease, open_store
from phi_sessions.messages import user_message

WORKERS, NOTES = 8, 10
DEFAULT = "postgresql://postgres:phi@localhost/postgres"


async def work(url: str, minutes: str, worker: int, all_asked: asyncio.Barrier) -> str:
    async with open_store(url, pool_size=1) as store:  # as if each worker were on its own host
        for number in range(NOTES):
            note = LoopRecord(f"{worker}.{number}", minutes, "scribe")
            note.messages.append(user_message(f"note {number} of worker {worker}"))
            await store.append(minutes, note)
        assert isinstance(store, SupportsLease)
        try:
            async with store.lease(minutes, owner=f"worker {worker}"):
                await all_asked.wait()  # the report is written
                return f"worker {worker}"
        except SessionLockedError as error:
            await all_asked.wait()
            return f"not {error.holder.owner}"


async def run(url: str) -> None:
    minutes, all_asked = f"minutes {uuid.uuid4()}", asyncio.Barrier(WORKERS)
    async with open_store(url) as store:
        await store.save(Session(minutes, "scribe"))
        answers = await asyncio.gather(*(work(url, minutes, n, all_asked) for n in range(WORKERS)))
        kept = len((await store.load(minutes)).loops)
        print(f"noted    {WORKERS} workers: {kept} of {WORKERS * NOTES} notes kept")
        (holder,) = (answer for answer in answers if not answer.startswith("not"))
        away = answers.count(f"not {holder}")
        print(f"reports  1 worker has the session, {away} are turned away by the one who has it")
        await store.delete(minutes)


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("SESSIONS_URL", DEFAULT)
    asyncio.run(run(url))


if __name__ == "__main__":
    main()
