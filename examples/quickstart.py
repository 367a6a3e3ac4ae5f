"""Save, load, list and race: on a session as phi-core writes it, with several processes."""

import asyncio
import json
import shutil
import tempfile
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

from phi_sessions import FileSystemSessionStore, LoopRecord, Session, SessionConflictError

FROM_PHI_CORE = Path(__file__).parent / "data" / "session.json"
WRITERS, ADDITIONS = 4, 10


async def look_around(directory: Path) -> None:
    written = json.loads(FROM_PHI_CORE.read_bytes())
    path = Path(shutil.copy(FROM_PHI_CORE, directory / f"{written['session_id']}.json"))
    async with FileSystemSessionStore(directory) as store:
        session = await store.load(written["session_id"])
        print(f"loaded   {session.agent_id}: {session.total_usage().total_tokens} tokens")
        written["revision"] = await store.save(session)
        print(f"saved    every value as it was: {json.loads(path.read_bytes()) == written}")
        await store.save(Session("chat", "helper"))
        print(f"listed   {await store.list_ids()}")
        stale, fresh = await store.load("chat"), await store.load("chat")
        await store.save(fresh)
        try:
            await store.save(stale)
        except SessionConflictError:
            print("refused  a stale save")


async def write(directory: Path, writer: int) -> int:
    async with FileSystemSessionStore(directory) as store:
        added = 0
        while added < ADDITIONS:
            session = await store.load("chat")
            session.loops.append(LoopRecord(f"{writer}.{added}", "chat", "helper"))
            with suppress(SessionConflictError):  # somebody else saved first: load and add again
                await store.save(session)
                added += 1
        return len((await store.load("chat")).loops)


def start_writer(directory: Path, writer: int) -> int:
    return asyncio.run(write(directory, writer))


def main() -> None:
    with tempfile.TemporaryDirectory() as name, get_context("spawn").Pool(WRITERS) as pool:
        asyncio.run(look_around(Path(name)))
        kept = max(pool.starmap(start_writer, [(Path(name), n) for n in range(WRITERS)]))
        print(f"raced    {WRITERS} processes: {kept} of {WRITERS * ADDITIONS} additions kept")


if __name__ == "__main__":
    main()
