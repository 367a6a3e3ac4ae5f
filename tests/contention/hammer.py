"""Save one session again and again: DIRECTORY SESSION_ID NAME SECONDS KILOBYTES."""

from __future__ import annotations

import asyncio
import json
import sys
import time

from phi_sessions import (
    Expect,
    FileSystemSessionStore,
    LoopRecord,
    Session,
    SessionLockedError,
)


async def main(directory: str, session_id: str, name: str, seconds: str, kilobytes: str) -> None:
    session = Session(session_id, name)
    record = LoopRecord("loop", session_id, name)
    record.messages.append({"role": "user", "content": "x" * (int(kilobytes) * 1024)})
    session.loops.append(record)
    ends: list[float] = []
    waits: list[float] = []
    refused: list[str] = []
    async with FileSystemSessionStore(directory) as store:
        await store.list_ids()  # its threads run
        print("ready", flush=True)
        sys.stdin.readline()
        begun = time.monotonic()
        while time.monotonic() < begun + float(seconds):
            asked = time.monotonic()
            try:
                await store.save(session, expect=Expect.ANYTHING)
            except SessionLockedError as error:
                refused.append(str(error))
            ends.append(time.monotonic())
            waits.append(ends[-1] - asked)
    print(json.dumps({"begun": begun, "ends": ends, "longest": max(waits), "refused": refused}))


asyncio.run(main(*sys.argv[1:]))
