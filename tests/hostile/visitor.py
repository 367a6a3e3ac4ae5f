"""Calls everything on a directory and prints what came of it: DIRECTORY SESSION_ID [UID].

With UID it does so as that user, having imported and run everything once as the first one.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any

from phi_sessions import (
    Expect,
    FileSystemSessionStore,
    Session,
    delete_session,
    list_session_ids,
    load_session,
    load_sessions_for_agent,
    save_session,
)


async def main(directory: str, session_id: str, uid: str | None = None) -> None:
    with tempfile.TemporaryDirectory() as warm:
        await visit(warm, session_id)
    if uid is not None:
        os.setgroups([])
        os.setgid(int(uid))
        os.setuid(int(uid))
    print(json.dumps(await visit(directory, session_id)))


async def visit(directory: str, session_id: str) -> dict[str, Any]:
    async with FileSystemSessionStore(directory) as store:

        def new() -> Session:
            return Session(session_id, "agent")

        async def infos(**options: Any) -> list[str]:
            return [info.session_id async for info in store.infos(**options)]

        async def of_agent(**options: Any) -> list[str]:
            return [s.session_id for s in await store.list_for_agent("agent", **options)]

        def thread(call: Callable[..., Any], *args: Any) -> Callable[[], Awaitable[Any]]:
            return lambda: asyncio.to_thread(call, *args)

        async def save_good() -> None:
            await store.save(await store.load("good"))

        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "load": lambda: store.load(session_id),
            "exists": lambda: store.exists(session_id),
            "save": lambda: store.save(new()),
            "save anything": lambda: store.save(new(), expect=Expect.ANYTHING),
            "save absent": lambda: store.save(new(), expect=Expect.ABSENT),
            "delete": lambda: store.delete(session_id),
            "load_session": thread(load_session, session_id, directory),
            "save_session": thread(save_session, new(), directory),
            "delete_session": thread(delete_session, session_id, directory),
            "list_ids": store.list_ids,
            "infos": infos,
            "infos of agent": lambda: infos(agent_id="agent"),
            "infos, skip": lambda: infos(on_error="skip"),
            "infos of agent, skip": lambda: infos(agent_id="agent", on_error="skip"),
            "list_for_agent": of_agent,
            "list_for_agent, skip": lambda: of_agent(on_error="skip"),
            "list_session_ids": thread(list_session_ids, directory),
            "load_sessions_for_agent": thread(load_sessions_for_agent, "agent", directory),
            "load good": lambda: store.load("good"),
            "save good": save_good,
        }
        seen: dict[str, Any] = {}
        for name, call in calls.items():
            begun = time.monotonic()
            try:
                value = await call()
                kind, number = "fine", None
            except Exception as error:
                value = None
                kind, number = type(error).__name__, getattr(error, "errno", None)
            if not isinstance(value, list | bool):
                value = str(value.session_id) if isinstance(value, Session) else None
            elif isinstance(value, list):
                value = [v.session_id if isinstance(v, Session) else v for v in value]
            seen[name] = [kind, number, value, time.monotonic() - begun]
        return seen


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
