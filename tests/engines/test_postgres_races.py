"""Several writers of one session: nothing is lost, nothing is mixed, nobody waits for ever."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from awaiting import until
from conftest import scaled
from postgres_checks import assert_quiet, busy, held_row, number, record, version
from postgres_server import run_sql

from phi_sessions import (
    Expect,
    Session,
    SessionConflictError,
    SessionExistsError,
    SessionLockedError,
    SessionNotFoundError,
)
from phi_sessions.stores.postgres import PostgresSessionStore

PROGRAMS = Path(__file__).with_name("postgres_programs.py")


def stores(url: str, count: int, **options: Any) -> list[PostgresSessionStore]:
    return [PostgresSessionStore(url, pool_size=2, **options) for _ in range(count)]


async def close(opened: list[PostgresSessionStore]) -> None:
    await asyncio.gather(*(store.aclose() for store in opened))


async def test_eight_processes_lose_none_of_their_updates(postgres_url: str) -> None:
    updates = scaled(100)
    async with PostgresSessionStore(postgres_url) as store:
        await store.save(Session("s-1", "a", metadata={"count": 0}))
        command = [sys.executable, str(PROGRAMS), "update", postgres_url, str(updates)]
        children = [subprocess.Popen(command) for _ in range(8)]
        try:
            for child in children:
                assert await asyncio.to_thread(child.wait, 100) == 0
        finally:
            for child in children:
                child.kill()
        session = await store.load("s-1")
        assert session.metadata["count"] == 8 * updates
        assert [loop.metadata["count"] for loop in session.loops] == [updates] * 8


async def test_appends_of_many_stores_to_one_session_are_all_kept(postgres_url: str) -> None:
    opened = stores(postgres_url, 8)
    await opened[0].save(version(0, size=0))
    each = scaled(20)

    async def append(number_: int, store: PostgresSessionStore) -> None:
        for k in range(each):
            await store.append("s-1", record(number_ * each + k))

    await asyncio.gather(*(append(n, store) for n, store in enumerate(opened)))
    session = await opened[0].load("s-1")
    assert sorted(session.loops.ids()) == sorted(f"s-1.{k}" for k in range(8 * each))
    positions = await run_sql(postgres_url, "SELECT position FROM phi_records ORDER BY 1")
    assert [position for (position,) in positions] == list(range(8 * each))
    await assert_quiet(postgres_url, opened[0])
    await close(opened)


async def test_the_same_record_appended_by_many_stores_is_there_once(postgres_url: str) -> None:
    opened = stores(postgres_url, 6)
    for n in range(scaled(8)):
        await opened[0].save(version(0, f"s-{n}", size=0))
        calls = (store.append(f"s-{n}", record(7, f"s-{n}", n=k)) for k, store in enumerate(opened))
        await asyncio.gather(*calls)
        session = await opened[0].load(f"s-{n}")
        assert session.loops.ids() == [f"s-{n}.7"]
        size = await run_sql(
            postgres_url,
            f"SELECT s.size - length(head) - length(text) FROM phi_sessions s, phi_records r"
            f" WHERE s.session_id = r.session_id AND s.session_id = 's-{n}'",
        )
        assert size[0][0] == 0
    await close(opened)


async def test_saves_that_replace_anything_are_never_mixed(postgres_url: str) -> None:
    opened = stores(postgres_url, 6)

    async def save(n: int, store: PostgresSessionStore) -> None:
        for k in range(scaled(10)):
            written = version(n * 1000 + k, size=(n + k) % 5)
            await store.save(written, expect=Expect.ANYTHING)

    async def read(store: PostgresSessionStore) -> None:
        while not over:
            found = await store.find("s-1")
            assert found is None or len(found.loops) == sum(divmod(number(found), 1000)) % 5

    over = False
    reader = asyncio.create_task(read(opened[0]))
    await asyncio.gather(*(save(n, store) for n, store in enumerate(opened)))
    over = True
    await reader
    [[records, next_position]] = await run_sql(
        postgres_url,
        "SELECT (SELECT count(*) FROM phi_records), next_position FROM phi_sessions",
    )
    assert records == next_position == len((await opened[0].load("s-1")).loops)
    await close(opened)


async def test_saves_deletes_and_appends_at_once_leave_no_remains(postgres_url: str) -> None:
    opened = stores(postgres_url, 4)
    expected = (SessionNotFoundError, SessionConflictError, SessionExistsError)

    async def work(n: int, store: PostgresSessionStore) -> None:
        for k in range(scaled(20)):
            try:
                if k % 4 == n:
                    await store.delete("s-1")
                elif k % 2:
                    await store.append("s-1", record(n * 100 + k))
                else:
                    await store.save(version(k, size=2), expect=Expect.ANYTHING)
            except expected:
                pass

    await asyncio.gather(*(work(n, store) for n, store in enumerate(opened)))
    if await opened[0].exists("s-1"):
        await opened[0].delete("s-1")
    assert await run_sql(postgres_url, "SELECT * FROM phi_records") == []
    await close(opened)


async def test_of_many_who_create_a_session_one_does(postgres_url: str) -> None:
    opened = stores(postgres_url, 8)
    for n in range(scaled(6)):
        results = await asyncio.gather(
            *(
                store.save(version(k, f"s-{n}"), expect=Expect.ABSENT)
                for k, store in enumerate(opened)
            ),
            return_exceptions=True,
        )
        failures = [result for result in results if not isinstance(result, str)]
        assert [type(failure) for failure in failures] == [SessionExistsError] * 7
    await close(opened)


async def test_many_who_save_a_new_session_by_hand_all_do(postgres_url: str) -> None:
    opened = stores(postgres_url, 8)
    for n in range(scaled(6)):
        saved = [version(k, f"s-{n}", size=k) for k in range(8)]
        calls = (store.save(session) for store, session in zip(opened, saved, strict=True))
        revisions = await asyncio.gather(*calls)
        last = await opened[0].load(f"s-{n}")
        assert last.revision in revisions
        assert len(last.loops) == number(last)
    await close(opened)


async def test_a_conflict_that_comes_while_waiting_is_told(postgres_url: str) -> None:
    async with PostgresSessionStore(postgres_url) as store:
        session = version(0)
        await store.save(session)
        async with held_row(postgres_url) as holder:
            save = asyncio.create_task(store.save(session))
            await until(lambda: waits_for_a_lock(postgres_url))
            await holder.execute("UPDATE phi_sessions SET revision = 'other'")
        with pytest.raises(SessionConflictError) as caught:
            await save
        assert caught.value.found == "other"
        await assert_quiet(postgres_url, store)


async def waits_for_a_lock(url: str) -> bool:
    rows = await run_sql(
        url, "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '/* phi%'"
    )
    return len(rows) > 0


async def test_a_change_that_comes_while_waiting_is_built_upon(postgres_url: str) -> None:
    async with PostgresSessionStore(postgres_url) as store:
        await store.save(version(0, size=1))
        async with held_row(postgres_url) as holder:
            append = asyncio.create_task(store.append("s-1", record(5)))
            await until(lambda: waits_for_a_lock(postgres_url))
            await holder.execute("UPDATE phi_sessions SET revision = 'other', next_position = 9")
        await append
        positions = await run_sql(postgres_url, "SELECT position FROM phi_records ORDER BY 1")
        assert [position for (position,) in positions] == [0, 9]
        await assert_quiet(postgres_url, store)


@pytest.mark.parametrize("call", ["save", "append", "delete"])
async def test_a_session_that_is_held_too_long_is_locked(postgres_url: str, call: str) -> None:
    async with PostgresSessionStore(postgres_url, lock_timeout=0.2) as store:
        session = version(0)
        await store.save(session)
        calls = {
            "save": lambda: store.save(session),
            "append": lambda: store.append("s-1", record(1)),
            "delete": lambda: store.delete("s-1"),
        }
        async with held_row(postgres_url):
            begun = time.monotonic()
            with pytest.raises(SessionLockedError) as caught:
                await calls[call]()
            assert 0.15 < time.monotonic() - begun < 3
            assert 0.15 < caught.value.waited < 3
            assert caught.value.session_id == "s-1"
            assert number(await store.load("s-1")) == 0  # readers do not wait
            await store.save(version(1, "s-2"))  # nor do writers of others
            assert await busy(postgres_url) == ["idle in transaction: " + HOLDS]
        await calls[call]()
        await assert_quiet(postgres_url, store)


def change_of(store: PostgresSessionStore, session: Session, call: str) -> Awaitable[object]:
    """Begin a change of the session `s-1`."""
    match call:
        case "save":
            return store.save(session)
        case "save by hand":
            return store.save(version(0))
        case "append":
            return store.append("s-1", record(1))
        case _:
            return store.delete("s-1")


async def waits_for_a_held_row(
    url: str, store: PostgresSessionStore, session: Session, call: str, seconds: float
) -> None:
    """Assert that a change waits longer than `seconds`, and is made when the row is free."""
    async with held_row(url):
        change = asyncio.ensure_future(change_of(store, session, call))
        await asyncio.sleep(seconds)
        assert not change.done()
    await change
    await assert_quiet(url, store)


@pytest.mark.parametrize("call", ["save", "save by hand", "append", "delete"])
async def test_a_session_that_is_held_longer_than_a_call_may_take_is_locked(
    postgres_url: str, call: str
) -> None:
    async with PostgresSessionStore(postgres_url, timeout=0.5, lock_timeout=1.2) as store:
        session = version(0)
        await store.save(session)
        async with held_row(postgres_url):
            with pytest.raises(SessionLockedError) as caught:
                await change_of(store, session, call)
            assert 1.1 < caught.value.waited < 3
            assert caught.value.session_id == "s-1"
            assert await busy(postgres_url) == ["idle in transaction: " + HOLDS]
        await waits_for_a_held_row(postgres_url, store, session, call, 0.6)


@pytest.mark.parametrize("call", ["save", "save by hand", "append", "delete"])
async def test_a_session_is_waited_for_though_statements_may_not_take_that_long(
    postgres_url: str, call: str
) -> None:
    session = version(0)
    async with PostgresSessionStore(postgres_url) as store:
        await store.save(session)
    name = postgres_url.rpartition("/")[2]
    await run_sql(postgres_url, f"ALTER DATABASE {name} SET statement_timeout = '800ms'")
    async with PostgresSessionStore(postgres_url, lock_timeout=2.5) as store:
        async with held_row(postgres_url):
            with pytest.raises(SessionLockedError) as caught:
                await change_of(store, session, call)
            assert caught.value.waited > 2.4
            assert caught.value.session_id == "s-1"
        await waits_for_a_held_row(postgres_url, store, session, call, 1)


HOLDS = "SELECT FROM phi_sessions WHERE session_id = $1 FOR UPDATE"


async def test_those_who_wait_in_one_store_take_one_connection(postgres_url: str) -> None:
    async with PostgresSessionStore(postgres_url, pool_size=2, timeout=5) as store:
        await store.save(version(0, size=0))
        async with held_row(postgres_url):
            waiting = [asyncio.create_task(store.append("s-1", record(k))) for k in range(20)]
            await until(lambda: waits_for_a_lock(postgres_url))
            await store.save(version(1, "s-2"))
        await asyncio.gather(*waiting)
        assert (await store.load("s-1")).loops.ids() == [f"s-1.{k}" for k in range(20)]


async def test_saves_of_one_store_land_in_the_order_of_the_calls(postgres_url: str) -> None:
    async with PostgresSessionStore(postgres_url) as store:
        for _ in range(5):
            saves = [store.save(version(n), expect=Expect.ANYTHING) for n in range(20)]
            await asyncio.gather(*saves)
            assert number(await store.load("s-1")) == 19


async def test_writers_of_several_sessions_do_not_deadlock(postgres_url: str) -> None:
    opened = stores(postgres_url, 6)
    names = [f"s-{n}" for n in range(4)]
    for name in names:
        await opened[0].save(version(0, name, size=0))

    async def work(n: int, store: PostgresSessionStore) -> None:
        for k in range(scaled(10)):
            turn = names if n % 2 else names[::-1]
            await asyncio.gather(*(store.append(s, record(n * 1000 + k, s)) for s in turn))

    await asyncio.gather(*(work(n, store) for n, store in enumerate(opened)))
    for name in names:
        assert len((await opened[0].load(name)).loops) == 6 * scaled(10)
    [[deadlocks]] = await run_sql(
        postgres_url, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    assert deadlocks == 0
    await close(opened)


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
async def test_a_role_with_another_isolation_level_loses_nothing(
    postgres_url: str, isolation: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    await run_sql(
        postgres_url, f"ALTER DATABASE {name} SET default_transaction_isolation = '{isolation}'"
    )
    opened = stores(postgres_url, 4, lock_timeout=20)
    await opened[0].save(version(0, size=0))

    async def work(n: int, store: PostgresSessionStore) -> None:
        for k in range(scaled(10)):
            await store.append("s-1", record(n * 100 + k))

    await asyncio.gather(*(work(n, store) for n, store in enumerate(opened)))
    assert len((await opened[0].load("s-1")).loops) == 4 * scaled(10)
    await close(opened)


async def test_a_load_is_never_of_two_states(postgres_url: str) -> None:
    opened = stores(postgres_url, 2)
    await opened[0].save(version(0, size=0))
    over = False

    async def write() -> None:
        session = await opened[0].load("s-1")
        for k in range(scaled(60)):
            session.metadata["loops"] = k + 1
            session.loops.append(record(k))
            await opened[0].save(session)

    async def read() -> int:
        reads = 0
        while not over:
            session = await opened[1].load("s-1")
            assert session.metadata.get("loops", 0) == len(session.loops)
            [mine] = await opened[1].list_for_agent("a")
            assert mine.metadata.get("loops", 0) == len(mine.loops)
            reads += 1
        return reads

    reader = asyncio.create_task(read())
    await write()
    over = True
    assert await reader > 0
    await close(opened)
