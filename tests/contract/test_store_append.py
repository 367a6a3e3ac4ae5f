"""Adding loop records to what is stored."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import scaled
from contract_samples import a_loop, a_session, content, state

from phi_sessions import (
    Expect,
    FileSystemSessionStore,
    InvalidSessionIdError,
    LoopRecord,
    MemorySessionStore,
    Session,
    SessionConflictError,
    SessionCorruptError,
    SessionEncodeError,
    SessionExistsError,
    SessionNotFoundError,
    SessionStore,
    SessionTaskError,
)


def ids(session: Session) -> list[str]:
    """Return the numbers of a session's loops, in order."""
    return [loop_id.rpartition(".")[2] for loop_id in session.loops.ids()]


def not_json() -> LoopRecord:
    """Return a loop that cannot be stored."""
    loop: LoopRecord = a_loop("s-1", 66)
    loop.metadata = {"x": float("nan")}
    return loop


async def test_loops_are_added_by_id(store: SessionStore) -> None:
    session = a_session(loops=2)
    before = await store.save(session)
    loops = [a_loop("s-1", 2), a_loop("s-1", 3)]
    first = await store.append("s-1", loops[0])
    second = await store.append("s-1", loops[1])
    stored = await store.load("s-1")
    assert stored.loops == [*session.loops, *loops]
    assert stored.revision == second
    assert len({before, first, second}) == 3


async def test_loops_are_added_to_an_object_and_to_what_is_stored(store: SessionStore) -> None:
    session = a_session(loops=1)
    await store.save(session)
    revision = await store.append(session, a_loop("s-1", 1), a_loop("s-1", 2))
    assert ids(session) == ["0", "1", "2"]
    assert session.revision == revision
    stored = await store.load("s-1")
    assert content(stored) == content(session)
    assert stored.revision == revision
    await store.append(session, a_loop("s-1", 3))
    session.metadata["saved"] = True
    await store.save(session)
    assert content(await store.load("s-1")) == content(session)
    assert ids(session) == ["0", "1", "2", "3"]


async def test_a_loop_with_the_same_id_is_replaced_in_its_place(store: SessionStore) -> None:
    session = a_session(loops=3)
    await store.save(session)
    await store.append("s-1", a_loop("s-1", 1, text="by id"))
    stored = await store.load("s-1")
    assert ids(stored) == ["0", "1", "2"]
    assert [text(loop) for loop in stored.loops] == ["reply 0", "by id", "reply 2"]
    await store.append(stored, a_loop("s-1", 0, text="by object"), a_loop("s-1", 7))
    again = await store.load("s-1")
    assert ids(again) == ids(stored) == ["0", "1", "2", "7"]
    assert text(again.loops[0]) == text(stored.loops[0]) == "by object"
    assert text(again.loops[1]) == "by id"
    assert text(again.loops[2]) == "reply 2"


def text(loop: LoopRecord) -> str:
    found: Any = loop.messages[1]["content"]
    return str(found[0]["text"])


async def test_the_same_append_twice_leaves_the_same_session(store: SessionStore) -> None:
    await store.save(a_session())
    loops = [a_loop("s-1", 1), a_loop("s-1", 0, text="new")]
    await store.append("s-1", *loops)
    once = content(await store.load("s-1"))
    await store.append("s-1", *loops)
    assert content(await store.load("s-1")) == once


async def test_of_several_with_one_id_the_last_counts(store: SessionStore) -> None:
    session = a_session(loops=1)
    await store.save(session)
    twice = [a_loop("s-1", n, text=f"{n} {said}") for said in ("first", "last") for n in (1, 0, 2)]
    await store.append(session, *twice)
    for found in (session, await store.load("s-1")):
        assert ids(found) == ["0", "1", "2"]
        assert [text(loop) for loop in found.loops] == ["0 last", "1 last", "2 last"]


async def test_a_session_that_is_not_there_is_not_found_and_not_made(store: SessionStore) -> None:
    with pytest.raises(SessionNotFoundError):
        await store.append("s-1", a_loop("s-1"))
    with pytest.raises(SessionNotFoundError):
        await store.append("s-1")
    await store.save(a_session())
    await store.append("s-1", a_loop("s-1", 1))
    await store.delete("s-1")
    with pytest.raises(SessionNotFoundError):
        await store.append("s-1", a_loop("s-1", 2))
    assert await store.list_ids() == []


async def test_a_stale_object_is_refused_and_stays_as_it_was(store: SessionStore) -> None:
    session = a_session()
    await store.save(session)
    holder = await store.load("s-1")
    found = await store.append("s-1", a_loop("s-1", 1))
    revision = holder.revision
    with pytest.raises(SessionConflictError) as caught:
        await store.append(holder, a_loop("s-1", 2))
    assert (caught.value.expected, caught.value.found) == (revision, found)
    assert holder.revision == revision
    assert ids(holder) == ["0"]
    assert ids(await store.load("s-1")) == ["0", "1"]


