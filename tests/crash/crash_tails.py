"""Jobs on sessions with tails, for children that may be killed, and what must be true afterwards.

As a script it is a server as `crash_children` is, with these jobs.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import crash_children
from crash_children import RETURNED, Children
from crash_faults import Action, Operations
from crash_sessions import ID, lock_is_free

from phi_sessions import (
    Expect,
    FileSystemSessionStore,
    LoopRecord,
    Session,
    SessionNotFoundError,
    load_session,
)
from phi_sessions.stores.filesystem import directory as directory_module

JOBS = [
    *("start a tail", "append", "fold", "compact", "save over a tail", "save to the tail"),
    *("delete", "repair", "lease"),
]
CHANGED_BY = {
    "start a tail": "write",
    "append": "write",
    "fold": "write",
    "save over a tail": "replace",
    "save to the tail": "write",
    "delete": "unlink",
}
"""The operation that makes a job's change visible; other jobs change nothing."""

NEW = "new"
TORN = b'{"revision":"0123456789abcdef","loops":[{"loop_id":"never'


def loop(loop_id: str, size: int = 10, session_id: str = ID) -> LoopRecord:
    """Return a loop record of about `size` bytes."""
    record = LoopRecord(loop_id, session_id, "agent")
    record.messages = [{"role": "user", "content": [{"type": "text", "text": "x" * size}]}]
    return record


def prepare_scene(job: str, directory: Path) -> list[str]:
    """Make the place for a job; return the ids of the loops that are stored there."""
    return asyncio.run(prepare(job, directory))


async def prepare(job: str, directory: Path) -> list[str]:
    """Make the place for a job; return the ids of the loops that are stored there."""
    size = 4000 if job == "save to the tail" else 10
    session = Session(ID, "agent")
    session.loops += [loop(f"first-{number}", size) for number in range(3)]
    async with FileSystemSessionStore(directory) as store:
        await store.save(session)
        if job != "start a tail":
            for number in range(6 if job == "fold" else 2):
                await store.append(ID, loop(f"then-{number}"))
        if job == "repair":
            await _spoil(store)
    return load_session(ID, directory).loops.ids()


async def _spoil(store: FileSystemSessionStore) -> None:
    for name in ("damaged", "orphaned", "gone"):
        await store.save(Session(name, "agent"))
        if name != "damaged":
            await store.append(name, loop("appended", session_id=name))
    (store.dir / "damaged.json").write_text('{"session_id":')
    (store.dir / f"{ID}.json.tmp.1.1").write_text("{")
    (store.dir / "gone.json").unlink()
    rewritten = (store.dir / "orphaned.json").read_text().replace(",\n", ", ").replace("\n", " ")
    (store.dir / "orphaned.json").write_text(rewritten)
    with open(store.dir / f"{ID}.json.log", "ab") as tail:
        tail.write(TORN)


async def run(job: str, store: FileSystemSessionStore, action: Action, said: dict[str, Any]) -> Any:
    """Do a job, with `action` at each of its operations, whose names `said` gets."""
    session = await store.load(ID)
    small = directory_module._SMALL
    if job in ("fold", "save to the tail"):
        directory_module._SMALL = 1  # type: ignore[misc]
    if job.startswith("save"):
        session.loops.append(loop(NEW))
    doing: Callable[[], Awaitable[Any]] = {
        "compact": lambda: store.compact(ID),
        "save over a tail": lambda: store.save(session),
        "save to the tail": lambda: store.save(session),
        "delete": lambda: store.delete(ID),
        "repair": lambda: store.check(repair=True),
        "lease": lambda: _lease(store),
    }.get(job, lambda: store.append(ID, loop(NEW)))
    try:
        with Operations(action, worker_threads=True) as operations:
            said["operations"] = operations.names
            return await doing()
    finally:
        directory_module._SMALL = small  # type: ignore[misc]


async def _lease(store: FileSystemSessionStore) -> None:
    async with store.lease(ID, owner="me"):
        pass


def visible_at(job: str, operations: list[str]) -> int:
    """Return the number of the operation that makes a job's change visible."""
    if job not in CHANGED_BY:
        return len(operations)
    if job == "start a tail":  # whose first line may be written on its own
        return len(operations) - 1 - operations[::-1].index("write")
    return operations.index(CHANGED_BY[job])


def after(job: str, loops: list[str], operations: list[str], done: int) -> list[str] | None:
    """Return the loops that must be stored if the first `done` operations of a job were done."""
    if job not in CHANGED_BY or visible_at(job, operations) >= done:
        return loops
    return None if job == "delete" else [*loops, NEW]


def stored_loops(directory: Path) -> list[str] | None:
    """Return the ids of the loops that are stored, None if there is no session."""
    try:
        session = load_session(ID, directory)
    except SessionNotFoundError:
        return None
    return [record.loop_id for record in session.loops]  # decoded, each of them


async def wrong_afterwards(directory: Path, expected: list[str] | None) -> list[str]:
    """Return what is wrong in the directory of a writer that is gone; empty if all is well."""
    wrong: list[str] = []

    def require(found: object, wanted: object, when: str) -> None:
        if found != wanted:
            wrong.append(f"{when}: {found}, expected {wanted}")

    require(stored_loops(directory), expected, "is stored")
    if not lock_is_free(directory):
        return [*wrong, "the lock is held"]
    async with FileSystemSessionStore(directory, lock_timeout=1) as store:
        if expected is None:
            await store.save(Session(ID, "agent"), expect=Expect.ABSENT)
            expected = []
        await store.append(ID, loop("next"))
        expected = [*expected, "next"]
        require(stored_loops(directory), expected, "after the next append")
        session = await store.load(ID)
        session.loops.append(loop("last"))
        await store.save(session)
        expected = [*expected, "last"]
        require(stored_loops(directory), expected, "after the next save")
        async with store.lease(ID):
            pass
        await store.check(repair=True)
        kinds = {str(finding.kind) for finding in await store.check()}
        require(kinds - {"set aside"}, set(), "a check after a repair")
    require(stored_loops(directory), expected, "after a repair")
    return wrong


def set_aside(directory: Path) -> list[bytes]:
    """Return what the files that were set aside hold."""
    return sorted(path.read_bytes() for path in directory.glob("*.aside.*"))


def copied(template: Path, directory: Path) -> Path:
    """Make `directory` anew, as `template` is."""
    shutil.rmtree(directory, ignore_errors=True)
    return shutil.copytree(template, directory)


class TailChildren(Children):
    """Children that do the jobs above."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )


async def _with_the_store(
    job: str, order: dict[str, Any], action: Action, said: dict[str, Any]
) -> None:
    async with FileSystemSessionStore(order["directory"], fsync=order["fsync"]) as store:
        await run(job, store, action, said)
        if order["stopped"]:
            os.access(RETURNED, os.F_OK)


if __name__ == "__main__":
    crash_children._with_the_store = _with_the_store
    crash_children._main()
