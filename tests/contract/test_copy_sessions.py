"""`copy_sessions` moves sessions from any store to any other."""

from __future__ import annotations

import asyncio
import json
import random
import tracemalloc
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from contract_samples import a_loop, a_session, content, state
from copy_stores import ReadOnly, Refusing, contents, filled

from phi_sessions import (
    CopyOutcome,
    CopyProgress,
    CopySummary,
    Expect,
    Expectation,
    FileSystemSessionStore,
    MemorySessionStore,
    Revision,
    Session,
    SessionInfo,
    SessionLockedError,
    SessionNotFoundError,
    SessionStore,
    copy_sessions,
)

GOLDEN = sorted((Path(__file__).parents[1] / "data").glob("*.json"))


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[FileSystemSessionStore]:
    """A file store in a directory of its own, whatever `store` is; closed afterwards."""
    async with FileSystemSessionStore(tmp_path / "files") as made:
        yield made


@pytest.fixture
async def memory() -> AsyncIterator[MemorySessionStore]:
    """A memory store; closed afterwards."""
    async with MemorySessionStore() as made:
        yield made


def texts(session: Session) -> list[bytes | None]:
    """Return the texts of a loaded session's records, none of which was looked at."""
    assert all(entry.record is None for entry in session.loops.entries)
    return [entry.text for entry in session.loops.entries]


# What is copied, and how --------------------------------------------------------------------------


async def test_a_target_holds_all_of_the_source_in_the_same_order(
    store: SessionStore, memory: MemorySessionStore, files: FileSystemSessionStore
) -> None:
    ids = await filled(memory)
    assert await copy_sessions(memory, store) == CopySummary(copied=12)
    assert await store.list_ids() == ids
    assert await contents(store) == await contents(memory)
    async with FileSystemSessionStore(files.dir / "further") as further:
        assert await copy_sessions(store, further) == CopySummary(copied=12)
        assert await further.list_ids() == ids
        assert await contents(further) == await contents(memory)


async def test_an_empty_store_is_copied(store: SessionStore, memory: MemorySessionStore) -> None:
    assert await copy_sessions(store, memory) == CopySummary()
    assert await memory.list_ids() == []


async def test_the_source_is_only_read(store: SessionStore) -> None:
    async with ReadOnly() as source:
        await filled(source)
        source.frozen = True
        before = await state(source)
        await copy_sessions(source, store)
        assert await state(source) == before


async def test_the_order_is_kept_however_long_each_session_takes(store: SessionStore) -> None:
    class Uneven(MemorySessionStore):
        async def find(self, session_id: str) -> Session | None:
            await asyncio.sleep(chance.random() / 200)
            return await super().find(session_id)

    chance = random.Random(7)
    async with Uneven() as source:
        ids = await filled(source, 25)
        await copy_sessions(source, store, concurrency=8)
        assert await store.list_ids() == ids


async def test_the_order_is_kept_around_sessions_that_are_there_already(
    store: SessionStore,
) -> None:
    class Uneven(MemorySessionStore):
        async def find(self, session_id: str) -> Session | None:
            await asyncio.sleep(0.02 if session_id == "s/1" else 0)
            return await super().find(session_id)

    async with Uneven() as source:
        ids = await filled(source, 6)
        await copy_sessions(source, store, session_ids=["s/2", "s/3"])
        await copy_sessions(source, store, concurrency=6)
        assert await store.list_ids() == [
            *(each for each in ids if each not in {"s/2", "s/3"}),
            "s/3",
            "s/2",
        ]


async def test_a_session_comes_to_the_target_as_a_new_one(store: SessionStore) -> None:
    class Asking(MemorySessionStore):
        async def save(
            self, session: Session, *, expect: Expectation = Expect.UNCHANGED
        ) -> Revision:
            assert (session.revision, session.loops.origin) == (None, None)
            return await super().save(session, expect=expect)

    await filled(store)
    async with Asking() as target:
        await copy_sessions(store, target)


async def test_records_are_not_decoded(store: SessionStore) -> None:
    async with ReadOnly() as source:
        await filled(source)
        for _ in range(2):  # the second time all are there
            source.given.clear()
            await copy_sessions(source, store)
            given = [entry for each in source.given for entry in each.loops.entries]
            assert given
            assert [entry.record for entry in given] == [None] * len(given)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
async def test_unknown_keys_and_the_texts_of_records_are_kept_to_the_byte(
    path: Path, store: SessionStore, files: FileSystemSessionStore
) -> None:
    session_id = json.loads(path.read_bytes())["session_id"]
    files.dir.mkdir()
    (files.dir / f"{session_id}.json").write_bytes(path.read_bytes())
    read = await files.load(session_id)
    async with FileSystemSessionStore(files.dir / "back") as back:
        await copy_sessions(files, store)
        await copy_sessions(store, back)
        copied, returned = await store.load(session_id), await back.load(session_id)
    assert texts(copied) == texts(read) == texts(returned)
    assert content(copied) == content(read) == content(returned)


