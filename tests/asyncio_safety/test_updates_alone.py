"""An update that was overtaken holds the lock while a plain function changes the session."""

from __future__ import annotations

import asyncio
import gc
import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest
from awaiting import eventually
from cancelling import CANCELS, Cancel, cancelled_at
from conftest import scaled
from safety_checks import lock_is_free, lock_path
from test_event_loops import loops

from phi_sessions import (
    FileSystemSessionStore,
    LoopRecord,
    Session,
    SessionConflictError,
    SessionNotFoundError,
    delete_session,
    load_session,
    save_session,
)
from phi_sessions.stores import pace


class Overtaken:
    """Adds one; somebody else has added a hundred while it did so for the first time."""

    def __init__(self, store: FileSystemSessionStore) -> None:
        self.lock = lock_path(store)
        self.was_free: list[bool] = []

    def __call__(self, session: Session) -> None:
        self.was_free.append(lock_is_free(self.lock))
        if len(self.was_free) == 1:
            other = load_session("s-1", self.lock.parent)
            other.metadata["n"] += 100
            save_session(other, self.lock.parent)
        session.metadata["n"] += 1


def counter() -> Session:
    loops = [LoopRecord(f"loop-{k}", "s-1", "agent") for k in range(3)]
    return Session("s-1", "agent", metadata={"n": 0}, loops=loops)


async def test_it_is_not_overtaken_again(file_store: FileSystemSessionStore) -> None:
    held = counter()
    await file_store.save(held)
    change = Overtaken(file_store)
    updated = await file_store.update("s-1", change)
    assert change.was_free == [True, False]
    assert updated.metadata["n"] == 101
    assert (await file_store.load("s-1")).revision == updated.revision
    assert lock_is_free(change.lock)
    updated.metadata["n"] = 0
    await file_store.save(updated)  # it is in step with what is stored
    with pytest.raises(SessionConflictError):
        await file_store.save(held)


async def test_an_async_function_takes_its_time_without_the_lock(
    file_store: FileSystemSessionStore,
) -> None:
    await file_store.save(counter())
    change = Overtaken(file_store)

    async def in_its_time(session: Session) -> None:
        change(session)
        await asyncio.sleep(0)

    assert (await file_store.update("s-1", in_its_time)).metadata["n"] == 101
    assert change.was_free == [True, True]


async def test_two_attempts_are_enough_whoever_else_updates(tmp_path: Path) -> None:
    rounds = scaled(25)
    stores = [FileSystemSessionStore(tmp_path / "s", lock_timeout=60) for _ in range(3)]
    await stores[0].save(counter())

    def count(session: Session) -> None:
        session.metadata["n"] += 1

    async def work(store: FileSystemSessionStore) -> None:
        for _ in range(rounds):
            await store.update("s-1", count, attempts=2)

    await asyncio.gather(*(work(store) for store in stores for _ in range(4)))
    assert (await stores[0].load("s-1")).metadata["n"] == 12 * rounds
    for store in stores:
        await store.aclose()


async def test_it_tries_again_after_a_program_that_takes_no_lock(
    file_store: FileSystemSessionStore,
) -> None:
    await file_store.save(counter())
    path, calls = file_store.dir / "s-1.json", 0

    def count(session: Session) -> None:
        nonlocal calls
        calls += 1
        if calls <= 3:  # as phi-core's older functions write
            stored = msgspec.json.decode(path.read_bytes())
            stored.pop("revision", None)
            stored["metadata"]["n"] += 100
            path.write_bytes(msgspec.json.format(msgspec.json.encode(stored)))
        session.metadata["n"] += 1

    with pytest.raises(SessionConflictError):
        await file_store.update("s-1", count, attempts=2)
    assert calls == 2
    assert (await file_store.update("s-1", count, attempts=2)).metadata["n"] == 301
    assert (await file_store.load("s-1")).metadata["n"] == 301
    calls = 0
    assert (await file_store.update("s-1", count)).metadata["n"] == 602
    assert calls == 4
    assert lock_is_free(lock_path(file_store))


