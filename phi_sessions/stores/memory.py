"""Sessions in memory: for tests and short-lived agents."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from datetime import datetime
from typing import NamedTuple

from .. import codec
from ..codec import Parcel
from ..model import Revision, Session
from ..store import Expectation, OnError, Selection, SessionInfo
from ..timestamp import Timestamp
from .base import BaseStore, Outcome, Stored, card, new_revision, pack, require
from .forking import renew_in_child

__all__ = ["MemorySessionStore"]


class _Kept(NamedTuple):
    parcel: Parcel
    revision: Revision
    saved_at: Timestamp


class MemorySessionStore(BaseStore):
    """Keeps sessions in this object, encoded, so that nothing is shared with the caller.

    It promises what every store promises to tasks, threads and event loops of one process. It
    shares nothing with other processes, and nothing outlives it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.renew()
        renew_in_child(self)
        self._kept: dict[str, _Kept] = {}  # the most recently saved last

    def renew(self) -> None:
        """Forget who of the parent process was inside; a child keeps what was kept."""
        self._mutex = threading.Lock()

    async def _write(self, session: Session, expect: Expectation, outcome: Outcome) -> None:
        parcel = await pack(session)
        revision = new_revision()
        with self._mutex:
            before = self._kept.get(parcel.session_id)
            require(expect, before.revision if before else None, parcel.session_id)
            self._kept.pop(parcel.session_id, None)
            self._kept[parcel.session_id] = _Kept(parcel, revision, Timestamp.utc_now())
        outcome.revision = revision

    async def _read(self, session_id: str) -> Stored | None:
        kept = self._kept.get(session_id)
        if kept is None:
            return None
        header = codec.decode_head(kept.parcel.head)
        return Stored(header, kept.parcel.records, kept.revision)

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
            size = len(parcel.head) + sum(len(record.text) for record in parcel.records)
            info = card(codec.decode_card(parcel.head), revision, saved_at, size)
            if selection.takes(info):
                yield info
