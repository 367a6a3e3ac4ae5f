"""Changing what is stored so that nobody's change is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from conftest import scaled
from contract_samples import a_loop, a_session, content, state

from phi_sessions import (
    Expect,
    Expectation,
    FileSystemSessionStore,
    InvalidSessionIdError,
    MemorySessionStore,
    Revision,
    Session,
    SessionConflictError,
    SessionEncodeError,
    SessionError,
    SessionExistsError,
    SessionNotFoundError,
    SessionStore,
    SessionTaskError,
)


class FourMethods(SessionStore):
    """A backend's four methods and no more, so that all else is the contract's own."""

    def __init__(self) -> None:
        self._inner = MemorySessionStore()

    async def save(self, session: Session, *, expect: Expectation = Expect.UNCHANGED) -> Revision:
        return await self._inner.save(session, expect=expect)

    async def load(self, session_id: str) -> Session:
        return await self._inner.load(session_id)

    async def list_ids(self) -> list[str]:
        return await self._inner.list_ids()

    async def delete(self, session_id: str, *, expect: Expectation = Expect.ANYTHING) -> None:
        await self._inner.delete(session_id, expect=expect)

    async def aclose(self) -> None:
        await self._inner.aclose()


@pytest.fixture(params=["memory", "file", "four methods"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SessionStore]:
    """The stores of every test, and one that leaves all it can to the contract."""
    made: SessionStore
    if request.param == "memory":
        made = MemorySessionStore()
    elif request.param == "file":
        made = FileSystemSessionStore(tmp_path / "sessions")
    else:
        made = FourMethods()
    async with made:
        yield made


def count(session: Session) -> None:
    session.metadata["count"] = session.metadata.get("count", 0) + 1


async def test_a_change_in_place_is_stored_and_returned(store: SessionStore) -> None:
    session = a_session()
    before = await store.save(session)
    updated = await store.update("s-1", count)
    stored = await store.load("s-1")
    assert content(stored) == content(updated)
    assert stored.loops == session.loops
    assert stored.metadata == {"count": 1}
    assert updated.revision == stored.revision != before


async def test_another_session_that_the_change_returns_is_stored(store: SessionStore) -> None:
    await store.save(a_session())
    other = a_session(loops=3, metadata={"other": True})
    updated = await store.update("s-1", lambda _: other)
    assert updated is other
    stored = await store.load("s-1")
    assert content(stored) == content(other)
    assert stored.revision == other.revision


async def test_a_change_may_be_async(store: SessionStore) -> None:
    await store.save(a_session())

    async def slowly(session: Session) -> None:
        await asyncio.sleep(0)
        count(session)

    async def other(session: Session) -> Session:
        await asyncio.sleep(0)
        return a_session(metadata={"count": 7})

    await store.update("s-1", slowly)
    assert (await store.load("s-1")).metadata == {"count": 1}
    await store.update("s-1", other)
    assert (await store.load("s-1")).metadata == {"count": 7}


async def test_an_updated_object_can_be_saved_again(store: SessionStore) -> None:
    await store.save(a_session())
    updated = await store.update("s-1", count)
    updated.loops.append(a_loop("s-1", 9))
    await store.save(updated)
    assert (await store.load("s-1")).loops.ids() == ["s-1.loop.0", "s-1.loop.9"]


async def test_a_holder_from_before_an_update_is_stale(store: SessionStore) -> None:
    holder = a_session()
    await store.save(holder)
    updated = await store.update("s-1", count)
    with pytest.raises(SessionConflictError) as caught:
        await store.save(holder)
    assert caught.value.found == updated.revision


async def test_a_missing_session_is_not_found_without_create(store: SessionStore) -> None:
    calls: list[Session] = []
    with pytest.raises(SessionNotFoundError):
        await store.update("s-1", calls.append)
    assert calls == []
    assert await store.list_ids() == []


async def test_create_builds_what_is_not_there_and_only_that(store: SessionStore) -> None:
    built: list[Session] = []

    def create() -> Session:
        built.append(a_session(loops=0, metadata={"created": True}))
        return built[-1]

    for _ in range(2):
        await store.update("s-1", count, create=create)
    assert len(built) == 1
    assert (await store.load("s-1")).metadata == {"created": True, "count": 2}


async def test_what_was_created_with_another_id_is_refused(store: SessionStore) -> None:
    with pytest.raises(ValueError, match="s-2"):
        await store.update("s-1", count, create=lambda: a_session("s-2"))
    assert await store.list_ids() == []


async def test_a_change_that_gives_no_session_is_refused(store: SessionStore) -> None:
    await store.save(a_session())
    before = await state(store)
    with pytest.raises(TypeError, match="gave int"):
        await store.update("s-1", lambda session: session.metadata.setdefault("n", 7))
    assert await state(store) == before


async def test_a_change_to_another_id_is_refused(store: SessionStore) -> None:
    await store.save(a_session())
    await store.save(a_session("s-2"))
    before = await state(store)

    def rename(session: Session) -> None:
        session.session_id = "s-2"

    for change in (rename, lambda _: a_session("s-3")):
        with pytest.raises(ValueError, match="gave"):
            await store.update("s-1", change)
    assert await state(store) == before


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
async def test_what_a_change_raises_is_passed_on_and_nothing_is_stored(
    store: SessionStore, is_async: bool
) -> None:
    await store.save(a_session())
    before = await state(store)

    def fail(session: Session) -> None:
        count(session)
        raise ZeroDivisionError

    async def fail_later(session: Session) -> None:
        await asyncio.sleep(0)
        fail(session)

    with pytest.raises(ZeroDivisionError):
        await store.update("s-1", fail_later if is_async else fail)
    assert await state(store) == before
    with pytest.raises(ZeroDivisionError):
        await store.update("s-2", count, create=lambda: a_session("s-2", loops=1 // 0))
    assert await state(store) == before


@pytest.mark.parametrize("kind", [SessionConflictError, SessionExistsError])
@pytest.mark.parametrize("where", ["plain", "async", "create"])
async def test_a_conflict_that_a_change_raises_itself_is_passed_on_at_once(
    store: SessionStore, kind: type[SessionError], where: str
) -> None:
    calls = 0

    def fail(*_: Session) -> Session:
        nonlocal calls
        calls += 1
        raise kind("of another session", session_id="s-2")

    async def fail_later(session: Session) -> Session:
        await asyncio.sleep(0)
        return fail(session)

    with pytest.raises(kind) as caught:
        await store.update(
            "s-1",
            fail_later if where == "async" else fail,
            create=fail if where == "create" else a_session,
        )
    assert caught.value.session_id == "s-2"
    assert calls == 1


async def test_a_change_that_cannot_be_stored_is_refused(store: SessionStore) -> None:
    await store.save(a_session())
    before = await state(store)
    with pytest.raises(SessionEncodeError):
        await store.update("s-1", lambda s: s.metadata.update(x=float("nan")))
    assert await state(store) == before


async def test_each_attempt_sees_fresh_data(store: SessionStore) -> None:
    await store.save(a_session(loops=0, metadata={"count": 0}))
    seen: list[tuple[int, int]] = []

    async def meet_others(session: Session) -> None:
        seen.append((id(session), session.metadata["count"]))
        objects.append(session)
        if len(seen) <= 3:
            other = await store.load("s-1")
            other.metadata["count"] += 10
            await store.save(other)
        session.metadata["count"] += 1

    objects: list[Session] = []
    await store.update("s-1", meet_others)
    assert [value for _, value in seen] == [0, 10, 20, 30]
    assert len({identity for identity, _ in seen}) == 4
    assert (await store.load("s-1")).metadata == {"count": 31}


async def test_the_change_is_tried_so_often_and_then_the_conflict_is_raised(
    store: SessionStore,
) -> None:
    await store.save(a_session(loops=0))
    calls = 0

    async def be_late(session: Session) -> None:
        nonlocal calls
        calls += 1
        other = await store.load("s-1")
        other.metadata["other"] = calls
        await store.save(other)
        session.metadata["mine"] = True

    for attempts in (1, 3):
        calls = 0
        with pytest.raises(SessionConflictError):
            await store.update("s-1", be_late, attempts=attempts)
        assert calls == attempts
        assert (await store.load("s-1")).metadata == {"other": attempts}


async def test_a_session_that_others_make_each_time_is_a_conflict_too(store: SessionStore) -> None:
    async def be_late(session: Session) -> None:
        await store.save(a_session("s-1", "other"), expect=Expect.ANYTHING)

    async def gone_meanwhile() -> None:
        await store.delete("s-1")

    with pytest.raises(SessionExistsError):
        await store.update("s-1", be_late, create=lambda: a_session(loops=0), attempts=1)
    assert (await store.load("s-1")).agent_id == "other"
    await gone_meanwhile()
    updated = await store.update("s-1", count, create=lambda: a_session(loops=0))
    assert updated.agent_id == "agent-1"


async def test_a_session_deleted_meanwhile_is_not_brought_back(store: SessionStore) -> None:
    await store.save(a_session())

    async def delete(session: Session) -> None:
        await store.delete("s-1")

    with pytest.raises(SessionNotFoundError):
        await store.update("s-1", delete)
    assert await store.list_ids() == []


async def test_no_attempts_at_all_is_a_mistake(store: SessionStore) -> None:
    await store.save(a_session())
    before = await state(store)
    with pytest.raises(ValueError, match="attempts"):
        await store.update("s-1", count, attempts=0)
    assert await state(store) == before


async def test_many_tasks_lose_nothing(store: SessionStore) -> None:
    tasks = scaled(50)

    async def add(number: int) -> None:
        def change(session: Session) -> None:
            count(session)
            session.loops.append(a_loop("s-1", number))

        await store.update("s-1", change, create=lambda: a_session(loops=0))

    await asyncio.gather(*(add(number) for number in range(tasks)))
    stored = await store.load("s-1")
    assert stored.metadata == {"count": tasks}
    assert sorted(stored.loops.ids()) == sorted(f"s-1.loop.{n}" for n in range(tasks))


async def test_a_cancelled_update_leaves_the_old_session_or_the_new(store: SessionStore) -> None:
    await store.save(a_session(loops=0, metadata={"count": 0}))
    last = 0
    for turns in range(30):
        task = asyncio.create_task(store.update("s-1", count))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        found = (await store.load("s-1")).metadata["count"]
        assert found in (last, last + 1)
        if not task.cancelled():
            assert found == last + 1
        last = found


async def test_an_update_is_refused_by_a_closed_store_and_for_an_invalid_id(
    store: SessionStore,
) -> None:
    with pytest.raises(InvalidSessionIdError):
        await store.update("", count)
    await store.aclose()
    with pytest.raises(SessionTaskError):
        await store.update("s-1", count)
