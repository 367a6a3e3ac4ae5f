"""Two workers, in processes of their own, write to one session at once, and nothing is lost.

`update` is for a change that depends on what is stored, here a count; it is made again if the other
worker was faster. `append` adds what stands for itself, here an answer; nobody's is ever refused.
"""

import asyncio
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from phi_sessions import FileSystemSessionStore, LoopRecord, Session
from phi_sessions.messages import extension_message

WORKERS, JOBS = 2, 50


def new_ledger() -> Session:
    return Session("ledger", "accountant", metadata={"done": 0})


def count_up(session: Session) -> None:
    session.metadata["done"] += 1


async def work(directory: str, worker: int) -> None:
    async with FileSystemSessionStore(directory) as store:
        for job in range(JOBS):
            await store.update("ledger", count_up, create=new_ledger)
            loop = LoopRecord(f"worker-{worker}.{job}", "ledger", "accountant")
            loop.messages.append(extension_message("answer", {"worker": worker, "job": job}))
            await store.append("ledger", loop)


def start_worker(directory: str, worker: int) -> None:
    asyncio.run(work(directory, worker))


async def look(directory: str) -> None:
    async with FileSystemSessionStore(directory) as store:
        session = await store.load("ledger")
    print(f"counted: {session.metadata['done']} of {WORKERS * JOBS}")
    for worker in range(WORKERS):
        own = [each for each in session.loops.ids() if each.startswith(f"worker-{worker}.")]
        in_order = own == [f"worker-{worker}.{job}" for job in range(JOBS)]
        print(f"worker {worker}: {len(own)} answers, in order: {in_order}")


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        with ProcessPoolExecutor(WORKERS, get_context("spawn")) as pool:
            list(pool.map(start_worker, [directory] * WORKERS, range(WORKERS)))
        asyncio.run(look(directory))


if __name__ == "__main__":
    main()