async def test_one_attempt_is_one(file_store: FileSystemSessionStore) -> None:
    await file_store.save(counter())
    change = Overtaken(file_store)
    with pytest.raises(SessionConflictError):
        await file_store.update("s-1", change, attempts=1)
    assert change.was_free == [True]
    with pytest.raises(ValueError, match="attempts"):
        await file_store.update("s-1", change, attempts=0)


async def test_a_change_that_fails_leaves_the_session_and_no_lock(
    file_store: FileSystemSessionStore,
) -> None:
    await file_store.save(counter())
    change = Overtaken(file_store)

    def fails(session: Session) -> Session | None:
        change(session)
        return None if len(change.was_free) == 1 else Session("another", "agent")

    with pytest.raises(ValueError, match="gave 'another'"):
        await file_store.update("s-1", fails)
    assert change.was_free == [True, False]
    assert lock_is_free(change.lock)
    assert (await file_store.load("s-1")).metadata["n"] == 100
    assert await file_store.list_ids() == ["s-1"]


async def test_what_was_deleted_meanwhile_is_made_anew_or_not_found(
    file_store: FileSystemSessionStore,
) -> None:
    seen: list[Any] = []

    def deleted_at_first(session: Session) -> None:
        seen.append(session.metadata["n"])
        if len(seen) == 1:
            delete_session("s-1", file_store.dir)

    await file_store.save(Session("s-1", "agent", metadata={"n": 5}))
    await file_store.update("s-1", deleted_at_first, create=counter)
    assert seen == [5, 0]
    seen.clear()
    with pytest.raises(SessionNotFoundError):
        await file_store.update("s-1", deleted_at_first)
    assert lock_is_free(lock_path(file_store))
    assert await file_store.list_ids() == []


async def test_what_another_made_meanwhile_is_changed(file_store: FileSystemSessionStore) -> None:
    def create() -> Session:
        save_session(Session("s-1", "another", metadata={"n": 7}), file_store.dir)
        return counter()

    def count(session: Session) -> None:
        session.metadata["n"] += 1

    updated = await file_store.update("s-1", count, create=create)
    assert (updated.agent_id, updated.metadata["n"]) == ("another", 8)


@pytest.mark.parametrize("cancel", CANCELS)
async def test_cancelled_at_any_await_it_leaves_no_lock_and_the_old_session_or_the_new(
    file_store: FileSystemSessionStore, cancel: Cancel
) -> None:
    step, reached, alone = 0, True, 0
    await file_store.save(counter())
    while reached and step < 60:
        step += 1
        old = (await file_store.load("s-1")).metadata["n"]
        change = Overtaken(file_store)
        reached, result = await cancelled_at(file_store.update("s-1", change), step, cancel)
        assert lock_is_free(change.lock)
        stored = (await file_store.load("s-1")).metadata["n"]
        if isinstance(result, Session):
            assert stored == old + 101
        else:
            assert isinstance(result, asyncio.CancelledError)
            assert stored - old in ((0, 1), (100, 101))[bool(change.was_free)]
        alone += reached and len(change.was_free) == 2
    assert alone > 0  # it was cancelled while it had the lock


def test_a_loop_that_vanishes_gives_the_lock_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "_SLICE", 0.0)  # so that encoding waits for a pass of the loop
    caplog.set_level(logging.CRITICAL)  # tasks that are destroyed are told of
    store = FileSystemSessionStore(tmp_path / "s")
    lock = lock_path(store)
    kept: list[Any] = []
    with loops(2) as (one, other):
        other.run(store.save(counter()))

        class Vanishes(Overtaken):
            def __call__(self, session: Session) -> None:
                super().__call__(session)
                if len(self.was_free) == 2:
                    asyncio.get_running_loop().stop()

        change = Vanishes(store)

        async def begin() -> None:
            kept.append(asyncio.ensure_future(store.update("s-1", change)))

        one.run(begin())
        eventually(lambda: len(change.was_free) == 2)
        one.vanish()
        assert not lock_is_free(lock)
        kept.clear()
        gc.collect()
        eventually(lambda: lock_is_free(lock))
        assert other.run(store.update("s-1", lambda session: None)).metadata["n"] == 100
        other.run(store.aclose())