async def test_a_text_that_this_version_would_write_otherwise_is_kept(
    store: SessionStore, files: FileSystemSessionStore
) -> None:
    await files.save(a_session(loops=2))
    path = files.dir / "s-1.json"
    odd = path.read_bytes().replace(b'{"number":1}', b'{"n\\u0075mber":1.50e+2,"x":-0.0}')
    path.write_bytes(odd)
    await copy_sessions(files, store)
    text = texts(await store.load("s-1"))[1]
    assert text is not None
    assert b'{"n\\u0075mber":1.50e+2,"x":-0.0}' in text


async def test_a_copied_session_is_the_targets_own(
    store: SessionStore, memory: MemorySessionStore
) -> None:
    await memory.save(a_session(loops=3))
    await copy_sessions(memory, store)
    held = await store.load("s-1")
    held.loops[1].metadata = {"changed": True}
    await store.save(held)
    await store.append(held, a_loop("s-1", 9))
    assert content(await store.load("s-1")) == content(held)
    assert len((await memory.load("s-1")).loops) == 3


# Which sessions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("on_error", ["raise", "skip"])
async def test_filters_choose(store: SessionStore, on_error: Any) -> None:
    await filled(store)
    border = datetime(2024, 1, 6, tzinfo=UTC)

    async def chosen(**filters: Any) -> list[int]:
        async with MemorySessionStore() as target:
            summary = await copy_sessions(store, target, on_error=on_error, **filters)
            found = await target.list_ids()
        assert summary == CopySummary(copied=len(found))
        return [int(session_id.removeprefix("s/")) for session_id in found]

    assert await chosen(agent_id="agent-1") == [11, 9, 7, 5, 3, 1]
    assert await chosen(agent_id="nobody") == []
    assert await chosen(active_after=border) == [11, 10, 9, 8, 7, 6]
    assert await chosen(session_ids=["s/3", "s/8"]) == [8, 3]
    assert await chosen(session_ids=(f"s/{n}" for n in (1, 1, 2))) == [2, 1]
    assert await chosen(session_ids="s/3") == [3]
    assert await chosen(session_ids=[]) == []
    assert await chosen(where=lambda info: info.metadata["n"] % 5 == 0) == [10, 5, 0]

    async def takes(info: SessionInfo) -> bool:
        await asyncio.sleep(0)
        return bool(info.metadata["n"] % 5 == 0)

    assert await chosen(where=takes) == [10, 5, 0]
    assert await chosen(
        agent_id="agent-0",
        active_after=border,
        session_ids=["s/2", "s/6", "s/7", "s/8"],
        where=lambda info: info.metadata["n"] < 8,
    ) == [6]


@pytest.mark.parametrize("on_error", ["raise", "skip"])
async def test_only_cards_of_sessions_that_were_asked_for_are_shown_to_where(
    memory: MemorySessionStore, on_error: Any
) -> None:
    shown: list[str] = []

    def where(info: SessionInfo) -> bool:
        shown.append(info.session_id)
        return info.session_id == "s/8" and info.saved_at is not None and info.size is not None

    async with MemorySessionStore() as source:
        await filled(source)
        await copy_sessions(
            source, memory, session_ids=["s/3", "s/8"], where=where, on_error=on_error
        )
    assert sorted(shown) == ["s/3", "s/8"]
    assert await memory.list_ids() == ["s/8"]


async def test_a_sound_session_that_the_listing_left_out_is_chosen_by_what_it_says(
    store: SessionStore,
) -> None:
    class Blinking(MemorySessionStore):
        async def infos(self, **options: Any) -> AsyncIterator[SessionInfo]:  # type: ignore[override]
            async for info in super().infos(**options):
                if info.session_id not in {"s/5", "s/6"}:
                    yield info

    async with Blinking() as source:
        await filled(source)
        summary = await copy_sessions(source, store, agent_id="agent-1", on_error="skip")
        assert summary == CopySummary(copied=6)
        assert await store.exists("s/5")


async def test_a_listing_that_is_left_half_way_is_closed(store: SessionStore) -> None:
    class Watched(MemorySessionStore):
        closed = False

        async def infos(self, **options: Any) -> AsyncIterator[SessionInfo]:  # type: ignore[override]
            try:
                async for info in super().infos(**options):
                    yield info
            finally:
                self.closed = True

    def refuse(_: SessionInfo) -> bool:
        raise ZeroDivisionError

    async with Watched() as source:
        await filled(source)
        for on_error in ("raise", "skip"):
            source.closed = False
            with pytest.raises(ZeroDivisionError) as caught:
                await copy_sessions(source, store, where=refuse, on_error=on_error)  # type: ignore[arg-type]
            assert source.closed
            del caught


