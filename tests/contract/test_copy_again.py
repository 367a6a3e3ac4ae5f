"""`copy_sessions` goes on where it was interrupted, and meets what is there already."""

from __future__ import annotations

import asyncio
import copy
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from conftest import scaled
from contract_samples import a_loop, a_session, content, state
from copy_stores import contents, filled

from phi_sessions import (
    CopySummary,
    Expect,
    Expectation,
    FileSystemSessionStore,
    MemorySessionStore,
    Revision,
    Session,
    SessionConflictError,
    SessionExistsError,
    SessionInfo,
    SessionIOError,
    SessionStore,
    copy_sessions,
)


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


# Again --------------------------------------------------------------------------------------------


async def test_a_second_run_writes_nothing(store: SessionStore, memory: MemorySessionStore) -> None:
    await filled(memory)
    await copy_sessions(memory, store)
    before = await state(store)
    assert await copy_sessions(memory, store) == CopySummary(equal=12)
    assert await state(store) == before


class Failing(MemorySessionStore):
    """A target whose storage fails after so many saves."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    async def save(self, session: Session, *, expect: Expectation = Expect.UNCHANGED) -> Revision:
        if not self.left:
            raise SessionIOError("no space left", session_id=session.session_id, errno=28)
        self.left -= 1
        return await super().save(session, expect=expect)


@pytest.mark.parametrize("after", [0, 1, 5, 11])
async def test_a_run_that_failed_is_taken_up_where_it_ended(
    after: int, store: SessionStore
) -> None:
    ids = await filled(store)
    async with Failing(after) as target:
        with pytest.raises(SessionIOError, match="no space left"):
            await copy_sessions(store, target)
        assert await target.list_ids() == ids[12 - after :]
        target.left = -1
        assert await copy_sessions(store, target) == CopySummary(copied=12 - after, equal=after)
        assert await target.list_ids() == ids
        assert await contents(target) == await contents(store)


_COPY = """
import asyncio, sys
from phi_sessions import FileSystemSessionStore, copy_sessions
async def main():
    source, target = map(FileSystemSessionStore, sys.argv[1:])
    async with source, target:
        await copy_sessions(source, target, progress=lambda seen: print(seen.done, flush=True))
