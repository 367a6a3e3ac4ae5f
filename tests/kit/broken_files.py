"""Stores in files that break what only other processes and restarts can see."""

from __future__ import annotations

import asyncio
import os
import pickle
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from phi_sessions import (
    Expect,
    Expectation,
    FileSystemSessionStore,
    Lease,
    Promise,
    Revision,
    Session,
    SessionCorruptError,
    SessionLockedError,
    SessionNotFoundError,
    SessionStore,
)
from phi_sessions.stores.base import Stored, require


class PickleFiles(SessionStore):
    """A file for each session, replaced whole, without a lock between processes."""

    lacks = frozenset({Promise.HOSTS, Promise.POWER_LOSS})

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def path(self, session_id: str) -> Path:
        return self.folder / session_id.encode().hex()

    async def save(self, session: Session, *, expect: Expectation = Expect.UNCHANGED) -> Revision:
        if expect is Expect.UNCHANGED and session.revision is not None:
            expect = session.revision
        found = await self.find(session.session_id)
        require(expect, found.revision if found else None, session.session_id)
        await asyncio.sleep(0.001)
        session.revision = Revision(secrets.token_hex(8))
        await self.write(self.path(session.session_id), pickle.dumps(session))
        return session.revision

    async def write(self, path: Path, data: bytes) -> None:
        aside = path.with_suffix(f".{secrets.token_hex(4)}")
        aside.write_bytes(data)
        aside.replace(path)

    async def load(self, session_id: str) -> Session:
        try:
            data = self.path(session_id).read_bytes()
            session: Session = pickle.loads(data)
        except FileNotFoundError:
            raise SessionNotFoundError("gone", session_id=session_id) from None
        except (EOFError, pickle.UnpicklingError) as error:
            raise SessionCorruptError("torn", session_id=session_id) from error
        return session

    async def list_ids(self) -> list[str]:
        files = sorted(self.folder.iterdir(), key=lambda path: -path.stat().st_mtime_ns)
        return [bytes.fromhex(path.name).decode() for path in files]

    async def delete(self, session_id: str, *, expect: Expectation = Expect.ANYTHING) -> None:
        try:
            self.path(session_id).unlink()
        except FileNotFoundError:
            raise SessionNotFoundError("gone", session_id=session_id) from None


class OverwritesFiles(PickleFiles):
    """Writes into the file that readers read, half of it now and half of it soon."""

    async def write(self, path: Path, data: bytes) -> None:
        with path.open("wb", buffering=0) as file:
            file.write(data[: len(data) // 2])
            await asyncio.sleep(0.05)
            file.write(data[len(data) // 2 :])


class WritesLater(PickleFiles):
    """Acknowledges what it will write when it is closed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.waiting: dict[Path, bytes] = {}

    async def write(self, path: Path, data: bytes) -> None:
        self.waiting[path] = data
        if not path.exists():
            await super().write(path, data)

    async def load(self, session_id: str) -> Session:
        waiting = self.waiting.get(self.path(session_id))
        return pickle.loads(waiting) if waiting else await super().load(session_id)

    async def aclose(self) -> None:
        for path, data in self.waiting.items():
            await super().write(path, data)


class NeverWrites(WritesLater):
    """Forgets the last state of a session when it is closed."""

    async def aclose(self) -> None:
        self.waiting.clear()


class CachesFiles(FileSystemSessionStore):
    """Remembers what it has loaded itself, whatever others do meanwhile."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._cache: dict[str, Stored | None] = {}

    async def _read(self, session_id: str) -> Stored | None:
        if session_id not in self._cache:
            self._cache[session_id] = await super()._read(session_id)
        return self._cache[session_id]


class LeasesOutliveHolders(FileSystemSessionStore):
    """Holds a lease by a file that its holder has to remove."""

    @asynccontextmanager
    async def lease(
        self, session_id: str, *, owner: str | None = None, timeout: float = 0.0
    ) -> AsyncGenerator[Lease]:
        self._check(session_id)
        path = self.dir.with_suffix(f".{session_id.encode().hex()}")
        lease = Lease.of_this_process(session_id, owner)
        aside = path.with_suffix(f".{secrets.token_hex(4)}")
        aside.write_bytes(pickle.dumps(lease))
        try:
            os.link(aside, path)
        except FileExistsError as error:
            holder = pickle.loads(path.read_bytes())
            await asyncio.sleep(timeout)
            raise SessionLockedError("held", session_id=session_id, holder=holder) from error
        finally:
            aside.unlink()
        try:
            yield lease
        finally:
            path.unlink()