async def test_an_id_that_is_not_there_is_said_before_anything_is_copied(
    store: SessionStore, memory: MemorySessionStore
) -> None:
    await filled(store)
    with pytest.raises(SessionNotFoundError) as caught:
        await copy_sessions(store, memory, session_ids=["s/1", "nobody", "s/2"])
    assert caught.value.session_id == "nobody"
    assert await memory.list_ids() == []
    summary = await copy_sessions(store, memory, session_ids=["s/1", "nobody"], on_error="skip")
    assert (summary.copied, summary.failed) == (1, 1)
    assert [failure.session_id for failure in summary.failures] == ["nobody"]
    assert isinstance(summary.failures[0].error, SessionNotFoundError)


async def test_arguments_that_make_no_sense_are_refused(
    store: SessionStore, memory: MemorySessionStore
) -> None:
    with pytest.raises(ValueError, match="concurrency"):
        await copy_sessions(store, memory, concurrency=0)
    with pytest.raises(ValueError, match="time zone"):
        await copy_sessions(store, memory, active_after=datetime(2024, 1, 1))  # noqa: DTZ001
    await memory.save(Session("s/1", "somebody"))
    mistaken: Any = "keep"
    with pytest.raises(ValueError, match="on_conflict is one of"):
        await copy_sessions(store, memory, on_conflict=mistaken)
    with pytest.raises(ValueError, match="on_error is one of"):
        await copy_sessions(store, memory, on_error=mistaken)
    assert (await memory.load("s/1")).agent_id == "somebody"


async def test_an_error_of_where_or_progress_reaches_the_caller(
    store: SessionStore, memory: MemorySessionStore
) -> None:
    def fail(_: object) -> bool:
        raise ZeroDivisionError

    await filled(store)
    for options in ({"where": fail}, {"progress": fail}, {"where": fail, "on_error": "skip"}):
        with pytest.raises(ZeroDivisionError):
            await copy_sessions(store, memory, **options)  # type: ignore[arg-type]


# On the way ---------------------------------------------------------------------------------------


async def test_progress_tells_of_each_session_once(
    store: SessionStore, memory: MemorySessionStore
) -> None:
    ids = await filled(store)
    await copy_sessions(store, memory, session_ids=ids[:3])
    await memory.delete(ids[0])
    await memory.update(ids[1], lambda session: session.metadata.update(n="other"))
    seen: list[CopyProgress] = []
    summary = await copy_sessions(store, memory, on_conflict="skip", progress=seen.append)
    assert summary == CopySummary(copied=10, equal=1, skipped=1)
    assert sorted(each.session_id for each in seen) == sorted(ids)
    assert [(each.done, each.total) for each in seen] == [(n, 12) for n in range(1, 13)]
    outcomes = {each.session_id: each.outcome for each in seen}
    assert (outcomes[ids[1]], outcomes[ids[2]]) == (CopyOutcome.SKIPPED, CopyOutcome.EQUAL)
    assert (seen[-1].copied, seen[-1].equal, seen[-1].skipped) == (10, 1, 1)
    assert {each.error for each in seen} == {None}


async def test_progress_tells_why_a_session_failed(store: SessionStore) -> None:
    await filled(store)
    seen: list[CopyProgress] = []
    async with Refusing(SessionLockedError("held", session_id="s/5", waited=5.0)) as target:
        await copy_sessions(store, target, on_error="skip", progress=seen.append)
    (failed,) = [each for each in seen if each.outcome is CopyOutcome.FAILED]
    assert failed.session_id == "s/5"
    assert isinstance(failed.error, SessionLockedError)
    assert (failed.error.waited, failed.error.__traceback__) == (5.0, None)


async def test_no_more_sessions_are_in_memory_than_was_asked_for(
    files: FileSystemSessionStore, tmp_path: Path
) -> None:
    size, count = 200_000, 40
    for n in range(count):
        await files.save(Session(f"s-{n}", "a", loops=[a_loop(f"s-{n}", text="x" * size)]))
    async with FileSystemSessionStore(tmp_path / "target") as target:
        tracemalloc.start()
        try:
            for _ in range(2):  # copied, then compared
                tracemalloc.reset_peak()
                before = tracemalloc.get_traced_memory()[0]
                await copy_sessions(files, target, concurrency=2)
                _, peak = tracemalloc.get_traced_memory()
                assert peak - before < 2 * 9 * size < count * size / 2
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("count", [0, 3])
async def test_no_more_tasks_are_made_than_there_are_sessions(
    memory: MemorySessionStore, count: int
) -> None:
    tasks = [0]

    class Counting(MemorySessionStore):
        async def find(self, session_id: str) -> Session | None:
            tasks.append(len(asyncio.all_tasks()))
            return await super().find(session_id)

    async with Counting() as source:
        await filled(source, count)
        assert (await copy_sessions(source, memory, concurrency=50_000)).copied == count
    assert max(tasks) < 20
