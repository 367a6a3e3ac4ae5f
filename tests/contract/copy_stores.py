"""Stores to copy from and to, and what a copy is held to."""

from __future__ import annotations

from datetime import UTC, datetime

from contract_samples import a_session, state

from phi_sessions import (
    Expect,
    Expectation,
    LoopRecord,
    MemorySessionStore,
    Revision,
    Session,
    SessionError,
    SessionStore,
    Timestamp,
)


async def filled(store: SessionStore, count: int = 12) -> list[str]:
    """Save sessions of two agents to `store`, and return their ids, the newest first."""
    for n in range(count):
        moment = Timestamp.from_datetime(datetime(2024, 1, 1 + n, tzinfo=UTC))
        session = a_session(
            f"s/{n}", f"agent-{n % 2}", loops=n % 4, last_active_at=moment, metadata={"n": n}
        )
        await store.save(session)
    return await store.list_ids()


async def contents(store: SessionStore) -> list[Session]:
    """Return all that a store holds, newest first."""
    return [session for session, _ in await state(store)]


class ReadOnly(MemorySessionStore):
    """Fails a test that writes to it once it is frozen; remembers what it gave out."""

    frozen = False

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Session] = []

    async def find(self, session_id: str) -> Session | None:
        found = await super().find(session_id)
        if found is not None:
            self.given.append(found)
        return found

    async def save(self, session: Session, *, expect: Expectation = Expect.UNCHANGED) -> Revision:
        assert not self.frozen
        return await super().save(session, expect=expect)

    async def append(self, session: str | Session, *loops: LoopRecord) -> Revision:
        raise AssertionError

    async def delete(self, session_id: str, *, expect: Expectation = Expect.ANYTHING) -> None:
        raise AssertionError


class Refusing(MemorySessionStore):
    """A target that refuses one session."""

    def __init__(self, error: SessionError) -> None:
        super().__init__()
        self.error = error

    async def save(self, session: Session, *, expect: Expectation = Expect.UNCHANGED) -> Revision:
        if session.session_id == "s/5":
            raise self.error
        return await super().save(session, expect=expect)
