"""What must be stored for a change to be made."""

from __future__ import annotations

import pytest
from contract_samples import a_loop, a_session, content, state

from phi_sessions import (
    Expect,
    MemorySessionStore,
    Revision,
    SessionConflictError,
    SessionExistsError,
    SessionNotFoundError,
    SessionStore,
)


async def test_a_stale_save_is_refused_and_changes_nothing(store: SessionStore) -> None:
    await store.save(a_session())
    await store.save(a_session("s-2"))
    stale = await store.load("s-1")
    fresh = await store.load("s-1")
    fresh.metadata["by"] = "fresh"
    await store.save(fresh)
    held = stale.revision
    before = await state(store)
    stale.metadata["by"] = "stale"
    for _ in range(2):  # trying again does not help
        with pytest.raises(SessionConflictError) as caught:
            await store.save(stale)
        assert caught.value.session_id == "s-1"
        assert caught.value.expected == held == stale.revision
        assert caught.value.found == fresh.revision
        assert await state(store) == before


async def test_a_stale_save_after_a_delete_is_refused_and_brings_nothing_back(
    store: SessionStore,
) -> None:
    saved_by_hand = a_session()
    await store.save(saved_by_hand)
    loaded = await store.load("s-1")
    await store.delete("s-1")
    for stale in (loaded, saved_by_hand):
        with pytest.raises(SessionConflictError) as caught:
            await store.save(stale)
        assert caught.value.expected == stale.revision
        assert caught.value.found is None
        assert not await store.exists("s-1")
        assert await store.list_ids() == []


async def test_a_stale_save_after_delete_and_creation_is_refused(store: SessionStore) -> None:
    await store.save(a_session())
    stale = await store.load("s-1")
    await store.delete("s-1")
    other = a_session(metadata={"by": "other"})
    await store.save(other)
    with pytest.raises(SessionConflictError) as caught:
        await store.save(stale)
    assert caught.value.found == other.revision
    assert (await store.load("s-1")).metadata == {"by": "other"}


async def test_a_session_built_by_hand_replaces_what_is_there(store: SessionStore) -> None:
    first = a_session(metadata={"by": "first"})
    await store.save(first)
    second = a_session(metadata={"by": "second"})
    await store.save(second)
    assert (await store.load("s-1")).metadata == {"by": "second"}
    with pytest.raises(SessionConflictError):  # once saved, it came from the store
        await store.save(first)


async def test_one_holder_saves_again_and_again(store: SessionStore) -> None:
    session = a_session(loops=0)
    revisions = set()
    for n in range(20):
        session.loops.append(a_loop("s-1", n))
        revisions.add(await store.save(session))
    assert len(revisions) == 20
    assert len((await store.load("s-1")).loops) == 20


async def test_expect_anything_always_replaces(store: SessionStore) -> None:
    stale = a_session(metadata={"by": "stale"})
    await store.save(stale, expect=Expect.ANYTHING)  # nothing there
    await store.save(a_session())
    await store.save(stale, expect=Expect.ANYTHING)  # another's state
    assert (await store.load("s-1")).metadata == {"by": "stale"}
    await store.delete("s-1")
    await store.save(stale, expect=Expect.ANYTHING)  # deleted
    assert (await store.load("s-1")).revision == stale.revision
    await store.save(stale)  # and is its holder again


async def test_expect_absent_only_creates(store: SessionStore) -> None:
    first, second = a_session(metadata={"by": "first"}), a_session(metadata={"by": "second"})
    await store.save(first, expect=Expect.ABSENT)
    before = await state(store)
    for late in (second, first):
        revision = late.revision
        with pytest.raises(SessionExistsError) as caught:
            await store.save(late, expect=Expect.ABSENT)
        assert caught.value.session_id == "s-1"
        assert late.revision == revision
        assert await state(store) == before
    await store.delete("s-1")
    await store.save(second, expect=Expect.ABSENT)
    assert (await store.load("s-1")).metadata == {"by": "second"}


