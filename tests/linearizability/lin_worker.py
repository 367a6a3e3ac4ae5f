"""A process that works on one session: `python lin_worker.py {"directory": ..., "job": ...}`."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from typing import Any

from lin_history import ID, Recorder, Worker

from phi_sessions import FileSystemSessionStore, LoopRecord, Session
from phi_sessions.stores.filesystem import directory


async def _main(order: dict[str, Any]) -> None:
    # So that tails are taken in, and saves go to them, with sessions of any size.
    directory._SMALL = order.get("small", directory._SMALL)  # type: ignore[misc]
    name, count = order["name"], order["count"]
    async with FileSystemSessionStore(order["directory"], lock_timeout=60) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        if order["job"] == "history":
            recorder = Recorder(order["history"])
            worker = Worker(store, recorder, name, random.Random(name))
            await worker.run(count, cancels=order["cancels"])
            recorder.close()
            return
        for number in range(count):
            await _add(store, order["job"], LoopRecord(f"{name}.{number}", ID, "agent"))


async def _add(store: FileSystemSessionStore, job: str, record: LoopRecord) -> None:
    def change(session: Session) -> None:
        session.loops.append(record)
        session.metadata["count"] = session.metadata.get("count", 0) + 1

    if job == "update":
        await store.update(ID, change)
    else:
        await store.append(ID, record)
    if job == "append and compact" and int(record.loop_id.rpartition(".")[2]) % 50 == 0:
        await store.compact(ID)


if __name__ == "__main__":
    asyncio.run(_main(json.loads(sys.argv[1])))
