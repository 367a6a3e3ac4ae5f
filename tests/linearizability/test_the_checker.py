"""The checker of histories tells a broken store from a sound one."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from lin_checker import unexplained
from lin_history import ID, Operation, Recorder, Worker, read_history

from phi_sessions import Expect, Expectation, LoopRecord, MemorySessionStore, Revision, Session

Call = tuple[str, Any, list[Any] | None]


def in_turn(*calls: Call) -> list[Operation]:
    """Return a history in which no two calls overlap."""
    return [Operation(*call, 10 * n, 10 * n + 5) for n, call in enumerate(calls)]


def at_once(*calls: Call) -> list[Operation]:
    """Return a history in which all calls overlap."""
    return [Operation(*call, n, 100 + n) for n, call in enumerate(calls)]


CREATED: Call = ("save", [None, ["a"]], ["ok", "r1"])
SOUND = {
    "nothing": [],
    "a save and a load": in_turn(CREATED, ("load", None, ["ok", "r1", ["a"]])),
    "a conflict": in_turn(
        CREATED, ("append", "b", ["ok", "r2"]), ("save", ["r1", ["x"]], ["conflict", "r2"])
    ),
    "an append that was killed and happened": in_turn(
        CREATED, ("append", "b", None), ("load", None, ["ok", "r2", ["a", "b"]])
    ),
    "an append that was killed and did not happen": in_turn(
        CREATED, ("append", "b", None), ("load", None, ["ok", "r1", ["a"]])
    ),
    "appends at once, in any order": [
        *in_turn(CREATED),
        *(call._replace(start=50) for call in at_once(
            ("append", "b", ["ok", "r2"]), ("append", "c", ["ok", "r3"])
        )),
        Operation("load", None, ["ok", "r2", ["a", "c", "b"]], 200, 201),
    ],
    "a load while a delete runs": at_once(
        CREATED, ("delete", None, ["ok"]), ("load", None, ["absent"])
    ),
    "a delete that was killed": in_turn(
        CREATED, ("delete", None, None), ("append", "b", ["absent"])
    ),
}  # fmt: skip
BROKEN = {
    "a lost append": in_turn(
        CREATED, ("append", "b", ["ok", "r2"]), ("load", None, ["ok", "r2", ["a"]])
    ),
    "a lost update": in_turn(
        CREATED,
        ("save", ["r1", ["a", "b"]], ["ok", "r2"]),
        ("save", ["r1", ["a", "c"]], ["ok", "r3"]),
    ),
    "an append that happened twice": in_turn(
        CREATED, ("append", "b", ["ok", "r2"]), ("load", None, ["ok", "r3", ["a", "b", "b"]])
    ),
    "an older state after a newer": in_turn(
        CREATED,
        ("append", "b", None),
        ("load", None, ["ok", "r2", ["a", "b"]]),
        ("load", None, ["ok", "r1", ["a"]]),
    ),
    "a stale read": in_turn(
        CREATED, ("append", "b", ["ok", "r2"]), ("load", None, ["ok", "r1", ["a"]])
    ),
    "a delete undone": in_turn(
        CREATED, ("delete", None, ["ok"]), ("load", None, ["ok", "r1", ["a"]])
    ),
    "a delete undone by an append": in_turn(
        CREATED, ("delete", None, ["ok"]), ("append", "b", ["ok", "r2"])
    ),
    "a delete undone by a stale save": in_turn(
        CREATED, ("delete", None, ["ok"]), ("save", ["r1", ["a", "b"]], ["ok", "r2"])
    ),
    "appends in another order than that of their calls": in_turn(
        CREATED,
        ("append", "b", ["ok", "r2"]),
        ("append", "c", ["ok", "r3"]),
        ("load", None, ["ok", "r3", ["a", "c", "b"]]),
    ),
    "a conflict with nobody": in_turn(CREATED, ("save", ["r1", ["b"]], ["conflict", "r1"])),
    "two who made the same session": at_once(CREATED, ("save", [None, ["b"]], ["ok", "r2"])),
    "a cancelled append that happens later": in_turn(
        CREATED,
        ("append", "b", None),
        ("load", None, ["ok", "r1", ["a"]]),
        ("load", None, ["ok", "r2", ["a", "b"]]),
    ),
}


@pytest.mark.parametrize("history", SOUND.values(), ids=SOUND.keys())
def test_a_sound_history_is_explained(history: list[Operation]) -> None:
    assert unexplained(history) == []


@pytest.mark.parametrize("history", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_history_is_not(history: list[Operation]) -> None:
    assert unexplained(history) != []


class LosesUpdates(MemorySessionStore):
    """Saves whatever was expected."""

    async def save(self, session: Session, *, expect: Expectation = Expect.UNCHANGED) -> Revision:
        return await super().save(session, expect=Expect.ANYTHING)


class ReadsStale(MemorySessionStore):
    """Remembers every eighth state for a reader or two too long."""

    reads = 0
    old: Session | None = None

    async def load(self, session_id: str) -> Session:
        self.reads += 1
        session = await super().load(session_id)
        if self.reads % 8 == 0:
            self.old = session
        if self.reads % 8 == 4 and self.old is not None:
            return self.old
        return session


class BringsBack(MemorySessionStore):
    """An append after a delete brings the session back."""

    gone: Session | None = None

    async def delete(self, session_id: str, *, expect: Expectation = Expect.ANYTHING) -> None:
        self.gone = await self.find(session_id)
        await super().delete(session_id, expect=expect)

    async def append(self, session: str | Session, *loops: LoopRecord) -> Revision:
        if self.gone is not None and not await self.exists(ID):
            await self.save(self.gone, expect=Expect.ANYTHING)
        return await super().append(session, *loops)


class AppendsLate(MemorySessionStore):
    """Acknowledges an append before it is made."""

    async def append(self, session: str | Session, *loops: LoopRecord) -> Revision:
        stored = await self.load(ID)
        assert stored.revision is not None
        self.late = asyncio.ensure_future(self._later(*loops))
        return stored.revision

    async def _later(self, *loops: LoopRecord) -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        if await self.exists(ID):
            await super().append(ID, *loops)


async def _history(kind: type[MemorySessionStore], top: Path) -> list[Operation]:
    async with kind() as store:
        recorders = [Recorder(str(top / str(n))) for n in range(4)]
        workers = [
            Worker(store, recorder, f"w{n}", random.Random(n))
            for n, recorder in enumerate(recorders)
        ]
        await asyncio.gather(*(worker.run(60) for worker in workers))
        for recorder in recorders:
            recorder.close()
    return [call for n in range(4) for call in read_history(str(top / str(n)), 0)]


@pytest.mark.parametrize("kind", [LosesUpdates, ReadsStale, BringsBack, AppendsLate])
async def test_a_broken_store_is_found_out(kind: type[MemorySessionStore], tmp_path: Path) -> None:
    assert unexplained(await _history(kind, tmp_path)) != []


async def test_a_sound_store_is_not(tmp_path: Path) -> None:
    history = await _history(MemorySessionStore, tmp_path)
    assert len(history) > 200
    assert unexplained(history) == []
