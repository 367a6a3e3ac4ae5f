"""What every backend would otherwise write again."""

from __future__ import annotations

import secrets
from abc import abstractmethod

from .. import codec
from ..codec import Parcel, StoredRecord
from ..errors import (
    SessionConflictError,
    SessionExistsError,
    SessionNotFoundError,
    SessionTaskError,
)
from ..ids import name_from_id
from ..model import Revision, Session
from ..store import Expect, Expectation, SessionInfo, SessionStore
from ..timestamp import Timestamp
from .pace import Pace

__all__ = ["BaseStore", "Outcome", "Stored", "card", "new_revision", "pack", "require", "unpack"]

_pace = Pace()


class Outcome:
    """Where a backend puts the revision of what it stored, even if its caller is gone by then."""

    __slots__ = ("revision",)

    def __init__(self) -> None:
        self.revision: Revision | None = None


class Stored:
    """A session as it was read: texts that were checked, and their revision."""

    __slots__ = ("header", "records", "revision")

    def __init__(
        self, header: codec.Header, records: list[StoredRecord], revision: Revision
    ) -> None:
        self.header = header
        self.records = records
        self.revision = revision


def new_revision() -> Revision:
    """Return a revision that no other state has."""
    return Revision(secrets.token_hex(8))


def require(expect: Expectation, found: Revision | None, session_id: str) -> None:
    """Hold the stored revision, None if absent, against what was expected.

    `Expect.UNCHANGED` stands for a session that was built by hand: any sound state will do.

    Raises:
        SessionExistsError: It should be absent.
        SessionConflictError: It should be another.
    """
    if expect in (Expect.ANYTHING, Expect.UNCHANGED) or found == expect:
        return
    if expect is not Expect.ABSENT:
        state = "it is gone" if found is None else f"{found} is stored"
        raise SessionConflictError(
            f"session {session_id!r} was changed meanwhile: {expect} was expected, {state}",
            session_id=session_id,
            expected=str(expect),
            found=found,
        )
    if found is not None:
        raise SessionExistsError(f"session {session_id!r} already exists", session_id=session_id)


def card(
    header: codec.Card | codec.Header, revision: Revision, saved_at: Timestamp, size: int
) -> SessionInfo:
    """Return the card of a stored session."""
    return SessionInfo(
        session_id=header.session_id,
        agent_id=header.agent_id,
        created_at=header.created_at,
        last_active_at=header.last_active_at,
        saved_at=saved_at,
        metadata=header.metadata or {},
        revision=revision,
        size=size,
    )


class BaseStore(SessionStore):
    """A store whose backend sees parcels, not sessions.

    It checks ids before the backend hears of them, encodes and decodes, resolves
    `Expect.UNCHANGED`, keeps `session.revision` in step, and refuses calls after `aclose`.
    """

    def __init__(self) -> None:
        self._closed = False

    @abstractmethod
    async def _write(self, session: Session, expect: Expectation, outcome: Outcome) -> None:
        """Store the parcel that `pack` makes of `session`, whole, if `expect` holds.

        Sets `outcome.revision` as soon as the new state can be seen. Calls for one session take
        effect in the order in which they came, if the backend has a queue: it packs in its turn.
        """

    @abstractmethod
    async def _read(self, session_id: str) -> Stored | None:
        """Return what is stored under the id, or None."""

    @abstractmethod
    async def _remove(self, session_id: str, expect: Expectation) -> bool:
        """Remove what is stored if `expect` holds; False when nothing was."""

    async def save(self, session: Session, *, expect: Expectation = Expect.UNCHANGED) -> Revision:
        self._check(session.session_id)
        if expect is Expect.UNCHANGED and session.revision is not None:
            expect = session.revision
        outcome = Outcome()
        try:
            await self._write(session, expect, outcome)
        finally:
            if outcome.revision is not None:
                session.revision = outcome.revision
        assert session.revision is not None
        return session.revision

    async def load(self, session_id: str) -> Session:
        self._check(session_id)
        stored = await self._read(session_id)
        if stored is None:
            raise self._not_found(session_id)
        return unpack(stored)

    async def delete(self, session_id: str, *, expect: Expectation = Expect.ANYTHING) -> None:
        self._check(session_id)
        if not await self._remove(session_id, expect):
            raise self._not_found(session_id)

    async def aclose(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise SessionTaskError("the store is closed")

    def _check(self, session_id: str) -> None:
        self._check_open()
        name_from_id(session_id)

    @staticmethod
    def _not_found(session_id: str) -> SessionNotFoundError:
        return SessionNotFoundError(f"session {session_id!r} not found", session_id=session_id)


async def pack(session: Session) -> Parcel:
    """Return `session` encoded, leaving the loop its turns.

    Raises:
        SessionEncodeError: It could not be read again.
    """
    await _pace.begin()
    try:
        head = codec.encode_head(session)
        records: list[StoredRecord] = []
        for record in codec.encode_records(session):
            records.append(record)
            await _pace.step()
    finally:
        _pace.end()
    return Parcel(session.session_id, session.agent_id, head, records)


def unpack(stored: Stored) -> Session:
    """Return the session; its records are decoded when they are looked at."""
    return codec.decode(stored.header, stored.records, stored.revision)
