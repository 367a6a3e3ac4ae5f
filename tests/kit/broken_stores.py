"""Stores that break one promise each, the way real ones do."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from phi_sessions import (
    Expect,
    Expectation,
    MemorySessionStore,
    Revision,
    Session,
    SessionConflictError,
    SessionInfo,
    SessionNotFoundError,
    SessionStore,
)
from phi_sessions.codec import StoredRecord, put_records
from phi_sessions.stores.base import Outcome, Stored, require


class FourMethods(SessionStore):
    """A sound store that leaves all it can to the contract; broken ones replace a part of it."""

    lacks = MemorySessionStore.lacks

    def __init__(self) -> None:
        self.inner = MemorySessionStore()

    async def save(self, session: Session, *, expect: Expectation = Expect.UNCHANGED) -> Revision:
        return await self.inner.save(session, expect=expect)

    async def load(self, session_id: str) -> Session:
        return await self.inner.load(session_id)

    async def list_ids(self) -> list[str]:
        return await self.inner.list_ids()

    async def delete(self, session_id: str, *, expect: Expectation = Expect.ANYTHING) -> None:
        await self.inner.delete(session_id, expect=expect)

    async def aclose(self) -> None:
        await self.inner.aclose()


# Preconditions -----------------------------------------------------------------------------------


class LastWriterWins(MemorySessionStore):
    """Saves whatever is there."""

    async def _write(self, session: Session, expect: Expectation, outcome: Outcome) -> None:
        await super()._write(session, Expect.ANYTHING, outcome)


class Resurrects(MemorySessionStore):
    """Takes a session that is gone for one that was never there."""

    async def _write(self, session: Session, expect: Expectation, outcome: Outcome) -> None:
        gone = session.session_id not in self._kept
        await super()._write(session, Expect.ANYTHING if gone else expect, outcome)


class ChecksAndThenWrites(MemorySessionStore):
    """Lets another writer in between the check and the write."""

    async def _write(self, session: Session, expect: Expectation, outcome: Outcome) -> None:
        kept = self._kept.get(session.session_id)
        require(expect, kept.revision if kept else None, session.session_id)
        await asyncio.sleep(0)
        await super()._write(session, Expect.ANYTHING, outcome)


class MarksBeforeItChecks(FourMethods):
    """Gives the object a new revision though the save is refused."""

    async def save(self, session: Session, *, expect: Expectation = Expect.UNCHANGED) -> Revision:
        try:
            return await super().save(session, expect=expect)
        except SessionConflictError as error:
            session.revision = Revision(error.found or "")
            raise


# Round trips -------------------------------------------------------------------------------------


class DropsUnknownKeys(FourMethods):
    """Keeps the keys that it knows."""

    async def load(self, session_id: str) -> Session:
        session = await super().load(session_id)
        session.extra = {}
        return session


class KeepsMicroseconds(FourMethods):
    """Stores times as a database does."""

    async def load(self, session_id: str) -> Session:
        session = await super().load(session_id)
        made = session.created_at
        session.created_at = type(made).from_nanoseconds(made.nanoseconds // 1000 * 1000)
        return session


class CountsInFloats(FourMethods):
    """Stores numbers as JavaScript does."""

    async def load(self, session_id: str) -> Session:
        session = await super().load(session_id)
        for name, value in session.metadata.items():
            if isinstance(value, list):
                session.metadata[name] = [float(v) if type(v) is int else v for v in value]
        return session


class SharesObjects(SessionStore):
    """Keeps the caller's own object, and gives it to all."""

    lacks = MemorySessionStore.lacks

    def __init__(self) -> None:
        self.kept: dict[str, Session] = {}

    async def save(self, session: Session, *, expect: Expectation = Expect.UNCHANGED) -> Revision:
        session.revision = Revision(os.urandom(8).hex())
        self.kept.pop(session.session_id, None)
        self.kept[session.session_id] = session
        return session.revision

    async def load(self, session_id: str) -> Session:
        if session_id not in self.kept:
            raise SessionNotFoundError("gone", session_id=session_id)
        return self.kept[session_id]

    async def list_ids(self) -> list[str]:
        return [*reversed(self.kept)]

    async def delete(self, session_id: str, *, expect: Expectation = Expect.ANYTHING) -> None:
        if self.kept.pop(session_id, None) is None:
            raise SessionNotFoundError("gone", session_id=session_id)


