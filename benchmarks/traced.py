"""A program to be traced: it saves, loads, lists and appends, with a mark before each.

`python -m benchmarks.traced DIRECTORY`; the marks are attempts to look at `/benchmark-mark-NAME`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from random import Random

from phi_sessions import FileSystemSessionStore, LoopRecord

from .data import SIZES, TURN_BYTES, make_record, make_session

__all__ = ["MARK", "traced_record"]

MARK = "/benchmark-mark-"


def traced_record(number: int = 901) -> LoopRecord:
    """Return the record that the traced append adds."""
    return make_record(Random(number), "s-2", "agent-1", number, TURN_BYTES)


def _mark(name: str) -> None:
    os.path.exists(MARK + name)


async def main(directory: str) -> None:
    size, records = SIZES["20 KB"]
    async with FileSystemSessionStore(directory) as store:
        await store.save(make_session("s-1", size, records=records))
        session = await store.load("s-1")
        await store.save(session)
        await store.list_ids()
        _mark("save")
        await store.save(session)
        _mark("load")
        await store.load("s-1")
        _mark("list")
        await store.list_ids()
        await store.save(make_session("s-2", size, records=records))
        await store.append("s-2", traced_record(900))  # the first append makes the tail
        _mark("append")
        await store.append("s-2", traced_record())
        _mark("end")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