async def test_an_expected_revision_must_be_the_stored_one(store: SessionStore) -> None:
    session = a_session()
    old = await store.save(session)
    new = await store.save(session)
    by_hand = a_session(metadata={"by": "hand"})
    with pytest.raises(SessionConflictError) as caught:
        await store.save(by_hand, expect=old)
    assert (caught.value.expected, caught.value.found) == (old, new)
    assert by_hand.revision is None
    saved = await store.save(by_hand, expect=new)
    assert saved == by_hand.revision == (await store.load("s-1")).revision
    assert (await store.load("s-1")).metadata == {"by": "hand"}


async def test_an_expected_revision_where_nothing_is_stored_is_a_conflict(
    store: SessionStore,
) -> None:
    with pytest.raises(SessionConflictError) as caught:
        await store.save(a_session(), expect=Revision("0123456789abcdef"))
    assert (caught.value.expected, caught.value.found) == ("0123456789abcdef", None)
    assert await store.list_ids() == []


async def test_an_expected_revision_counts_more_than_the_sessions_own(
    store: SessionStore,
) -> None:
    stale = a_session(metadata={"by": "stale"})
    await store.save(stale)
    current = await store.save(a_session())
    await store.save(stale, expect=current)
    assert (await store.load("s-1")).metadata == {"by": "stale"}


async def test_a_stale_delete_is_refused_and_changes_nothing(store: SessionStore) -> None:
    session = a_session()
    old = await store.save(session)
    new = await store.save(session)
    before = await state(store)
    with pytest.raises(SessionConflictError) as caught:
        await store.delete("s-1", expect=old)
    assert (caught.value.session_id, caught.value.expected, caught.value.found) == ("s-1", old, new)
    assert await state(store) == before
    await store.delete("s-1", expect=new)
    assert await store.list_ids() == []


@pytest.mark.parametrize("expect", [Expect.ANYTHING, Expect.UNCHANGED])
async def test_delete_takes_any_state_unless_told(store: SessionStore, expect: Expect) -> None:
    await store.save(a_session())
    await store.delete("s-1", expect=expect)
    assert not await store.exists("s-1")


@pytest.mark.parametrize("expect", [*Expect, Revision("0123456789abcdef")])
async def test_delete_of_nothing_is_not_found_whatever_is_expected(
    store: SessionStore, expect: Expect | Revision
) -> None:
    with pytest.raises(SessionNotFoundError):
        await store.delete("s-1", expect=expect)


async def test_delete_of_what_should_be_absent_is_refused(store: SessionStore) -> None:
    await store.save(a_session())
    with pytest.raises(SessionExistsError):
        await store.delete("s-1", expect=Expect.ABSENT)
    assert await store.exists("s-1")


async def test_two_creators_meet_and_one_is_told(store: SessionStore) -> None:
    first, second = a_session(metadata={"by": 1}), a_session(metadata={"by": 2})
    await store.save(second)
    holder = await store.load("s-1")
    with pytest.raises(SessionExistsError):
        await store.save(first, expect=Expect.ABSENT)
    await store.save(holder)  # not disturbed


async def test_a_session_goes_from_one_store_to_another_only_when_told(
    store: SessionStore,
) -> None:
    async with MemorySessionStore() as other:
        await other.save(a_session(metadata={"from": "other"}))
        session = await other.load("s-1")
        with pytest.raises(SessionConflictError) as caught:  # its state was never in this store
            await store.save(session)
        assert (caught.value.expected, caught.value.found) == (session.revision, None)
        assert await store.list_ids() == []
        await store.save(session, expect=Expect.ABSENT)
        assert content(await store.load("s-1")) == content(session)
        session.metadata["now"] = "here"
        await store.save(session)
        with pytest.raises(SessionConflictError):  # now it belongs to this store
            await other.save(session)
        assert (await other.load("s-1")).metadata == {"from": "other"}
