"""Two processes share a directory: each question in it is answered once, by who takes it first.

A worker takes a session by saving it as running. When both try at the same moment, one of the two
saves is refused, and that worker goes on to the next.
"""

import asyncio
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import phi_sessions as phi
from phi_sessions.messages import extension_message

QUESTIONS = 100


async def work(directory: str) -> int:
    answered = 0
    async with phi.FileSystemSessionStore(directory) as store:
        for session_id in await store.list_ids():
            session = await store.load(session_id)
            loop = session.loops[0]
            if loop.status != phi.LoopStatus.PENDING:
                continue
            loop.status = phi.LoopStatus.RUNNING
            try:
                await store.save(session)
            except phi.SessionConflictError:
                continue  # the other worker was faster
            loop.messages.append(extension_message("answer", 42))
            loop.status = phi.LoopStatus.COMPLETED
            await store.save(session)
            answered += 1
    return answered


def start_worker(directory: str) -> int:
    return asyncio.run(work(directory))


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        for number in range(QUESTIONS):
            session = phi.Session(f"question-{number}", "asker")
            session.loops.append(phi.LoopRecord("answer", session.session_id, "asker"))
            phi.save_session(session, directory)
        with ProcessPoolExecutor(2, get_context("spawn")) as pool:
            print("answered:", sum(pool.map(start_worker, [directory] * 2)))
        sessions = phi.load_sessions_for_agent("asker", directory)
        print("answered once:", sum(len(session.all_messages()) == 1 for session in sessions))


if __name__ == "__main__":
    main()