class CachesLoads(MemorySessionStore):
    """Remembers what it has loaded, and forgets it at a save only."""

    def __init__(self) -> None:
        super().__init__()
        self._cache: dict[str, Stored] = {}

    async def _read(self, session_id: str) -> Stored | None:
        if session_id not in self._cache and (stored := await super()._read(session_id)):
            self._cache[session_id] = stored
        return self._cache.get(session_id)

    async def _write(self, session: Session, expect: Expectation, outcome: Outcome) -> None:
        self._cache.pop(session.session_id, None)
        await super()._write(session, expect, outcome)


class FoldsCase(MemorySessionStore):
    """Looks for ids as a file system that folds case does."""

    async def _read(self, session_id: str) -> Stored | None:
        alike = [each for each in self._kept if each.casefold() == session_id.casefold()]
        return await super()._read(alike[0]) if alike else None


# Appends, updates, listings ----------------------------------------------------------------------


class LosesAppends(MemorySessionStore):
    """Reads, adds and writes, and lets another in between."""

    async def _append(
        self, session_id: str, records: list[StoredRecord], expect: Expectation, outcome: Outcome
    ) -> None:
        kept = self._kept.get(session_id)
        await asyncio.sleep(0)
        await super()._append(session_id, records, expect, outcome)
        if kept is not None:
            merged = put_records(kept.parcel.records, records)
            now = self._kept[session_id]
            self._kept[session_id] = now._replace(parcel=kept.parcel._replace(records=merged))


class AppendsAtTheEnd(MemorySessionStore):
    """Adds a record though one with its id is there."""

    async def _append(
        self, session_id: str, records: list[StoredRecord], expect: Expectation, outcome: Outcome
    ) -> None:
        kept = self._kept.get(session_id)
        await super()._append(session_id, records, expect, outcome)
        if kept is not None:
            now = self._kept[session_id]
            longer = now.parcel._replace(records=[*kept.parcel.records, *records])
            self._kept[session_id] = now._replace(parcel=longer)


class AppendsInSilence(MemorySessionStore):
    """Leaves the revision as it is when something is appended."""

    async def _append(
        self, session_id: str, records: list[StoredRecord], expect: Expectation, outcome: Outcome
    ) -> None:
        kept = self._kept.get(session_id)
        await super()._append(session_id, records, expect, outcome)
        if kept is not None:
            outcome.revision = kept.revision
            self._kept[session_id] = self._kept[session_id]._replace(revision=kept.revision)


class UpdatesOnce(MemorySessionStore):
    """Updates without looking whether anybody else did."""

    async def update(self, session_id: str, change: Any, **options: Any) -> Session:
        create = options.get("create")
        session = await self.find(session_id) if create else await self.load(session_id)
        session = session or create()
        change(session)
        await asyncio.sleep(0)
        await self.save(session, expect=Expect.ANYTHING)
        return session


class ListsByName(FourMethods):
    """Lists ids in the order of the alphabet."""

    async def list_ids(self) -> list[str]:
        return sorted(await super().list_ids())


class ListsByPages(MemorySessionStore):
    """Counts how far it has come in a list that moves meanwhile."""

    async def list_ids(self) -> list[str]:
        found: list[str] = []
        while page := (await super().list_ids())[len(found) : len(found) + 10]:
            found += page
            await asyncio.sleep(0)
        return found


class CardsByPages(MemorySessionStore):
    """The same for cards."""

    async def infos(self, **wanted: Any) -> AsyncIterator[SessionInfo]:
        told = 0
        while page := [info async for info in super().infos(**wanted)][told : told + 50]:
            told += len(page)
            for info in page:
                yield info


class HoldsWhileListing(MemorySessionStore):
    """Takes one of few connections for a listing, and gives it back if the listing is finished."""

    def __init__(self) -> None:
        super().__init__()
        self._free = 5

    async def infos(self, **wanted: Any) -> AsyncIterator[SessionInfo]:
        while not self._free:
            await asyncio.sleep(0.001)
        self._free -= 1
        async for info in super().infos(**wanted):
            yield info
        self._free += 1


class FindsAgentsByPattern(FourMethods):
    """Takes an agent's id for the beginning of one."""

    async def list_for_agent(self, agent_id: str, **options: Any) -> list[Session]:
        found = [await self.load(session_id) for session_id in await self.list_ids()]
        return [s for s in found if s.agent_id.startswith(agent_id.rstrip("*%"))]


class PrunesInDryRuns(MemorySessionStore):
    """Deletes what it was asked to tell of."""

    async def prune(self, **options: Any) -> list[str]:
        return await super().prune(**{**options, "dry_run": False})
