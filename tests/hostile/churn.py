"""Change a directory under its readers until a line comes in: KIND DIRECTORY COUNT SEED.

`resave` saves lasting sessions again and again; `churn` deletes and creates passing ones.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import threading

from phi_sessions import Expect, FileSystemSessionStore, Session, SessionNotFoundError


async def main(kind: str, directory: str, count: str, seed: str) -> None:
    pick = random.Random(seed)
    stop = threading.Event()
    done = 0
    async with FileSystemSessionStore(directory, fsync=False) as store:

        async def step() -> None:
            number = pick.randrange(int(count))
            if kind == "resave":
                lasting = Session(f"lasting-{number}", "agent")
                await store.save(lasting, expect=Expect.ANYTHING)
                return
            passing = f"passing-{seed}-{number}"
            try:
                await store.delete(passing)
            except SessionNotFoundError:
                await store.save(Session(passing, "agent"))

        await step()
        print("ready", flush=True)
        threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
        while not stop.is_set():
            await asyncio.gather(*(step() for _ in range(4)))
            done += 4
    print(json.dumps({"done": done}))


asyncio.run(main(*sys.argv[1:]))
