"""Many tasks at once, and listings while others write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from conftest import scaled
from contract_samples import a_loop, a_session, content

from phi_sessions import (
    Expect,
    MemorySessionStore,
    Session,
    SessionConflictError,
    SessionExistsError,
    SessionNotFoundError,
    SessionStore,
)


async def test_many_tasks_save_sessions_of_their_own(store: SessionStore) -> None:
    sessions = [a_session(f"s-{n}", f"agent-{n % 4}", loops=2) for n in range(scaled(100))]
    await asyncio.gather(*(store.save(session) for session in sessions))
    loaded = await asyncio.gather(*(store.load(session.session_id) for session in sessions))
    assert [content(session) for session in loaded] == [content(session) for session in sessions]
    assert sorted(await store.list_ids()) == sorted(session.session_id for session in sessions)


async def test_a_hundred_tasks_save_one_session_and_the_last_to_come_wins(
    store: SessionStore,
) -> None:
    saves = [store.save(a_session(metadata={"n": n}), expect=Expect.ANYTHING) for n in range(100)]
    revisions = await asyncio.gather(*saves)
    assert len(set(revisions)) == 100
    loaded = await store.load("s-1")
    assert (loaded.metadata, loaded.revision) == ({"n": 99}, revisions[99])


async def test_of_many_creators_one_succeeds(store: SessionStore) -> None:
    sessions = [a_session(metadata={"n": n}) for n in range(50)]
    results = await asyncio.gather(
        *(store.save(session, expect=Expect.ABSENT) for session in sessions),
        return_exceptions=True,
    )
    winners = [n for n, result in enumerate(results) if isinstance(result, str)]
    assert len(winners) == 1
    assert {type(r) for r in results if not isinstance(r, str)} == {SessionExistsError}
    assert (await store.load("s-1")).metadata == {"n": winners[0]}


async def test_of_many_holders_of_one_state_one_succeeds(store: SessionStore) -> None:
    await store.save(a_session())
    holders = [await store.load("s-1") for _ in range(50)]
    for n, holder in enumerate(holders):
        holder.metadata["n"] = n
    results = await asyncio.gather(*map(store.save, holders), return_exceptions=True)
    winners = [n for n, result in enumerate(results) if isinstance(result, str)]
    assert len(winners) == 1
    assert {type(r) for r in results if not isinstance(r, str)} == {SessionConflictError}
    assert (await store.load("s-1")).metadata == {"n": winners[0]}


async def test_of_many_deleters_one_succeeds(store: SessionStore) -> None:
    await store.save(a_session())
    results = await asyncio.gather(
        *(store.delete("s-1") for _ in range(20)), return_exceptions=True
    )
    assert results.count(None) == 1
    assert {type(r) for r in results if r is not None} == {SessionNotFoundError}


async def test_no_addition_is_lost_by_those_who_try_again(store: SessionStore) -> None:
    await store.save(a_session(loops=0))
    tasks, rounds = 8, scaled(10)

    async def add(task: int) -> None:
        for n in range(rounds):
            while True:
                session = await store.load("s-1")
                session.loops.append(a_loop("s-1", task * 1000 + n))
                try:
                    await store.save(session)
                    break
                except SessionConflictError:
                    continue

    async with asyncio.timeout(60):
        await asyncio.gather(*map(add, range(tasks)))
    kept = {record.metadata["number"] for record in (await store.load("s-1")).loops}
    assert kept == {task * 1000 + n for task in range(tasks) for n in range(rounds)}


async def test_loads_during_saves_see_one_whole_state(store: SessionStore) -> None:
    def version(n: int) -> Session:
        session = a_session(loops=0, metadata={"n": n})
        session.loops.extend(a_loop("s-1", n, text=str(n) * 500) for _ in range(5))
        return session

    await store.save(version(0))
    done = False

    async def write() -> None:
        nonlocal done
        for n in range(1, scaled(100)):
            await store.save(version(n))
            await asyncio.sleep(0)
        done = True

    async def read() -> None:
        seen = 0
        while not done:
            session = await store.load("s-1")
            assert session.metadata["n"] >= seen  # never back in time
            seen = session.metadata["n"]
            assert {record.metadata["number"] for record in session.loops} == {seen}
            await asyncio.sleep(0)

    await asyncio.gather(write(), read(), read(), read())


async def by_ids(store: SessionStore) -> list[str]:
    return await store.list_ids()


async def by_cards(store: SessionStore) -> list[str]:
    return [info.session_id async for info in store.infos()]


async def by_cards_of_an_agent(store: SessionStore) -> list[str]:
    return [info.session_id async for info in store.infos(agent_id="agent-1")]


async def by_agent(store: SessionStore) -> list[str]:
    return [session.session_id for session in await store.list_for_agent("agent-1")]


@asynccontextmanager
async def churn(store: SessionStore) -> AsyncIterator[set[str]]:
    """Save sessions over and over and let others come and go; give the ids that stay."""
    stay = [f"stay-{n}" for n in range(40)]
    for session_id in stay:
        await store.save(a_session(session_id))
    done = False

    async def resave(mine: list[str]) -> None:
        while not done:
            for session_id in mine:
                await store.save(a_session(session_id))
                await asyncio.sleep(0)  # a store may answer without giving others their turn

    async def come_and_go(name: str) -> None:
        while not done:
            await store.save(a_session(name))
            await asyncio.sleep(0)
            await store.delete(name)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(resave(stay[::2]))
        group.create_task(resave(stay[1::2]))
        for n in range(3):
            group.create_task(come_and_go(f"go-{n}"))
        try:
            yield set(stay)
        finally:
            done = True


@pytest.mark.parametrize("listing", [by_ids, by_cards, by_cards_of_an_agent, by_agent])
async def test_a_listing_during_saves_and_deletes_has_each_session_once(
    store: SessionStore, listing: Callable[[SessionStore], Awaitable[list[str]]]
) -> None:
    async with churn(store) as stay:
        for _ in range(scaled(20)):
            listed = await listing(store)
            assert len(listed) == len(set(listed))
            assert set(listed) >= stay
            assert set(listed) - stay <= {"go-0", "go-1", "go-2"}
            await asyncio.sleep(0)


async def test_listings_of_many_sessions_in_memory_leave_the_loop_its_turns() -> None:
    store = MemorySessionStore()
    for n in range(3000):
        await store.save(a_session(f"s-{n}", metadata={"n": list(range(20))}))

    async def cards() -> int:
        return len([info async for info in store.infos()])

    async def sessions() -> int:
        return len(await store.list_for_agent("agent-1"))

    async def old_ones() -> int:
        return len(await store.prune(older_than=timedelta(days=-1), dry_run=True))

    for listing in (cards, sessions, old_ones):
        task = asyncio.create_task(listing())
        turns = 0
        while not task.done():
            turns += 1
            await asyncio.sleep(0)
        assert task.result() == 3000
        assert turns > 5, listing.__name__