async def test_an_object_whose_session_is_gone_is_stale(store: SessionStore) -> None:
    session = a_session()
    await store.save(session)
    await store.delete("s-1")
    with pytest.raises(SessionConflictError) as caught:
        await store.append(session, a_loop("s-1", 1))
    assert caught.value.found is None
    assert ids(session) == ["0"]
    assert await store.list_ids() == []


async def test_a_save_or_delete_from_before_an_append_is_refused(store: SessionStore) -> None:
    session = a_session()
    await store.save(session)
    assert session.revision is not None
    found = await store.append("s-1", a_loop("s-1", 1))
    session.metadata["stale"] = True
    with pytest.raises(SessionConflictError) as caught:
        await store.save(session)
    assert caught.value.found == found
    with pytest.raises(SessionConflictError):
        await store.delete("s-1", expect=session.revision)
    stored = await store.load("s-1")
    assert (ids(stored), stored.metadata) == (["0", "1"], {})
    await store.delete("s-1", expect=found)
    assert await store.list_ids() == []


async def test_unsaved_changes_of_the_object_are_kept_for_its_next_save(
    store: SessionStore,
) -> None:
    session = a_session(loops=2)
    await store.save(session)
    session.metadata["mine"] = 1
    session.loops[0].metadata = {"edited": True}
    session.loops.append(a_loop("s-1", 5))
    await store.append(session, a_loop("s-1", 6))
    assert session.metadata == {"mine": 1}
    assert ids(session) == ["0", "1", "5", "6"]
    stored = await store.load("s-1")
    assert ids(stored) == ["0", "1", "6"]
    assert (stored.metadata, stored.loops[0].metadata) == ({}, {"number": 0})
    await store.save(session)
    stored = await store.load("s-1")
    assert content(stored) == content(session)
    assert ids(stored) == ["0", "1", "5", "6"]
    assert (stored.metadata, stored.loops[0].metadata) == ({"mine": 1}, {"edited": True})


async def test_loops_that_an_object_lost_come_back_by_no_append(store: SessionStore) -> None:
    session = a_session(loops=3)
    await store.save(session)
    del session.loops[1]
    session.loops.reverse()
    await store.append(session, a_loop("s-1", 9))
    assert ids(session) == ["2", "0", "9"]
    await store.save(session)
    assert ids(await store.load("s-1")) == ["2", "0", "9"]


async def test_appending_nothing_changes_nothing_of_the_session(store: SessionStore) -> None:
    session = a_session(loops=2)
    await store.save(session)
    before = content(await store.load("s-1"))
    revision = await store.append("s-1")
    stored = await store.load("s-1")
    assert content(stored) == before
    assert stored.revision == revision
    assert await store.append(stored) == stored.revision
    assert content(await store.load("s-1")) == before


@pytest.mark.parametrize("by", ["id", "object"])
async def test_what_is_not_json_is_refused_and_nothing_is_stored(
    store: SessionStore, by: str
) -> None:
    session = a_session()
    await store.save(session)
    before = await state(store)
    with pytest.raises(SessionEncodeError):
        await store.append("s-1" if by == "id" else session, a_loop("s-1", 1), not_json())
    assert await state(store) == before
    assert ids(session) == ["0"]
    await store.append(session, a_loop("s-1", 1))
    assert ids(await store.load("s-1")) == ["0", "1"]


async def test_a_session_that_was_never_stored_is_stored_by_an_append(store: SessionStore) -> None:
    session = a_session(metadata={"new": True})
    revision = await store.append(session, a_loop("s-1", 1))
    assert session.revision == revision
    assert ids(session) == ["0", "1"]
    assert content(await store.load("s-1")) == content(session)
    other = a_session(loops=0)
    with pytest.raises(SessionExistsError):
        await store.append(other, a_loop("s-1", 2))
    assert (ids(other), other.revision) == ([], None)
    assert ids(await store.load("s-1")) == ["0", "1"]
    refused = a_session("s-2")
    with pytest.raises(SessionEncodeError):
        await store.append(refused, not_json())
    assert (ids(refused), refused.revision) == (["0"], None)
    assert await store.list_ids() == ["s-1"]


async def test_what_is_added_to_an_object_while_it_is_first_appended_is_kept_for_its_next_save(
    store: SessionStore,
) -> None:
    session = a_session(loops=0)
    loops = session.loops
    appending = asyncio.create_task(store.append(session, a_loop("s-1", 0)))
    await asyncio.sleep(0)
    loops.append(a_loop("s-1", 1))
    await appending
    assert session.loops is loops
    assert ids(await store.load("s-1")) == ["0"]
    await store.save(session)
    assert sorted(ids(await store.load("s-1"))) == ["0", "1"]


