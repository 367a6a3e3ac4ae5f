"""What works on any store that has the four methods of a backend and no more."""

from __future__ import annotations

import asyncio
import copy
from datetime import UTC, datetime, timedelta

import pytest
from contract_samples import a_loop, a_session, content

from phi_sessions import (
    Expect,
    Expectation,
    InvalidSessionIdError,
    Revision,
    Session,
    SessionConflictError,
    SessionCorruptError,
    SessionExistsError,
    SessionIOError,
    SessionNotFoundError,
    SessionStore,
    Timestamp,
)


class FourMethods(SessionStore):
    """The least that a backend can be."""

    def __init__(self) -> None:
        self.kept: dict[str, Session] = {}
        self.saves = 0
        self.loads: list[str] = []
        self.vanished: set[str] = set()  # listed, and gone when it is loaded
        self.damaged: dict[str, Exception] = {}

    async def save(self, session: Session, *, expect: Expectation = Expect.UNCHANGED) -> Revision:
        before = self.kept.pop(session.session_id, None)
        self.saves += 1
        session.revision = Revision(str(self.saves))
        self.kept[session.session_id] = copy.deepcopy(session)
        assert before is None or expect in (Expect.UNCHANGED, before.revision)
        return session.revision

    async def load(self, session_id: str) -> Session:
        self.loads.append(session_id)
        if not session_id:
            raise InvalidSessionIdError("empty", session_id=session_id)
        if session_id in self.damaged:
            raise self.damaged[session_id]
        if session_id in self.vanished or session_id not in self.kept:
            raise SessionNotFoundError("gone", session_id=session_id)
        return copy.deepcopy(self.kept[session_id])

    async def list_ids(self) -> list[str]:
        return [*reversed(self.kept)]

    async def delete(self, session_id: str, *, expect: Expectation = Expect.ANYTHING) -> None:
        del self.kept[session_id]


@pytest.fixture
async def four() -> FourMethods:
    store = FourMethods()
    for n in range(6):
        moment = Timestamp.from_datetime(datetime(2024, 1, 1 + n, tzinfo=UTC))
        await store.save(
            a_session(f"s-{n}", f"agent-{n % 2}", last_active_at=moment, metadata={"n": n})
        )
    return store


def test_a_store_that_lacks_one_of_the_four_cannot_be_made() -> None:
    assert SessionStore.__abstractmethods__ == {"save", "load", "list_ids", "delete"}
    for missing in ("save", "load", "list_ids", "delete"):
        methods = {name: getattr(FourMethods, name) for name in SessionStore.__abstractmethods__}
        del methods[missing]
        with pytest.raises(TypeError, match=missing):
            type("Incomplete", (SessionStore,), methods)()


async def test_find_and_exists_rest_on_load(four: FourMethods) -> None:
    found = await four.find("s-1")
    assert found is not None
    assert content(found) == content(four.kept["s-1"])
    assert await four.find("nobody") is None
    assert (await four.exists("s-1"), await four.exists("nobody")) == (True, False)


async def test_a_damaged_session_exists_and_find_says_what_is_wrong(four: FourMethods) -> None:
    four.damaged["s-1"] = SessionCorruptError("damaged", session_id="s-1")
    assert await four.exists("s-1") is True
    with pytest.raises(SessionCorruptError):
        await four.find("s-1")


async def test_errors_other_than_absence_pass_through(four: FourMethods) -> None:
    four.damaged["s-1"] = SessionIOError("disk", session_id="s-1", errno=5)
    for call in (four.find("s-1"), four.exists("s-1"), four.list_for_agent("agent-1")):
        with pytest.raises(SessionIOError):
            await call
    with pytest.raises(InvalidSessionIdError):
        await four.exists("")


async def test_list_for_agent_gives_the_agents_sessions_newest_first(four: FourMethods) -> None:
    found = await four.list_for_agent("agent-1")
    assert [session.session_id for session in found] == ["s-5", "s-3", "s-1"]
    assert [session.revision for session in found] == ["6", "4", "2"]
    assert await four.list_for_agent("nobody") == []


async def test_sessions_that_vanish_meanwhile_are_left_out(four: FourMethods) -> None:
    four.vanished = {"s-5", "s-4"}
    assert [s.session_id for s in await four.list_for_agent("agent-1")] == ["s-3", "s-1"]
    assert [i.session_id async for i in four.infos()] == ["s-3", "s-2", "s-1", "s-0"]


