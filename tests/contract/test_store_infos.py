"""Cards of sessions: what they tell, and which are given."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import pytest
from contract_samples import a_session

from phi_sessions import FileSystemSessionStore, SessionStore, Timestamp


async def ids(store: SessionStore, **wanted: object) -> list[str]:
    return [info.session_id async for info in store.infos(**wanted)]  # type: ignore[arg-type]


async def test_a_card_tells_what_the_session_tells(store: SessionStore) -> None:
    session = a_session(
        "größe/1",
        "agent \U0001f600",
        loops=4,
        created_at=Timestamp.parse("2024-02-29T12:34:56.123456789Z"),
        last_active_at=Timestamp.parse("2024-03-01T00:00:00.000000001Z"),
        metadata={"title": "a \U0001f600", "nested": {"list": [1, 2.5, None]}},
    )
    before = Timestamp.utc_now()
    await store.save(session)
    [info] = [info async for info in store.infos()]
    assert (info.session_id, info.agent_id) == (session.session_id, session.agent_id)
    assert (info.created_at, info.last_active_at) == (session.created_at, session.last_active_at)
    assert str(info.created_at) == "2024-02-29T12:34:56.123456789Z"
    assert info.metadata == session.metadata
    assert info.revision == session.revision
    assert info.size is None or info.size > 0
    assert info.saved_at is None or before <= info.saved_at <= Timestamp.utc_now()


async def test_a_cards_revision_serves_as_a_precondition(store: SessionStore) -> None:
    await store.save(a_session())
    [info] = [info async for info in store.infos()]
    await store.save(a_session(), expect=info.revision)
    [info] = [info async for info in store.infos()]
    await store.delete("s-1", expect=info.revision)
    assert await store.list_ids() == []


async def test_a_cards_metadata_is_the_callers_own(store: SessionStore) -> None:
    await store.save(a_session(metadata={"tags": ["a"]}))
    [info] = [info async for info in store.infos()]
    info.metadata["tags"].append("b")
    [again] = [info async for info in store.infos()]
    assert again.metadata == {"tags": ["a"]}
    assert (await store.load("s-1")).metadata == {"tags": ["a"]}


async def test_cards_can_be_asked_for_one_agent(store: SessionStore) -> None:
    for n in range(6):
        await store.save(a_session(f"s-{n}", f"agent-{n % 2}"))
    assert await ids(store, agent_id="agent-1") == ["s-5", "s-3", "s-1"]
    assert await ids(store, agent_id="agent-") == []
    assert await ids(store, agent_id="") == []
    assert await ids(store, agent_id="agent-0", limit=2) == ["s-4", "s-2"]


@pytest.mark.parametrize(
    "limit", [0, 1, 2, 16, 17, 39, 40, 41, 1000, 2**50 + 1, sys.maxsize, 2**63, 10**30]
)
async def test_limit_gives_the_newest(store: SessionStore, limit: int) -> None:
    saved = [f"s-{n}" for n in range(40)]
    for session_id in saved:
        await store.save(a_session(session_id, loops=0))
    assert await ids(store, limit=limit) == saved[::-1][:limit]
    assert await ids(store, limit=limit, agent_id="agent-1") == saved[::-1][:limit]


async def test_limit_counts_only_what_is_given(store: SessionStore) -> None:
    for n in range(60):
        await store.save(a_session(f"s-{n:02}", "rare" if n % 20 == 0 else "often", loops=0))
    assert await ids(store, agent_id="rare", limit=3) == ["s-40", "s-20", "s-00"]
    assert await ids(store, agent_id="rare", limit=2) == ["s-40", "s-20"]


async def test_active_after_is_exact_to_the_nanosecond_and_excludes_the_moment(
    store: SessionStore,
) -> None:
    for n in range(4):
        moment = Timestamp.parse(f"2024-01-01T00:00:00.00000000{n}Z")
        await store.save(a_session(f"s-{n}", last_active_at=moment))
    second = Timestamp.parse("2024-01-01T00:00:00.000000001Z")
    assert await ids(store, active_after=second) == ["s-3", "s-2"]
    assert await ids(store, active_after=datetime(2024, 1, 1, tzinfo=UTC)) == ["s-3", "s-2", "s-1"]
    later = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(microseconds=1)
    assert await ids(store, active_after=later) == []
    assert await ids(store, active_after=second, agent_id="agent-1", limit=1) == ["s-3"]


async def test_active_after_takes_any_zone(store: SessionStore) -> None:
    await store.save(a_session(last_active_at=Timestamp.parse("2024-01-01T02:00:00+02:00")))
    assert await ids(store, active_after=Timestamp.parse("2023-12-31T19:59:59-04:00")) == ["s-1"]
    assert await ids(store, active_after=Timestamp.parse("2023-12-31T20:00:00-04:00")) == []


async def test_a_time_without_a_zone_is_refused(store: SessionStore) -> None:
    with pytest.raises(ValueError, match="time zone"):
        await ids(store, active_after=datetime(2024, 1, 1))  # noqa: DTZ001 - the point


async def test_a_negative_limit_is_refused(store: SessionStore) -> None:
    with pytest.raises(ValueError, match="negative"):
        await ids(store, limit=-1)


async def test_whoever_has_seen_enough_may_stop(store: SessionStore) -> None:
    for n in range(40):
        await store.save(a_session(f"s-{n}", loops=0))
    cards = store.infos()
    seen = []
    async for info in cards:
        seen.append(info.session_id)
        if len(seen) == 3:
            break
    await cards.aclose()  # type: ignore[attr-defined]
    assert seen == ["s-39", "s-38", "s-37"]
    assert [info async for info in cards] == []
    never_begun = store.infos()
    await never_begun.aclose()  # type: ignore[attr-defined]
    assert len(await ids(store)) == 40


async def test_two_listings_at_once_do_not_disturb_each_other(store: SessionStore) -> None:
    for n in range(20):
        await store.save(a_session(f"s-{n}", loops=0))
    expected = await store.list_ids()
    one, two = store.infos(), store.infos()
    seen = [(a.session_id, b.session_id) async for a in one for b in [await anext(two)]]
    assert seen == [(session_id, session_id) for session_id in expected]
    await two.aclose()  # type: ignore[attr-defined]


async def test_a_files_card_tells_its_size_and_when_it_was_written(
    file_store: FileSystemSessionStore,
) -> None:
    for loops in (0, 1, 100):
        await file_store.save(a_session(loops=loops))
        status = (file_store.dir / "s-1.json").stat()
        [info] = [info async for info in file_store.infos()]
        assert info.size == status.st_size
        assert info.saved_at == Timestamp.from_nanoseconds(status.st_mtime_ns)
