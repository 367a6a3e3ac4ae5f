"""Load, add a loop record, save; again on a conflict: DIRECTORY SESSION_ID NAME ROUNDS."""

from __future__ import annotations

import asyncio
import json
import sys

from phi_sessions import FileSystemSessionStore, LoopRecord, SessionConflictError


async def main(directory: str, session_id: str, name: str, rounds: str) -> None:
    conflicts = 0
    async with FileSystemSessionStore(directory) as store:
        await store.load(session_id)
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(int(rounds)):
            while True:
                session = await store.load(session_id)
                session.loops.append(LoopRecord(f"{name}.{number}", session_id, "agent"))
                session.metadata["rounds"] += 1
                try:
                    await store.save(session)
                    break
                except SessionConflictError:
                    conflicts += 1
    print(json.dumps({"conflicts": conflicts}))


asyncio.run(main(*sys.argv[1:]))
