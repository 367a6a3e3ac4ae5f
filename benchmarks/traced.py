"""A program to be traced: it saves, loads and lists, with a mark before each.

`python -m benchmarks.traced DIRECTORY`; the marks are attempts to look at `/benchmark-mark-NAME`.
"""

from __future__ import annotations

import asyncio
import os
import sys

from phi_sessions import FileSystemSessionStore

from .data import SIZES, make_session

__all__ = ["MARK"]

MARK = "/benchmark-mark-"


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
        _mark("end")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
