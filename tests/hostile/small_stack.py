"""Load every session of a directory in threads with 64 KiB of stack: DIRECTORY ID..."""

from __future__ import annotations

import asyncio
import json
import sys
import threading

from phi_sessions import Expect, FileSystemSessionStore, Session, SessionError, load_session

seen: dict[str, list[str]] = {}


def outcome(error: BaseException | None) -> str:
    return "fine" if error is None else type(error).__name__


def load(session_id: str, directory: str) -> None:
    try:
        list(load_session(session_id, directory).loops)
    except SessionError as error:
        seen[session_id].append(outcome(error))
    else:
        seen[session_id].append("fine")


async def main(directory: str, ids: list[str]) -> None:
    async with FileSystemSessionStore(directory) as store:
        for session_id in ids:
            try:
                session = await store.load(session_id)
                await store.save(session)
            except SessionError as error:
                seen[session_id].append(outcome(error))
            else:
                seen[session_id].append("fine")
        cards = [info.session_id async for info in store.infos(on_error="skip")]
        await store.save(Session("another", "agent"), expect=Expect.ABSENT)
    seen["cards"] = sorted(cards)


threading.stack_size(65536)
directory, *ids = sys.argv[1:]
for name in ids:
    seen[name] = []
    thread = threading.Thread(target=load, args=(name, directory))
    thread.start()
    thread.join()
asyncio.run(main(directory, ids))
print(json.dumps(seen))
