"""Call everything on one huge session with little memory to do it in: DIRECTORY SESSION_ID."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from pathlib import Path

from phi_sessions import Expect, FileSystemSessionStore, Session

MEMORY = 1024**3


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


async def main(directory: str, session_id: str) -> None:
    seen: dict[str, object] = {}
    async with FileSystemSessionStore(directory) as store:
        await store.save(Session("other", "other agent"))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

        async def infos() -> None:
            [info async for info in store.infos()]

        calls = {
            "load": lambda: store.load(session_id),
            "save": lambda: store.save(Session(session_id, "agent")),
            "delete": lambda: store.delete(session_id),
            "list_for_agent": lambda: store.list_for_agent("the-agent"),
            "infos": infos,
        }
        for name, call in calls.items():
            before = bytes_read()
            try:
                await call()
                kind, reason, path = "fine", "", ""
            except Exception as error:
                kind, reason = type(error).__name__, getattr(error, "reason", "")
                path = getattr(error, "path", "")
            seen[name] = [kind, reason, path, bytes_read() - before]
        seen["list_ids"] = sorted(await store.list_ids())
        await store.load("other")
        size = Path(directory, f"{session_id}.json").stat().st_size
        await store.save(Session(session_id, "agent"), expect=Expect.ANYTHING)
        seen["replaced by"] = (await store.load(session_id)).agent_id
    print(json.dumps({"seen": seen, "size": size}))


asyncio.run(main(*sys.argv[1:]))
