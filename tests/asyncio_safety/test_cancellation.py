"""Cancelled calls: nothing of them runs on, and what is stored is the old state or the new one."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from types import NoneType
from typing import Any

import pytest
from awaiting import Steps, ended, until
from cancelling import (
    CANCELS,
    Cancel,
    cancelled_at,
    in_the_middle,
)
from conftest import scaled
from safety_checks import (
    assert_quiet,
    held_by_descriptor,
    held_by_process,
    lock_path,
    number,
    version,
)

from phi_sessions import (
    Expect,
    FileSystemSessionStore,
    Session,
    SessionNotFoundError,
)

Call = Callable[[FileSystemSessionStore, Session], Coroutine[Any, Any, Any]]


@pytest.fixture
async def file_store(tmp_path: Path) -> AsyncIterator[FileSystemSessionStore]:
    async with FileSystemSessionStore(tmp_path / "sessions", lock_interval=0.001) as store:
        yield store


async def infos(store: FileSystemSessionStore, session: Session) -> Any:
    return [info async for info in store.infos()]


async def infos_of_agent(store: FileSystemSessionStore, session: Session) -> Any:
    return [info async for info in store.infos(agent_id="a", limit=5)]


CALLS: dict[str, Call] = {
    "save": lambda store, session: store.save(session),
    "save_anything": lambda store, session: store.save(session, expect=Expect.ANYTHING),
    "load": lambda store, session: store.load("s-1"),
    "delete": lambda store, session: store.delete("s-1"),
    "delete_expecting": lambda store, session: store.delete("s-1", expect=session.revision),
    "list_ids": lambda store, session: store.list_ids(),
    "exists": lambda store, session: store.exists("s-1"),
    "find": lambda store, session: store.find("s-1"),
    "infos": infos,
    "infos_of_agent": infos_of_agent,
    "list_for_agent": lambda store, session: store.list_for_agent("a"),
}
WRITES = ["save", "save_anything", "delete", "delete_expecting"]


async def assert_old_or_new(store: FileSystemSessionStore, session: Session, old: int) -> None:
    """The stored state is `old` or that of `session`, and its holder knows which."""
    stored = await store.load("s-1")
    assert number(stored) in (old, number(session))
    if number(stored) == number(session):
        assert stored.revision == session.revision


async def assert_all_is_well(
    store: FileSystemSessionStore, name: str, session: Session, old: int, result: Any
) -> None:
    """After a call that was perhaps cancelled: old or new, and a later save stays."""
    assert_quiet(store)
    if name.startswith("delete"):
        found = await store.find("s-1")
        assert found is None or number(found) == old
        assert found is None or isinstance(result, asyncio.CancelledError)
        if found is None:
            session = version(old + 1)
    elif name in WRITES:
        await assert_old_or_new(store, session, old)
    else:
        assert number(await store.load("s-1")) == old
    session.metadata["n"] = old + 2
    for record in session.loops:
        record.metadata["n"] = old + 2
    revision = await store.save(session)  # the holder is still the holder
    stored = await store.load("s-1")
    assert (number(stored), stored.revision) == (old + 2, revision)
    assert_quiet(store)


@pytest.mark.parametrize("cancel", CANCELS)
@pytest.mark.parametrize("size", [1, 800], ids=["small", "large"])
@pytest.mark.parametrize("name", CALLS)
async def test_a_call_cancelled_at_any_await_leaves_the_old_state_or_the_new(
    file_store: FileSystemSessionStore, name: str, size: int, cancel: Cancel
) -> None:
    if size > 1 and name not in ("save", "load"):
        size = 20
    session = version(0, size=size)
    await file_store.save(session)
    for n in range(5):
        await file_store.save(version(0, f"other-{n}"))
    step, reached, ends = 0, True, set()
    while reached and step < 40:
        step += 1
        old = number(session)
        session.metadata["n"] = old + 1
        for record in session.loops:
            record.metadata["n"] = old + 1
        reached, result = await cancelled_at(CALLS[name](file_store, session), step, cancel)
        ends.add(type(result))
        assert reached or not isinstance(result, BaseException)
        await assert_all_is_well(file_store, name, session, old, result)
        session = await file_store.load("s-1")
    assert step > 1
    assert asyncio.CancelledError in ends or cancel is in_the_middle


@pytest.mark.parametrize("cancel", CANCELS)
@pytest.mark.parametrize("name", WRITES)
async def test_a_call_cancelled_at_any_await_of_its_wait_for_a_lock(
    file_store: FileSystemSessionStore, name: str, cancel: Cancel
) -> None:
    session = version(0)
    await file_store.save(session)
    step, reached = 0, True
    while reached and step < 40:
        step += 1
        old = number(session)
        session.metadata["n"] = old + 1
        session.loops[0].metadata["n"] = old + 1
        with held_by_descriptor(lock_path(file_store)) as let_go:

            def each_step(n: int, let_go: Callable[[], None] = let_go) -> None:
                if n == 7:
                    let_go()

            call = CALLS[name](file_store, session)
            reached, result = await cancelled_at(call, step, cancel, each_step)
        assert reached or not isinstance(result, BaseException)
        await assert_all_is_well(file_store, name, session, old, result)
        session = await file_store.load("s-1")
    assert step > 7  # all tries that failed, and the one that did not


@pytest.mark.parametrize("cancel", CANCELS)
@pytest.mark.parametrize("name", WRITES)
async def test_a_call_cancelled_at_any_await_behind_another_gives_up_its_place(
    file_store: FileSystemSessionStore, name: str, cancel: Cancel
) -> None:
    step, reached = 0, True
    while reached and step < 20:
        step += 1
        await file_store.save(version(0))
        session = await file_store.load("s-1")
        session.metadata["n"] = session.loops[0].metadata["n"] = 1
        if name in ("save", "delete_expecting"):
            first = asyncio.create_task(ended(file_store.load("s-1")))  # changes nothing
        else:
            first = asyncio.create_task(ended(file_store.save(version(2), expect=Expect.ANYTHING)))
        ahead = asyncio.create_task(ended(file_store.save(session)))
        await asyncio.sleep(0)
        behind = asyncio.create_task(cancelled_at(CALLS[name](file_store, session), step, cancel))
        await asyncio.sleep(0)
        last = asyncio.create_task(
            ended(file_store.save(version(9, size=3), expect=Expect.ANYTHING))
        )
        reached, _ = await behind
        await asyncio.gather(first, ahead)
        revision = await last
        stored = await file_store.load("s-1")
        assert (number(stored), stored.revision) == (9, revision)
        assert_quiet(file_store)
    assert step > 1


async def test_cancels_at_random_moments_never_undo_an_acknowledged_save(
    file_store: FileSystemSessionStore,
) -> None:
    times = []
    for _ in range(50):
        begun = time.perf_counter()
        await file_store.save(version(0, "warm-up"))
        times.append(time.perf_counter() - begun)
    usual = statistics.median(times)
    chance = random.Random(2)
    ends: dict[str, int] = {"cancelled": 0, "saved": 0, "landed": 0}

    async def campaign(session_id: str, rounds: int) -> None:
        session = version(0, session_id)
        await file_store.save(session)
        n = 0
        for _ in range(rounds):
            n += 1
            session.metadata["n"] = session.loops[0].metadata["n"] = n
            task = asyncio.create_task(file_store.save(session))
            for _ in range(chance.choice((1, 1, 2))):
                await asyncio.sleep(chance.uniform(0, 1.5) * usual)
                task.cancel()
            result = await ended(task)
            cancelled = isinstance(result, asyncio.CancelledError)
            ends["cancelled" if cancelled else "saved"] += 1
            stored = await file_store.load(session_id)
            assert number(stored) == n or (cancelled and number(stored) == n - 1)
            assert stored.revision == session.revision
            if cancelled and number(stored) == n:
                ends["landed"] += 1
            n += 1
            session.metadata["n"] = session.loops[0].metadata["n"] = n
            revision = await file_store.save(session)
            stored = await file_store.load(session_id)
            assert (number(stored), stored.revision) == (n, revision)

    tasks = 4
    await asyncio.gather(*(campaign(f"s-{k}", scaled(2000) // tasks) for k in range(tasks)))
    assert_quiet(file_store)
    assert min(ends.values()) > 0  # all ways to end were met


async def test_cancels_at_random_moments_of_all_calls_at_once(
    file_store: FileSystemSessionStore,
) -> None:
    chance = random.Random(3)
    for k in range(4):
        await file_store.save(version(0, f"s-{k}"))

    async def call(n: int) -> None:
        session_id = f"s-{n % 4}"
        await chance.choice(
            (
                lambda: file_store.save(version(n, session_id, size=chance.choice((1, 40)))),
                lambda: file_store.load(session_id),
                lambda: file_store.delete(session_id),
                lambda: file_store.list_ids(),
                lambda: infos(file_store, version(0)),
                lambda: file_store.list_for_agent("a"),
            )
        )()

    for begin in range(0, scaled(1000), 50):
        tasks = [asyncio.create_task(call(n)) for n in range(begin, begin + 50)]
        chance.shuffle(tasks)
        for task in tasks:
            if chance.random() < 0.8:
                task.cancel()
            if chance.random() < 0.3:
                await asyncio.sleep(chance.uniform(0, 0.001))
        async with asyncio.timeout(60):
            results = await asyncio.gather(*tasks, return_exceptions=True)
        errors = [r for r in results if r is not None]
        assert {type(e) for e in errors} <= {asyncio.CancelledError, SessionNotFoundError}
        assert_quiet(file_store)
        for session_id in await file_store.list_ids():
            number(await file_store.load(session_id))


@pytest.mark.parametrize("seconds", [0.0, 0.0003, 0.001, 0.1])
async def test_a_timeout_ends_a_save_cleanly(
    file_store: FileSystemSessionStore, seconds: float
) -> None:
    session = version(0)
    await file_store.save(session)
    for n in range(1, 20):
        session.metadata["n"] = session.loops[0].metadata["n"] = n

        async def save(wait_for: bool = n % 2 == 0) -> None:
            if wait_for:
                await asyncio.wait_for(file_store.save(session), seconds)
            else:
                async with asyncio.timeout(seconds):
                    await file_store.save(session)

        assert type(await ended(save())) in (TimeoutError, NoneType)
        assert_quiet(file_store)
        await assert_old_or_new(file_store, session, n - 1)
        await file_store.save(session)


async def test_a_failing_task_group_ends_its_saves_cleanly(
    file_store: FileSystemSessionStore,
) -> None:
    for n in range(1, 20):

        async def fail(turns: int = n) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            raise ZeroDivisionError

        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                for k in range(8):
                    group.create_task(file_store.save(version(n, f"s-{k % 4}", size=20)))
                group.create_task(fail())
        assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
        assert_quiet(file_store)
        for session_id in await file_store.list_ids():
            assert number(await file_store.load(session_id)) <= n


async def test_cancelled_while_another_process_holds_the_lock(
    file_store: FileSystemSessionStore,
) -> None:
    await file_store.save(version(0))
    with held_by_process(lock_path(file_store)) as end:
        steps = Steps(file_store.save(version(1)))
        task = asyncio.create_task(steps.run())
        await until(lambda: steps.count >= 5)
        task.cancel()
        assert isinstance(await ended(task), asyncio.CancelledError)
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.05):
                await file_store.delete("s-1")
        assert type(caught.value) is TimeoutError
        assert number(await file_store.load("s-1")) == 0
        end()
    assert_quiet(file_store)
    await file_store.save(version(2))
    assert number(await file_store.load("s-1")) == 2


async def test_those_who_wait_keep_their_order_when_others_give_up(
    file_store: FileSystemSessionStore,
) -> None:
    await file_store.save(version(0))
    order: list[int] = []

    async def save(n: int) -> None:
        await file_store.save(version(n))
        order.append(n)

    with held_by_process(lock_path(file_store)) as end:
        head = Steps(save(0))
        tasks = [asyncio.create_task(head.run())]
        tasks += [asyncio.create_task(save(n)) for n in range(1, 12)]
        await until(lambda: head.count >= 5)
        for n in (0, 1, 4, 5, 11):
            tasks[n].cancel()
        await asyncio.wait([tasks[n] for n in (0, 1, 4, 5, 11)])
        assert order == []
        end()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [n for n, result in enumerate(results) if result is not None] == [0, 1, 4, 5, 11]
    assert order == [2, 3, 6, 7, 8, 9, 10]
    assert number(await file_store.load("s-1")) == 10
    assert_quiet(file_store)


async def test_a_cancelled_first_save_leaves_no_half_made_session(
    file_store: FileSystemSessionStore,
) -> None:
    for n in range(100):
        task = asyncio.create_task(file_store.save(version(n, f"s-{n}"), expect=Expect.ABSENT))
        await asyncio.sleep(n / 100_000)
        task.cancel()
        result = await ended(task)
        assert_quiet(file_store)
        found = await file_store.find(f"s-{n}")
        assert found is not None or isinstance(result, asyncio.CancelledError)
        assert found is None or number(found) == n


async def test_a_call_that_is_closed_while_it_queues_gives_up_its_place(
    file_store: FileSystemSessionStore,
) -> None:
    with held_by_descriptor(lock_path(file_store)) as let_go:
        head = Steps(file_store.save(version(0)))
        task = asyncio.create_task(head.run())
        await until(lambda: head.count >= 3)
        abandoned = file_store.save(version(1))
        abandoned.send(None)
        abandoned.close()
        behind = asyncio.create_task(file_store.save(version(2)))
        await asyncio.sleep(0)
        let_go()
        await task
        async with asyncio.timeout(3):
            await behind
    assert number(await file_store.load("s-1")) == 2
    assert_quiet(file_store)


def test_a_loop_that_shuts_down_waits_for_the_saves_under_way(tmp_path: Path) -> None:
    store = FileSystemSessionStore(tmp_path / "sessions")

    async def save(session: Session) -> None:
        while True:
            await store.save(session)

    for n in range(20):
        sessions = [version(n, f"s-{k}", size=30) for k in range(8)]

        background: list[asyncio.Task[None]] = []

        async def leave(
            n: int = n,
            sessions: list[Session] = sessions,
            background: list[asyncio.Task[None]] = background,
        ) -> None:
            background += [asyncio.create_task(save(session)) for session in sessions]
            await asyncio.sleep(n / 1000)

        asyncio.run(leave())  # ends with all tasks pending
        assert all(task.cancelled() for task in background)
        assert_quiet(store)

        async def check(n: int = n, sessions: list[Session] = sessions) -> None:
            for session in sessions:
                found = await store.find(session.session_id)
                if found is not None and number(found) == n:
                    assert found.revision == session.revision
                await store.save(version(n, session.session_id))

        asyncio.run(check())
    asyncio.run(store.aclose())