asyncio.run(main())
"""


async def test_a_run_that_was_killed_is_taken_up_where_it_ended(
    files: FileSystemSessionStore, tmp_path: Path
) -> None:
    count = scaled(60)
    for n in range(count):
        await files.save(a_session(f"s-{n}", loops=3))
    target = tmp_path / "target"
    command = [sys.executable, "-c", _COPY, str(files.dir), str(target)]
    for line in ("5\n", "17\n"):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for said in child.stdout:
                if said == line:
                    child.kill()
            assert child.wait(30) == -signal.SIGKILL
    async with FileSystemSessionStore(target) as copied:
        summary = await copy_sessions(files, copied)
        assert summary.equal >= 15
        assert summary.copied + summary.equal == count
        assert await copied.list_ids() == await files.list_ids()
        assert await contents(copied) == await contents(files)


@pytest.mark.parametrize("seed", range(4))
async def test_a_cancelled_run_leaves_whole_sessions_and_nothing_running(
    seed: int, store: SessionStore, memory: MemorySessionStore
) -> None:
    chance = random.Random(seed)
    ids = await filled(memory)
    pause, finished = 0.005, False
    while not finished:
        copying = asyncio.create_task(copy_sessions(memory, store, concurrency=3))
        await asyncio.sleep(chance.random() * pause)
        finished = copying.done()
        copying.cancel()
        await asyncio.wait([copying])
        assert finished or copying.cancelled()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        there = await store.list_ids()
        for session_id in there:
            expected = content(await memory.load(session_id))
            assert content(await store.load(session_id)) == expected
        assert there == ids[len(ids) - len(there) :]  # the oldest
        pause *= 1.5
    assert await store.list_ids() == ids


# What is there already ----------------------------------------------------------------------------


@pytest.fixture
async def differing(store: SessionStore, memory: MemorySessionStore) -> SessionStore:
    """`store`, which has some sessions of `memory`: one the same and two otherwise."""
    await filled(memory)
    await copy_sessions(memory, store, session_ids=["s/3", "s/4", "s/7"])
    await store.update("s/4", lambda session: session.metadata.update(n="other"))
    await store.append("s/7", a_loop("s/7", 99))
    return store


async def test_a_session_that_differs_is_raised(
    differing: SessionStore, memory: MemorySessionStore
) -> None:
    before = await differing.load("s/4")
    ids = [session_id for session_id in await memory.list_ids() if session_id != "s/7"]
    for on_error in ("raise", "skip"):
        with pytest.raises(SessionExistsError, match=r"'s/4'.*header") as caught:
            await copy_sessions(memory, differing, session_ids=ids, on_error=on_error)  # type: ignore[arg-type]
        assert caught.value.session_id == "s/4"
    assert (await differing.load("s/4")).revision == before.revision
    with pytest.raises(SessionExistsError, match=r"'s/7'.*4 loop records, not 3"):
        await copy_sessions(memory, differing, session_ids=["s/7"])
    await memory.update("s/3", lambda session: session.loops[1].metadata.update(n=-1))
    with pytest.raises(SessionExistsError, match=r"'s/3'.*loop record 's/3.loop.1'"):
        await copy_sessions(memory, differing, session_ids=["s/3"])


async def test_a_session_that_differs_is_skipped(
    differing: SessionStore, memory: MemorySessionStore
) -> None:
    before = [await differing.load(session_id) for session_id in ("s/3", "s/4", "s/7")]
    summary = await copy_sessions(memory, differing, on_conflict="skip")
    assert summary == CopySummary(copied=9, equal=1, skipped=2)
    after = [await differing.load(session_id) for session_id in ("s/3", "s/4", "s/7")]
    assert [s.revision for s in after] == [s.revision for s in before]


async def test_a_session_that_differs_is_replaced(
    differing: SessionStore, memory: MemorySessionStore
) -> None:
    summary = await copy_sessions(memory, differing, on_conflict="replace")
    assert summary == CopySummary(copied=9, equal=1, replaced=2)
    for session_id in await memory.list_ids():
        expected = content(await memory.load(session_id))
        assert content(await differing.load(session_id)) == expected


class Busy(MemorySessionStore):
    """A target in which somebody else is always faster, so many times."""

    def __init__(self, times: int, other: Session | None) -> None:
        super().__init__()
        self.times = times
        self.other = other

    async def save(self, session: Session, *, expect: Expectation = Expect.UNCHANGED) -> Revision:
        if self.times:
            self.times -= 1
            other = copy.deepcopy(self.other or session)
            other.metadata["times"] = self.times
            other.revision = None
            await super().save(other)
        return await super().save(session, expect=expect)


@pytest.mark.parametrize("times", [1, 2, 5])
async def test_what_somebody_saves_in_the_target_meanwhile_is_not_overwritten_unseen(
    times: int, store: SessionStore
) -> None:
    await store.save(a_session(metadata={"here": True}))
    for policy, expected in (("raise", None), ("skip", "skipped"), ("replace", "replaced")):
        async with Busy(times, a_session(metadata={"there": True})) as target:
            copying = copy_sessions(store, target, on_conflict=policy)  # type: ignore[arg-type]
            if expected is None:
                with pytest.raises(SessionExistsError):
                    await copying
            else:
                assert getattr(await copying, expected) == 1
            kept = (await target.load("s-1")).metadata
            assert kept == ({"here": True} if expected == "replaced" else kept)
            assert target.times == (0 if expected == "replaced" else times - 1)


async def test_somebody_who_never_stops_changing_a_session_is_a_conflict(
    store: SessionStore,
) -> None:
    await store.save(a_session())
    async with Busy(1000, a_session(metadata={"there": True})) as target:
        with pytest.raises(SessionConflictError):
            await copy_sessions(store, target, on_conflict="replace")
        summary = await copy_sessions(store, target, on_conflict="replace", on_error="skip")
        assert isinstance(summary.failures[0].error, SessionConflictError)


# What changes in the source meanwhile -------------------------------------------------------------


async def test_a_session_that_is_deleted_meanwhile_is_left_out_and_counted(
    store: SessionStore,
) -> None:
    class Vanishing(MemorySessionStore):
        async def list_ids(self) -> list[str]:
            found = await super().list_ids()
            await self.delete("s/5")
            return found

    async with Vanishing() as source:
        await filled(source)
        await source.save(a_session("s/5"))
        assert await copy_sessions(source, store) == CopySummary(copied=11, gone=1)
    assert not await store.exists("s/5")


@pytest.mark.parametrize("on_error", ["raise", "skip"])
async def test_a_session_that_changes_hands_meanwhile_is_not_copied_for_the_agent_it_was_of(
    store: SessionStore, on_error: Any
) -> None:
    class ChangesHands(MemorySessionStore):
        async def infos(self, **options: Any) -> AsyncIterator[SessionInfo]:  # type: ignore[override]
            async for info in super().infos(**options):
                yield info
            await self.save(a_session("s/5", "agent-0"))

    async with ChangesHands() as source:
        await filled(source)
        summary = await copy_sessions(source, store, agent_id="agent-1", on_error=on_error)
    assert summary == CopySummary(copied=5, gone=1)
    assert await store.list_ids() == [f"s/{n}" for n in (11, 9, 7, 3, 1)]


async def test_a_session_that_others_change_meanwhile_is_copied_in_one_of_its_states(
    store: SessionStore, memory: MemorySessionStore
) -> None:
    def change(session: Session) -> None:
        n = session.metadata["n"] = session.metadata["n"] + 1
        session.loops = [a_loop("s-1", k, text=f"{n}") for k in range(n % 5)]

    async def write() -> None:
        for _ in range(scaled(60)):
            await store.update("s-1", change)
            await asyncio.sleep(0)

    await store.save(a_session(loops=0, metadata={"n": 0}))
    writing = asyncio.create_task(write())
    while not writing.done():
        await copy_sessions(store, memory, on_conflict="replace")
        copied = await memory.load("s-1")
        n = copied.metadata["n"]
        said = [record.messages[1]["content"][0]["text"] for record in copied.loops]
        assert said == [f"{n}"] * (n % 5)
        await asyncio.sleep(0)
    await writing
    await copy_sessions(store, memory, on_conflict="replace")
    assert content(await memory.load("s-1")) == content(await store.load("s-1"))