async def test_a_damaged_session_is_raised_or_skipped_as_asked(four: FourMethods) -> None:
    four.damaged["s-3"] = SessionCorruptError("damaged", session_id="s-3")
    with pytest.raises(SessionCorruptError):
        await four.list_for_agent("agent-1")
    with pytest.raises(SessionCorruptError):
        [info async for info in four.infos()]
    found = await four.list_for_agent("agent-1", on_error="skip")
    assert [session.session_id for session in found] == ["s-5", "s-1"]
    cards = [info.session_id async for info in four.infos(on_error="skip")]
    assert cards == ["s-5", "s-4", "s-2", "s-1", "s-0"]


async def test_infos_filters_limits_and_tells_what_a_session_tells(four: FourMethods) -> None:
    cards = [info async for info in four.infos(agent_id="agent-1")]
    assert [info.session_id for info in cards] == ["s-5", "s-3", "s-1"]
    assert cards[0].metadata == {"n": 5}
    assert cards[0].revision == "6"
    assert (cards[0].saved_at, cards[0].size) == (None, None)
    after = datetime(2024, 1, 3, tzinfo=UTC)
    assert [i.session_id async for i in four.infos(active_after=after)] == ["s-5", "s-4", "s-3"]
    assert [i.session_id async for i in four.infos(limit=2)] == ["s-5", "s-4"]
    assert [i.session_id async for i in four.infos(limit=0)] == []
    with pytest.raises(ValueError, match="time zone"):
        [i async for i in four.infos(active_after=datetime(2024, 1, 1))]  # noqa: DTZ001
    with pytest.raises(ValueError, match="negative"):
        [i async for i in four.infos(limit=-1)]


async def test_infos_loads_no_more_than_it_gives(four: FourMethods) -> None:
    four.loads.clear()
    assert [i.session_id async for i in four.infos(limit=2)] == ["s-5", "s-4"]
    assert four.loads == ["s-5", "s-4"]
    four.loads.clear()
    cards = four.infos()
    assert (await anext(cards)).session_id == "s-5"
    await cards.aclose()  # type: ignore[attr-defined]
    assert four.loads == ["s-5"]


async def test_async_with_works_on_a_store_with_nothing_to_close(four: FourMethods) -> None:
    async with four as entered:
        assert entered is four
    await four.aclose()
    await four.aclose()


async def test_conflict_errors_of_a_backend_reach_the_caller_unchanged(four: FourMethods) -> None:
    for error in (
        SessionConflictError("stale", session_id="s-1", expected="1", found="2"),
        SessionExistsError("there", session_id="s-1"),
    ):
        four.damaged["s-1"] = error
        with pytest.raises(type(error)) as caught:
            await four.find("s-1")
        assert caught.value is error


async def test_prune_goes_by_the_activity_where_no_time_of_saving_is_told(
    four: FourMethods,
) -> None:
    recent = a_session("recent", last_active_at=Timestamp.utc_now())
    await four.save(recent)
    assert await four.prune(older_than=timedelta(days=1), keep_last=3) == [
        "s-3",
        "s-2",
        "s-1",
        "s-0",
    ]
    assert await four.list_ids() == ["recent", "s-5", "s-4"]


async def test_append_by_object_stores_the_loops_and_nothing_else_of_the_object(
    four: FourMethods,
) -> None:
    session = await four.load("s-1")
    session.metadata["mine"] = 1
    session.loops.append(a_loop("s-1", 5))
    revision = await four.append(session, a_loop("s-1", 6))
    assert session.revision == revision == four.kept["s-1"].revision
    assert [loop.metadata["number"] for loop in session.loops] == [0, 5, 6]
    assert [loop.metadata["number"] for loop in four.kept["s-1"].loops] == [0, 6]
    assert four.kept["s-1"].metadata == {"n": 1}


class SavesUntold(FourMethods):
    """Saves, and its caller is cancelled before it is told."""

    async def save(self, session: Session, *, expect: Expectation = Expect.UNCHANGED) -> Revision:
        await super().save(session, expect=expect)
        raise asyncio.CancelledError


@pytest.mark.parametrize("is_stored", [True, False])
async def test_an_append_that_was_made_is_known_to_the_session_though_the_caller_was_not_told(
    is_stored: bool,
) -> None:
    store, session = SavesUntold(), a_session("s-1")
    if is_stored:
        await FourMethods.save(store, session)
    with pytest.raises(asyncio.CancelledError):
        await store.append(session, a_loop("s-1", 7))
    stored = store.kept["s-1"]
    assert session.revision == stored.revision
    assert session.loops.ids() == stored.loops.ids() == ["s-1.loop.0", "s-1.loop.7"]