async def test_an_object_saved_elsewhere_while_it_is_appended_to_is_saved_whole_afterwards(
    store: SessionStore,
) -> None:
    session = a_session(loops=3)
    session.loops[0].metadata = {"large": "x" * 500_000}  # so that a save writes what changed
    await store.save(session)
    session.loops[1].metadata = {"edited": True}
    session.metadata["mine"] = 1
    appending = asyncio.create_task(store.append(session, a_loop("s-1", 3)))
    await asyncio.sleep(0)
    async with MemorySessionStore() as elsewhere:
        await elsewhere.save(session, expect=Expect.ANYTHING)
    await store.save(session, expect=await appending)
    assert content(await store.load("s-1")) == content(session)


async def test_what_was_appended_is_not_shared_with_the_caller(store: SessionStore) -> None:
    await store.save(a_session())
    loop = a_loop("s-1", 1)
    await store.append("s-1", loop)
    loop.metadata["number"] = "changed later"
    assert (await store.load("s-1")).loops[1].metadata == {"number": 1}


async def test_appends_of_many_tasks_never_conflict(store: SessionStore) -> None:
    tasks = scaled(50)
    await store.save(a_session(loops=0))
    numbers = range(tasks)
    revisions = await asyncio.gather(*(store.append("s-1", a_loop("s-1", n)) for n in numbers))
    stored = await store.load("s-1")
    assert len(set(revisions)) == tasks
    assert stored.revision in revisions
    assert sorted(map(int, ids(stored))) == list(numbers)


async def test_a_cancelled_append_is_there_whole_or_not_at_all(store: SessionStore) -> None:
    await store.save(a_session(loops=0))
    there: list[str] = []
    for turns in range(30):
        loops = [a_loop("s-1", 2 * turns), a_loop("s-1", 2 * turns + 1)]
        task = asyncio.create_task(store.append("s-1", *loops))
        for _ in range(turns % 15):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        found = ids(await store.load("s-1"))
        more = [*there, str(2 * turns), str(2 * turns + 1)]
        assert found in (there, more)
        if not task.cancelled():
            assert found == more
        there = found


@pytest.mark.parametrize("text_size", [10, 3_000])
async def test_a_long_session_is_the_sum_of_its_appends(
    store: SessionStore, text_size: int
) -> None:
    session = a_session(loops=0)
    await store.save(session)
    appended = [a_loop("s-1", n, text="x" * text_size) for n in range(120)]
    for n, loop in enumerate(appended):
        if n % 3:
            await store.append(session, loop)
        else:
            session.loops.append(loop)
            await store.save(session)
    assert content(await store.load("s-1")) == content(session)
    assert session.loops == appended


async def test_an_append_is_refused_by_a_closed_store_and_for_an_invalid_id(
    store: SessionStore,
) -> None:
    for loops in ([], [a_loop("s-1")]):
        with pytest.raises(InvalidSessionIdError):
            await store.append("", *loops)
    session = a_session()
    await store.aclose()
    for what in ("s-1", session):
        with pytest.raises(SessionTaskError):
            await store.append(what, a_loop("s-1", 1))
    assert ids(session) == ["0"]


async def test_replacing_a_loop_again_and_again_never_fills_a_small_store(tmp_path: Path) -> None:
    async with FileSystemSessionStore(tmp_path, max_bytes=16_384) as store:
        await store.save(a_session(loops=1))
        for n in range(20):
            await store.append("s-1", a_loop("s-1", 0, text=f"{n}" * 2_000))
        assert ids(await store.load("s-1")) == ["0"]
        with pytest.raises(SessionEncodeError):
            await store.append("s-1", a_loop("s-1", 1, text="x" * 16_384))
        assert ids(await store.load("s-1")) == ["0"]


async def test_a_save_whatever_is_there_takes_the_place_of_what_was_appended(
    file_store: FileSystemSessionStore,
) -> None:
    await file_store.save(a_session())
    await file_store.append("s-1", a_loop("s-1", 1))
    session = a_session(metadata={"new": True})
    await file_store.save(session, expect=Expect.ANYTHING)
    assert content(await file_store.load("s-1")) == content(session)
    assert await file_store.check() == []
    await file_store.append(session, a_loop("s-1", 2))
    assert content(await file_store.load("s-1")) == content(session)
    assert not [name for name in os.listdir(file_store.dir) if "aside" in name]


async def test_a_save_whatever_is_there_can_be_read_though_the_tail_was_damaged(
    file_store: FileSystemSessionStore,
) -> None:
    await file_store.save(a_session())
    for n in (1, 2):
        await file_store.append("s-1", a_loop("s-1", n))
    tail = file_store.dir / "s-1.json.log"
    data = bytearray(tail.read_bytes())
    data[len(data) // 2] ^= 1
    tail.write_bytes(data)
    with pytest.raises(SessionCorruptError):
        await file_store.load("s-1")
    session = a_session(metadata={"new": True})
    await file_store.save(session, expect=Expect.ANYTHING)
    assert content(await file_store.load("s-1")) == content(session)
