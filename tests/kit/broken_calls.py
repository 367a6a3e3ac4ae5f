"""Stores whose calls end badly: when cancelled, on the wrong thread, after a close."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from broken_stores import FourMethods

from phi_sessions import (
    Expect,
    Expectation,
    Lease,
    LoopRecord,
    MemorySessionStore,
    Revision,
    Session,
    SessionConflictError,
    SessionStore,
    SupportsLease,
)
from phi_sessions.stores.base import Outcome, Stored, pack, require

# Cancelling --------------------------------------------------------------------------------------


class LeavesTasks(MemorySessionStore):
    """Shields its work from a cancellation, and does not wait for it."""

    async def _write(self, session: Session, expect: Expectation, outcome: Outcome) -> None:
        await asyncio.shield(asyncio.ensure_future(self._slowly(session, expect, outcome)))

    async def _slowly(self, session: Session, expect: Expectation, outcome: Outcome) -> None:
        await asyncio.sleep(0.001)
        await super()._write(session, expect, outcome)


class LeavesThreads(FourMethods):
    """Writes in a thread that nobody waits for after a cancellation."""

    async def save(self, session: Session, *, expect: Expectation = Expect.UNCHANGED) -> Revision:
        return await asyncio.to_thread(self._later, session, expect)

    def _later(self, session: Session, expect: Expectation) -> Revision:
        time.sleep(0.002)
        return asyncio.run(super().save(session, expect=expect))  # type: ignore[arg-type]


class LeavesLocks(MemorySessionStore):
    """Frees its lock if all goes well."""

    def __init__(self) -> None:
        super().__init__()
        self._locked: set[str] = set()

    async def _write(self, session: Session, expect: Expectation, outcome: Outcome) -> None:
        while session.session_id in self._locked:
            await asyncio.sleep(0)
        self._locked.add(session.session_id)
        await asyncio.sleep(0)
        try:
            await super()._write(session, expect, outcome)
        finally:
            self._locked.discard(session.session_id)


class SwallowsCancels(MemorySessionStore):
    """Takes a cancellation for one more error that it can try again after."""

    async def _write(self, session: Session, expect: Expectation, outcome: Outcome) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        await super()._write(session, expect, outcome)


class WritesInTwoSteps(MemorySessionStore):
    """Overwrites in place: the head first, the records after a while."""

    async def _write(self, session: Session, expect: Expectation, outcome: Outcome) -> None:
        kept = self._kept.get(session.session_id)
        require(expect, kept.revision if kept else None, session.session_id)
        if kept is not None:
            parcel = await pack(session)
            self._kept[session.session_id] = kept._replace(
                parcel=parcel._replace(records=kept.parcel.records)
            )
            await asyncio.sleep(0)
        await super()._write(session, Expect.ANYTHING, outcome)


class DoesNothing(SessionStore, SupportsLease):
    """Says yes to everything: it promises all, and keeps nothing."""

    async def save(self, session: Session, *, expect: Expectation = Expect.UNCHANGED) -> Revision:
        session.revision = Revision("1")
        return session.revision

    async def load(self, session_id: str) -> Session:
        nothing = {"n": 0, "count": 0}
        return Session(session_id, "agent", metadata=nothing, revision=Revision("1"))

    async def list_ids(self) -> list[str]:
        return []

    async def delete(self, session_id: str, *, expect: Expectation = Expect.ANYTHING) -> None:
        pass

    async def append(self, session: str | Session, *loops: LoopRecord) -> Revision:
        return Revision("1")

    async def update(self, session_id: str, change: Any, **options: Any) -> Session:
        return await self.load(session_id)

    async def prune(self, **options: Any) -> list[str]:
        return []

    @asynccontextmanager
    async def lease(
        self, session_id: str, *, owner: str | None = None, timeout: float = 0.0
    ) -> AsyncGenerator[Lease]:
        yield Lease.of_this_process("", "")


# Event loops -------------------------------------------------------------------------------------


class Sleeps(MemorySessionStore):
    """Waits a little, and with it all others."""

    async def _read(self, session_id: str) -> Stored | None:
        time.sleep(0.0001)
        return await super()._read(session_id)


class SyncsOnTheLoop(MemorySessionStore):
    """Brings each save to the disk, on the thread of the event loop."""

    async def _write(self, session: Session, expect: Expectation, outcome: Outcome) -> None:
        with tempfile.TemporaryFile() as file:
            file.write(b"x")
            os.fsync(file.fileno())
        await super()._write(session, expect, outcome)


class WaitsForAThread(MemorySessionStore):
    """Waits for something that no detector of blocking calls knows."""

    async def list_ids(self) -> list[str]:
        threading.Event().wait(0.15)
        return await super().list_ids()


class Computes(MemorySessionStore):
    """Is busy for long on the thread of the event loop."""

    async def list_ids(self) -> list[str]:
        begun = time.thread_time()
        while time.thread_time() - begun < 0.15:
            sum(range(10_000))
        return await super().list_ids()


class BelongsToOneLoop(MemorySessionStore):
    """Keeps a lock of the first event loop that had to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = asyncio.Lock()

    async def _write(self, session: Session, expect: Expectation, outcome: Outcome) -> None:
        async with self._lock:
            await asyncio.sleep(0)
            await super()._write(session, expect, outcome)


# The rest ----------------------------------------------------------------------------------------


class NeverCloses(MemorySessionStore):
    """Goes on after it was closed."""

    async def aclose(self) -> None:
        pass


class ClosesOnce(MemorySessionStore):
    """Cannot be closed again."""

    async def aclose(self) -> None:
        self._check_open()
        await super().aclose()


class LeasesToAll(MemorySessionStore):
    """Gives a lease to whoever asks."""

    @asynccontextmanager
    async def lease(
        self, session_id: str, *, owner: str | None = None, timeout: float = 0.0
    ) -> AsyncGenerator[Lease]:
        self._check(session_id)
        yield Lease.of_this_process(session_id, owner)


class LeasesForGood(MemorySessionStore):
    """Does not free a lease whose holder fails."""

    @asynccontextmanager
    async def lease(
        self, session_id: str, *, owner: str | None = None, timeout: float = 0.0
    ) -> AsyncGenerator[Lease]:
        inner = super().lease(session_id, owner=owner, timeout=timeout)
        lease = await inner.__aenter__()
        yield lease
        await inner.__aexit__(None, None, None)


class OwnError(SessionConflictError):
    """Cannot be made from its arguments."""

    def __init__(self, message: str, session_id: str) -> None:
        super().__init__(message, session_id=session_id)

    def __reduce__(self) -> Any:
        return type(self), self.args


class RaisesItsOwn(FourMethods):
    """Raises errors that do not survive a process boundary."""

    async def save(self, session: Session, *, expect: Expectation = Expect.UNCHANGED) -> Revision:
        try:
            return await super().save(session, expect=expect)
        except SessionConflictError as error:
            raise OwnError(str(error), session.session_id) from error


class TakesAnything(FourMethods):
    """Stores what it can, and leaves out what cannot be read again."""

    async def save(self, session: Session, *, expect: Expectation = Expect.UNCHANGED) -> Revision:
        text = msgspec.json.encode(session.metadata, enc_hook=repr)
        session.metadata = msgspec.json.decode(text)
        for loop in session.loops:
            self._clean(loop)
        return await super().save(session, expect=expect)

    @staticmethod
    def _clean(loop: LoopRecord) -> None:
        loop.metadata = msgspec.json.decode(msgspec.json.encode(loop.metadata, enc_hook=repr))
