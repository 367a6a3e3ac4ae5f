"""Sessions in memory: for tests and short-lived agents."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import NamedTuple

from .. import codec
from ..codec import Origin, Parcel, StoredRecord, put_records
from ..errors import SessionLockedError
from ..info import Selection, SessionInfo, card
from ..lease import Lease, SupportsLease
from ..model import Revision, Session
from ..promise import Promise
from ..store import Expectation, OnError
from ..timestamp import Timestamp
from .base import BaseStore, Outcome, Stored, new_revision, not_found, pack, require, unpack
from .forking import renew_in_child
from .pace import pace
from .patience import Patience
from .turnstile import Turnstile

__all__ = ["MemorySessionStore"]


class _Kept(NamedTuple):
    parcel: Parcel
    revision: Revision
    saved_at: Timestamp


class MemorySessionStore(BaseStore, SupportsLease):
    """Keeps sessions in this object, encoded, so that nothing is shared with the caller.

    It promises what every store promises to tasks, threads and event loops of one process. It
    shares nothing with other processes, and nothing outlives it.
    """

    lacks = frozenset(Promise)

    def __init__(self) -> None:
        super().__init__()
        self.renew()
        renew_in_child(self)
        self._turnstile = Turnstile()
        self._leases: dict[str, Lease] = {}
        self._kept: dict[str, _Kept] = {}  # the most recently saved last

    def renew(self) -> None:
        """Forget who of the parent process was inside; a child keeps what was kept."""
        self._mutex = threading.Lock()

    async def _write(self, session: Session, expect: Expectation, outcome: Outcome) -> None:
        outcome.parcel = parcel = await pack(session)
        with self._mutex:
            before = self._kept.get(parcel.session_id)
            require(expect, before.revision if before else None, parcel.session_id)
            self._keep(parcel, outcome)

    async def _read(self, session_id: str) -> Stored | None:
        return self._stored(session_id)

    def _stored(self, session_id: str) -> Stored | None:
        with self._mutex:  # a save takes the old state out before it puts the new one in
            kept = self._kept.get(session_id)
        if kept is None:
            return None
        header = codec.decode_head(kept.parcel.head)
        return Stored(header, Origin(kept.revision, kept.parcel.head, kept.parcel.records))

    async def _append(
        self, session_id: str, records: list[StoredRecord], expect: Expectation, outcome: Outcome
    ) -> None:
        with self._mutex:
            kept = self._kept.get(session_id)
            if kept is None:
                require(expect, None, session_id)
                raise not_found(session_id)
            require(expect, kept.revision, session_id)
            merged = put_records(kept.parcel.records, records)
            self._keep(kept.parcel._replace(records=merged), outcome)

    def _keep(self, parcel: Parcel, outcome: Outcome) -> None:
        self._kept.pop(parcel.session_id, None)
        outcome.revision = new_revision()
        kept = _Kept(parcel._replace(origin=None), outcome.revision, Timestamp.utc_now())
        self._kept[parcel.session_id] = kept

    async def _remove(self, session_id: str, expect: Expectation) -> bool:
        with self._mutex:
            kept = self._kept.get(session_id)
            if kept is None:
                return False
            require(expect, kept.revision, session_id)
            del self._kept[session_id]
        return True

    async def list_ids(self) -> list[str]:
        self._check_open()
        with self._mutex:
            return list(reversed(self._kept))

    async def list_for_agent(
        self,
        agent_id: str,
        *,
        on_error: OnError = "raise",  # noqa: ARG002 - nothing here can be damaged
    ) -> list[Session]:
        found: list[Session] = []
        for session_id in await self.list_ids():
            await pace.begin()
            try:
                stored = self._stored(session_id)
                if stored is not None and stored.header.agent_id == agent_id:
                    found.append(unpack(stored))
            finally:
                pace.end()
        return found

    async def infos(
        self,
        *,
        agent_id: str | None = None,
        active_after: datetime | None = None,
        limit: int | None = None,
        on_error: OnError = "raise",  # noqa: ARG002 - nothing here can be damaged
    ) -> AsyncIterator[SessionInfo]:
        self._check_open()
        selection = Selection(agent_id, active_after, limit)
        with self._mutex:
            newest_first = list(reversed(self._kept.values()))
        for parcel, revision, saved_at in newest_first:
            if selection.is_complete:
                return
            await pace.begin()
            try:
                size = len(parcel.head) + sum(len(record.text) for record in parcel.records)
                info = card(codec.decode_card(parcel.head), revision, saved_at, size)
            finally:
                pace.end()
            if selection.takes(info):
                yield info

    @asynccontextmanager
    async def lease(
        self,
        session_id: str,
        *,
        owner: str | None = None,
        timeout: float = 0.0,  # noqa: ASYNC109 - the contract's word
    ) -> AsyncGenerator[Lease]:
        self._check(session_id)
        lease = Lease.of_this_process(session_id, owner)
        patience = Patience.for_lease(timeout, session_id)
        try:
            turn = await self._turnstile.enter(session_id, patience)
        except SessionLockedError as error:
            raise patience.locked(self._leases.get(session_id)) from error
        try:
            self._leases[session_id] = lease
            yield lease
        finally:
            # If it is another's, the loop of this one was gone, and it was passed on.
            if self._leases.get(session_id) is lease:
                del self._leases[session_id]
            self._turnstile.leave(session_id, turn)
