"""What was asked of one session, what was answered, and when: written by many, read by one."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple

from phi_sessions import (
    Expect,
    Expectation,
    FileSystemSessionStore,
    LoopRecord,
    Session,
    SessionConflictError,
    SessionExistsError,
    SessionNotFoundError,
    SessionStore,
)

ID = "s-1"


class Operation(NamedTuple):
    """One call of a history.

    Attributes:
        kind: `append`, `save`, `delete` or `load`.
        argument: The loop id of an append; the expected revision (None: absent) and loop ids of a
            save; nothing else has one.
        result: `["ok", revision, loop ids]`, as much of it as the call tells; `["absent"]`;
            `["conflict", found]`; None when it is not known whether the call did anything.
        start: When it began.
        end: When it had ended for sure.
    """

    kind: str
    argument: Any
    result: list[Any] | None
    start: int
    end: int


class Recorder:
    """Does calls, and writes to a file when each begins and how it ends."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def record(self, kind: str, argument: Any, call: Callable[[], Awaitable[Any]]) -> Any:
        """Do the call; a cancelled one may have done something, a refused one did not."""
        self._write(["begin", kind, argument, time.monotonic_ns()])
        result: list[Any] | None = None
        try:
            result = await call()
        except SessionNotFoundError:
            result = ["absent"]
        except (SessionConflictError, SessionExistsError) as error:
            result = ["conflict", getattr(error, "found", "?")]
        finally:
            self._write(["end", result, time.monotonic_ns()])
        return result

    def _write(self, line: list[Any]) -> None:
        os.write(self._fd, json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        os.close(self._fd)


def read_history(path: str, died_at: int) -> list[Operation]:
    """Return what a process recorded; the call that it died in may have done something."""
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file if line.endswith("\n")]
    operations: list[Operation] = []
    for line in lines:
        if line[0] == "begin":
            operations.append(Operation(line[1], line[2], None, line[3], died_at))
        else:
            operations[-1] = operations[-1]._replace(result=line[1], end=line[2])
    return operations


class Worker:
    """One writer and reader of the session; which calls it does is told by its random numbers."""

    def __init__(
        self, store: SessionStore, recorder: Recorder, name: str, rng: random.Random
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._name = name
        self._rng = rng
        self._number = 0
        self._held: Session | None = None

    async def run(self, calls: int, *, cancels: float = 0.0) -> None:
        """Do so many calls, and cancel such a part of them."""
        for _ in range(calls):
            call = asyncio.ensure_future(self._one())
            if self._rng.random() < cancels:
                await asyncio.sleep(self._rng.uniform(0, 0.004))
                call.cancel()
                await asyncio.wait([call])
            else:
                await call
            await asyncio.sleep(0)

    async def _one(self) -> None:
        choice = self._rng.random()
        if choice < 0.30:
            await self._append(self._by_append)
        elif choice < 0.42:
            await self._append(self._by_update)
        elif choice < 0.70:
            await self._load()
        elif choice < 0.90:
            await self._save()
        elif choice < 0.94:
            await self._recorder.record("delete", None, self._delete)
        elif isinstance(self._store, FileSystemSessionStore):
            with suppress(SessionNotFoundError):
                await self._store.compact(ID)

    async def _append(self, how: Callable[[LoopRecord], Awaitable[Any]]) -> None:
        record = self._record()
        await self._recorder.record("append", record.loop_id, lambda: how(record))

    async def _by_append(self, record: LoopRecord) -> Any:
        return ["ok", await self._store.append(ID, record)]

    async def _by_update(self, record: LoopRecord) -> Any:
        updated = await self._store.update(ID, lambda session: session.loops.append(record))
        return ["ok", updated.revision, updated.loops.ids()]

    async def _load(self) -> None:
        async def load() -> Any:
            self._held = None
            self._held = await self._store.load(ID)
            return ["ok", self._held.revision, self._held.loops.ids()]

        await self._recorder.record("load", None, load)

    async def _save(self) -> None:
        session = self._held or Session(ID, "agent")
        self._held = None
        session.loops.append(self._record())
        expect: Expectation = session.revision or Expect.ABSENT
        argument = [session.revision, session.loops.ids()]

        async def save() -> Any:
            revision = await self._store.save(session, expect=expect)
            self._held = session
            return ["ok", revision]

        await self._recorder.record("save", argument, save)

    async def _delete(self) -> Any:
        await self._store.delete(ID)
        return ["ok"]

    def _record(self) -> LoopRecord:
        self._number += 1
        return LoopRecord(f"{self._name}.{self._number}", ID, "agent", metadata="x" * 200)
