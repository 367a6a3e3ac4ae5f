"""What every backend would otherwise write again."""

from __future__ import annotations

import asyncio
import secrets
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final, NamedTuple

from .. import codec
from ..change import Change, WatchedChange, put_loops
from ..codec import Origin, Parcel, StoredRecord
from ..errors import (
    SessionConflictError,
    SessionExistsError,
    SessionLockedError,
    SessionNotFoundError,
    SessionTaskError,
)
from ..ids import name_from_id
from ..model import LoopRecord, Revision, Session
from ..store import Expect, Expectation, SessionStore
from .pace import pace
from .patience import Patience
from .turnstile import Turnstile

__all__ = [
    "BaseStore",
    "Outcome",
    "Stored",
    "new_revision",
    "not_found",
    "pack",
    "require",
    "settling",
    "unpack",
]


_COURTESY: Final = 10.0
"""Seconds that an update waits for others of its process that were overtaken before it."""

_TURN: Final = 1.0
"""Seconds after which the next one goes on, too, if the change is async: it may take its time."""


class Outcome:
    """Where a backend puts what it stored, even if its caller is gone by then."""

    __slots__ = ("parcel", "revision")

    def __init__(self) -> None:
        self.parcel: Parcel | None = None
        self.revision: Revision | None = None


class Stored(NamedTuple):
    """A session as it was read: texts that were checked, and the header that they tell."""

    header: codec.Header
    origin: Origin

    @property
    def session_id(self) -> str:
        """The session."""
        return self.header.session_id


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


def not_found(session_id: str) -> SessionNotFoundError:
    """Return the error that says that nothing is stored under the id."""
    return SessionNotFoundError(f"session {session_id!r} not found", session_id=session_id)


class BaseStore(SessionStore):
    """A store whose backend sees parcels, not sessions.

    It checks ids before the backend hears of them, encodes and decodes, resolves
    `Expect.UNCHANGED`, keeps `session.revision` in step, and refuses calls after `aclose`.
    """

    def __init__(self) -> None:
        self._closed = False
        self._overtaken = Turnstile()

    @abstractmethod
    async def _write(self, session: Session, expect: Expectation, outcome: Outcome) -> None:
        """Store the parcel that `pack` makes of `session`, whole, if `expect` holds.

        Sets `outcome.parcel`, and `outcome.revision` as soon as the new state can be seen. Calls
        for one session take effect in the order in which they came, if the backend has a queue:
        it packs in its turn.
        """

    @abstractmethod
    async def _read(self, session_id: str) -> Stored | None:
        """Return what is stored under the id, or None."""

    @abstractmethod
    async def _append(
        self, session_id: str, records: list[StoredRecord], expect: Expectation, outcome: Outcome
    ) -> None:
        """Add `records`, or put them in the place of those with their `loop_id`."""

    @abstractmethod
    async def _remove(self, session_id: str, expect: Expectation) -> bool:
        """Remove what is stored if `expect` holds; False when nothing was."""

    async def save(self, session: Session, *, expect: Expectation = Expect.UNCHANGED) -> Revision:
        self._check(session.session_id)
        if expect is Expect.UNCHANGED and session.revision is not None:
            expect = session.revision
        with settling(session) as outcome:
            await self._write(session, expect, outcome)
        assert session.revision is not None
        return session.revision

    async def update(
        self,
        session_id: str,
        change: Change,
        *,
        create: Callable[[], Session] | None = None,
        attempts: int = 100,
    ) -> Session:
        if attempts < 2:
            return await super().update(session_id, change, create=create, attempts=attempts)
        watched = WatchedChange(change)
        made, expect = await self._changed(session_id, watched, create)
        with suppress(SessionConflictError, SessionExistsError):  # it was overtaken
            await self.save(made, expect=expect)
            return made
        # One by one, as only one of many could succeed; and quick ones do not wait for slow ones.
        kind = "async" if watched.is_async else "plain"
        turn = _TURN if watched.is_async else _COURTESY
        async with _in_line(self._overtaken, f"{kind} {session_id}", turn):
            return await self._update_again(session_id, watched, create, attempts - 1)

    async def _update_again(
        self,
        session_id: str,
        change: WatchedChange,
        create: Callable[[], Session] | None,
        attempts: int,
    ) -> Session:
        """Make an update that was overtaken once; no other of this process tries just now."""
        return await super().update(session_id, change, create=create, attempts=attempts)

    async def append(self, session: str | Session, *loops: LoopRecord) -> Revision:
        session_id = session if isinstance(session, str) else session.session_id
        revision = None if isinstance(session, str) else session.revision
        self._check(session_id)
        if not loops or (revision is None and not isinstance(session, str)):
            return await super().append(session, *loops)
        records = codec.encode_loops(loops, session_id)
        # As it is now: while this waits, the object may be saved to another store.
        origin = None if isinstance(session, str) else codec.origin_of(session)
        outcome = Outcome()
        try:
            await self._append(session_id, records, revision or Expect.UNCHANGED, outcome)
        finally:
            if outcome.revision is not None and not isinstance(session, str):
                put_loops(session, loops)
                session.revision = outcome.revision
                if origin is not None:
                    merged = codec.put_records(origin.records, records)
                    _settle(session, Origin(outcome.revision, origin.head, merged))
        assert outcome.revision is not None
        return outcome.revision

    async def load(self, session_id: str) -> Session:
        self._check(session_id)
        stored = await self._read(session_id)
        if stored is None:
            raise not_found(session_id)
        return unpack(stored)

    async def delete(self, session_id: str, *, expect: Expectation = Expect.ANYTHING) -> None:
        self._check(session_id)
        if not await self._remove(session_id, expect):
            raise not_found(session_id)

    async def aclose(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise SessionTaskError("the store is closed")

    def _check(self, session_id: str) -> None:
        self._check_open()
        name_from_id(session_id)


@asynccontextmanager
async def _in_line(line: Turnstile, key: str, longest: float) -> AsyncGenerator[None]:
    """Wait for those before, for a while, and have those behind wait for `longest` seconds.

    It is only to spare everybody vain attempts.
    """
    turn = None
    with suppress(SessionLockedError):
        turn = await line.enter(key, Patience(_COURTESY, None))
    if turn is None:
        yield
        return
    timer = asyncio.get_running_loop().call_later(longest, line.leave, key, turn)
    try:
        yield
    finally:
        timer.cancel()
        line.leave(key, turn)


@contextmanager
def settling(session: Session) -> Generator[Outcome]:
    """Give an outcome for a save of `session`, and keep the object in step with it."""
    outcome = Outcome()
    try:
        yield outcome
    finally:
        if outcome.revision is not None and outcome.parcel is not None:
            parcel = outcome.parcel
            _settle(session, Origin(outcome.revision, parcel.head, parcel.records))


async def pack(session: Session) -> Parcel:
    """Return `session` encoded, leaving the loop its turns.

    Raises:
        SessionEncodeError: It could not be read again.
    """
    await pace.begin()
    try:
        head = codec.encode_head(session)
        records: list[StoredRecord] = []
        for record in codec.encode_records(session):
            records.append(record)
            await pace.step()
    finally:
        pace.end()
    return Parcel(session.session_id, session.agent_id, head, records, codec.origin_of(session))


def _settle(session: Session, origin: Origin) -> None:
    session.revision = origin.revision
    session.loops.origin = origin


def unpack(stored: Stored) -> Session:
    """Return the session; its records are decoded when they are looked at."""
    return codec.decode(stored.header, stored.origin)
