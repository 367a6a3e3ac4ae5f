"""Records in parts: appended, folded, read while they are folded, swept when nobody needs them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from conftest import scaled
from object_samples import a_loop, a_session, ids_of, text_of
from s3_server import BUCKET, s3_client

from phi_sessions import (
    Expect,
    SaveOutcomeUnknownError,
    SessionIOError,
    SessionLockedError,
    SessionNotFoundError,
)
from phi_sessions.stores.object import ObjectSessionStore, open_url
from phi_sessions.stores.object.bucket import Bucket
from phi_sessions.stores.object.drafts import FAN, INLINE

if TYPE_CHECKING:
    from benchmarks.servers.s3 import S3Server

NOW = timedelta(0)


@pytest.fixture
def keys(s3_server: S3Server, s3_prefix: str) -> Callable[[], list[str]]:
    """Return the keys of all objects of `s3_store`, without what it measures and tries out by."""
    client = s3_client(s3_server)

    def listed() -> list[str]:
        found = [each["path"][len(s3_prefix) + 1 :] for each in client.list(s3_prefix).collect()]
        return sorted(key for key in found if not key.startswith("own/"))

    return listed


def folders(keys: list[str]) -> dict[str, int]:
    """Return how many objects there are of each kind."""
    kinds = [key.partition("/")[0] for key in keys]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


async def test_a_small_session_is_one_object_and_an_entry(
    s3_store: ObjectSessionStore, keys: Callable[[], list[str]]
) -> None:
    await s3_store.save(a_session())
    for n in range(1, 6):
        await s3_store.append("s-1", a_loop("s-1", n))
    assert folders(keys()) == {"agent": 1, "session": 1}


async def test_a_long_session_is_what_was_appended_in_few_parts(
    s3_store: ObjectSessionStore, s3_url: str, keys: Callable[[], list[str]]
) -> None:
    await s3_store.save(a_session())
    most = 0
    texts = {"s-1.loop.0": "r 0"}
    chance = random.Random(3)
    for _ in range(scaled(120)):
        number = chance.randrange(90)  # many are put in the place of others
        text = chr(97 + chance.randrange(26)) * chance.choice((1, 3_000, 9_000, 40_000))
        await s3_store.append("s-1", a_loop("s-1", number, text=text))
        texts[f"s-1.loop.{number}"] = text
        most = max(most, folders(keys()).get("part", 0))
    async with open_url(s3_url) as other:
        session = await other.load("s-1")
        assert (
            dict(zip(ids_of(session), map(text_of, [session] * 99, range(99)), strict=False))
            == texts
        )
        assert ids_of(session) == list(texts)  # in the order in which they came first
    assert 2 <= most <= 2 * FAN
    assert await s3_store.sweep(older_than=NOW) == []  # folding left nothing behind


async def test_a_record_that_is_replaced_again_and_again_does_not_pile_up(
    s3_store: ObjectSessionStore, s3_server: S3Server, s3_prefix: str
) -> None:
    session = a_session(loops=3, text="x" * INLINE)
    await s3_store.save(session)
    for n in range(30):
        session.loops[1] = a_loop("s-1", 1, text=str(n % 10) * INLINE)
        await s3_store.save(session)
    stored = sum(each["size"] for each in s3_client(s3_server).list(s3_prefix).collect())
    assert stored < 8 * INLINE
    assert text_of(await s3_store.load("s-1"), 1) == "9" * INLINE


async def test_saves_keep_the_parts_that_did_not_change(
    s3_store: ObjectSessionStore, keys: Callable[[], list[str]]
) -> None:
    session = a_session(loops=50, text="x" * 2_000)
    await s3_store.save(session)
    before = {key for key in keys() if key.startswith("part/")}
    session.loops.append(a_loop("s-1", 99))
    session.loops[3] = a_loop("s-1", 3, text="changed")
    session.metadata["turn"] = 1
    await s3_store.save(session)
    assert {key for key in keys() if key.startswith("part/")} == before
    stored = await s3_store.load("s-1")
    assert stored == session
    del stored.loops[5]  # which no addition can say
    await s3_store.save(stored)
    assert not before & set(keys())
    assert await s3_store.load("s-1") == stored


async def test_records_with_one_id_stay_two(s3_store: ObjectSessionStore) -> None:
    twins: list[Any] = [a_loop("s-1", 1, text=text * 20_000) for text in "abc"]
    await s3_store.save(a_session(loops=0))
    session = await s3_store.load("s-1")
    session.loops.extend(twins)
    await s3_store.save(session)
    for n in range(2, 30):
        await s3_store.append("s-1", a_loop("s-1", n, text="y" * 20_000))
    await s3_store.append("s-1", a_loop("s-1", 1, text="last"))
    loaded = await s3_store.load("s-1")
    assert ids_of(loaded)[:3] == ["s-1.loop.1"] * 3
    assert [text_of(loaded, n)[0] for n in range(3)] == ["a", "b", "l"]


async def test_readers_see_whole_states_while_parts_are_folded(
    s3_store: ObjectSessionStore, s3_url: str
) -> None:
    await s3_store.save(a_session(loops=0))
    done = False
    loads = 0

    async def read(store: ObjectSessionStore) -> None:
        nonlocal loads
        longest = 0
        while not done:
            loaded = ids_of(await store.load("s-1"))
            assert loaded == [f"s-1.loop.{n}" for n in range(len(loaded))]
            assert len(loaded) >= longest
            longest = len(loaded)
            loads += 1

    async with open_url(s3_url) as other:
        readers = [asyncio.create_task(read(store)) for store in (other, s3_store)]
        n = 0
        while n < scaled(40) or loads <= 5:
            await s3_store.append("s-1", a_loop("s-1", n, text="x" * 33_000))
            n += 1
        done = True
        await asyncio.gather(*readers)


async def test_appenders_with_parts_lose_nothing(s3_url: str, s3_store: ObjectSessionStore) -> None:
    await s3_store.save(a_session(loops=0))

    async def add(first: int) -> None:
        async with open_url(s3_url) as store:
            for n in range(first, first + scaled(12)):
                await store.append("s-1", a_loop("s-1", n, text="x" * 20_000))

    await asyncio.gather(*(add(1000 * n) for n in range(5)))
    assert len(set(ids_of(await s3_store.load("s-1")))) == 5 * scaled(12)
    assert await s3_store.sweep(older_than=NOW) == []


# Deleting and sweeping ---------------------------------------------------------------------------


async def test_a_deleted_session_leaves_a_tombstone_that_nobody_sees(
    s3_store: ObjectSessionStore, keys: Callable[[], list[str]]
) -> None:
    session = a_session(loops=50, text="x" * 2_000)
    await s3_store.save(session)
    await s3_store.delete("s-1")
    assert folders(keys()) == {"session": 1}
    assert not await s3_store.exists("s-1")
    assert await s3_store.list_ids() == []
    assert [info async for info in s3_store.infos()] == []
    assert await s3_store.find("s-1") is None
    with pytest.raises(SessionNotFoundError):
        await s3_store.delete("s-1")
    with pytest.raises(SessionNotFoundError):
        await s3_store.append("s-1", a_loop("s-1"))
    await s3_store.save(a_session(), expect=Expect.ABSENT)
    assert await s3_store.list_ids() == ["s-1"]


async def test_sweep_removes_what_is_old_and_of_no_use_and_that_only(
    s3_store: ObjectSessionStore, s3_server: S3Server, s3_prefix: str, keys: Callable[[], list[str]]
) -> None:
    long = a_session("long", loops=50, text="x" * 2_000)
    await s3_store.save(long)
    await s3_store.save(a_session("gone", loops=50, text="x" * 2_000))
    await s3_store.delete("gone")
    await s3_store.save(a_session("moved", "agent-1"))
    moved = await s3_store.load("moved")
    moved.agent_id = "agent-2"
    await s3_store.save(moved)
    useful = set(keys()) - {"session/gone"}
    client = s3_client(s3_server)
    orphans = ["part/long/0123456789abcdef", "part/never/0123456789abcdef"]
    orphans += [f"agent/{'0' * 32}/long~0123456789abcdef", f"agent/{'0' * 32}/no~0123456789abcdef"]
    for key in orphans:
        client.put(f"{s3_prefix}/{key}", b"left by a writer that died")
    assert await s3_store.sweep() == []  # they may be a writer's that is at work
    swept = await s3_store.sweep(older_than=NOW)
    assert sorted(swept) == sorted([*orphans, "session/gone"])
    assert set(keys()) == useful
    assert await s3_store.load("long") == long
    assert [each.session_id for each in await s3_store.list_for_agent("agent-2")] == ["moved"]


@pytest.mark.parametrize("folder", ["session", "part", "agent", "lease"])
async def test_a_store_whose_prefix_is_a_folder_of_anothers_is_left_alone(
    s3_server: S3Server, s3_prefix: str, folder: str
) -> None:
    ids = ["s-1", "s-2", "0123456789abcdef", "clock", "probe"]
    below = f"{s3_prefix}/{folder}"
    async with (
        open_url(s3_server.url(BUCKET, s3_prefix)) as outer,
        open_url(s3_server.url(BUCKET, below)) as inner,
        outer.lease("clock"),
        inner.lease("0123456789abcdef"),
    ):
        for store in (outer, inner):
            for session_id in ids:
                await store.save(a_session(session_id, loops=20, text="x" * 2_000))
        await inner.delete("s-2")
        client = s3_client(s3_server)
        before = {each["path"] for each in client.list(below).collect()}
        assert await outer.sweep(older_than=-timedelta(minutes=1)) == []
        assert before <= {each["path"] for each in client.list(below).collect()}
        assert await inner.sweep(older_than=-timedelta(minutes=1)) == ["session/s-2"]
        for store, has in ((outer, ids), (inner, sorted({*ids} - {"s-2"}))):
            assert sorted(await store.list_ids()) == sorted(has)
            found = await store.list_for_agent("agent-1")
            assert sorted(session.session_id for session in found) == sorted(has)


async def test_what_a_damaged_session_may_need_is_not_swept(
    s3_store: ObjectSessionStore, s3_server: S3Server, s3_prefix: str, keys: Callable[[], list[str]]
) -> None:
    await s3_store.save(a_session(loops=50, text="x" * 2_000))
    s3_client(s3_server).put(f"{s3_prefix}/session/s-1", b"damaged")
    before = keys()
    assert await s3_store.sweep(older_than=NOW) == []
    assert keys() == before


async def test_sweeping_is_no_hindrance_to_others(
    s3_store: ObjectSessionStore, s3_url: str
) -> None:
    done = False

    async def sweep() -> None:
        async with open_url(s3_url) as store:
            while not done:
                await store.sweep()

    async def sweep_tombstones() -> None:
        # Parts are not young enough to be left alone with no time at all; tombstones may go.
        async with open_url(s3_url) as store:
            while not done:
                for each in await store._bucket.list_all("session/"):
                    await _remove(store._bucket, each.key)

    async def live(name: str) -> None:
        for n in range(scaled(12)):
            session = a_session(name, loops=n)
            await s3_store.save(session, expect=Expect.ABSENT)
            assert await s3_store.load(name) == session
            await s3_store.append(name, a_loop(name, 99, text="x" * 2 * INLINE))
            assert len((await s3_store.load(name)).loops) == n + 1
            await s3_store.delete(name)

    sweepers = [asyncio.create_task(each()) for each in (sweep, sweep_tombstones)]
    await asyncio.gather(*(live(f"s-{n}") for n in range(4)))
    done = True
    await asyncio.gather(*sweepers)
    assert await s3_store.list_ids() == []


async def _remove(bucket: Bucket, key: str) -> None:
    from phi_sessions.stores.object import sweeping

    await sweeping._remove_tombstone(bucket, key, await bucket.now())


async def test_a_tombstone_that_is_about_to_go_is_waited_for(
    s3_store: ObjectSessionStore, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await s3_store.save(a_session())
    await s3_store.delete("s-1")
    held, go_on = asyncio.Event(), asyncio.Event()
    delete_once = Bucket.delete_once

    async def slowly(bucket: Bucket, key: str) -> bool:
        held.set()
        await go_on.wait()
        return await delete_once(bucket, key)

    monkeypatch.setattr(Bucket, "delete_once", slowly)
    sweeping = asyncio.create_task(s3_store.sweep(older_than=NOW))
    await held.wait()
    assert await s3_store.find("s-1") is None
    async with open_url(s3_url, lock_timeout=0.3) as hasty:
        with pytest.raises(SessionLockedError):
            await hasty.save(a_session())
    saving = asyncio.create_task(s3_store.save(a_session(metadata={"new": True})))
    await asyncio.sleep(0.1)
    assert not saving.done()
    go_on.set()
    assert await sweeping == ["session/s-1"]
    await saving
    assert (await s3_store.load("s-1")).metadata == {"new": True}


async def test_a_tombstone_that_may_not_be_removed_stays_one(
    s3_store: ObjectSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await s3_store.save(a_session())
    await s3_store.delete("s-1")

    async def turned_down(bucket: Bucket, key: str) -> bool:
        return False

    monkeypatch.setattr(Bucket, "delete_once", turned_down)
    assert await s3_store.sweep(older_than=NOW) == []
    await s3_store.save(a_session())
    assert await s3_store.list_ids() == ["s-1"]


async def test_a_client_that_sends_again_by_itself_removes_no_tombstones(
    s3_server: S3Server, s3_prefix: str
) -> None:
    async with ObjectSessionStore(s3_client(s3_server), prefix=s3_prefix) as store:
        await store.save(a_session())
        await store.delete("s-1")
        assert await store.sweep(older_than=NOW) == []
    client = s3_client(s3_server, retry_config={"max_retries": 0})
    async with ObjectSessionStore(client, prefix=s3_prefix) as store:
        assert await store.sweep(older_than=NOW) == ["session/s-1"]


async def test_a_writer_that_was_stopped_for_too_long_names_no_parts(
    s3_store: ObjectSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = a_session()
    await s3_store.save(session)
    put, now, slept = Bucket.put, time.time, 0.0

    async def and_sleep(bucket: Bucket, key: str, data: bytes) -> None:
        nonlocal slept
        await put(bucket, key, data)
        slept = 2_000.0

    monkeypatch.setattr(Bucket, "put", and_sleep)
    monkeypatch.setattr(time, "time", lambda: now() + slept)
    with pytest.raises(SessionIOError, match="stopped for too long") as caught:
        await s3_store.append("s-1", a_loop("s-1", 1, text="x" * 2 * INLINE))
    assert not isinstance(caught.value, SaveOutcomeUnknownError)
    monkeypatch.undo()
    assert len(await s3_store.sweep(older_than=NOW)) == 1
    assert await s3_store.load("s-1") == session
