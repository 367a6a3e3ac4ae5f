"""Damage: told, left as it is, and no hindrance to others."""

from __future__ import annotations

from datetime import timedelta

import pytest
from redis_checks import (
    a_record,
    a_session,
    ids_of_a_sound_server,
    number,
    plain_client,
)

from benchmarks.servers.redis import RedisServer
from phi_sessions import (
    Expect,
    Revision,
    SessionConflictError,
    SessionCorruptError,
    SessionExistsError,
    SessionNotFoundError,
)
from phi_sessions.stores.redis import RedisSessionStore


@pytest.mark.parametrize(
    "damage",
    ["head", "half a head", "another's head", "record", "no record", "no list", "field", "type"],
)
async def test_damage_is_told_and_left(
    redis_server: RedisServer, redis_store: RedisSessionStore, damage: str
) -> None:
    await redis_store.save(a_session("s-1", size=3))
    await redis_store.save(a_session("s-2"))
    place = redis_store._layout.place("s-1")
    async with plain_client(redis_server) as client:
        match damage:
            case "head":
                await client.hset(place.session, "head", b"{\xff}")
            case "half a head":
                head = await client.hget(place.session, "head")
                await client.hset(place.session, "head", head[: len(head) // 2])
            case "another's head":
                other = redis_store._layout.place("s-2").session
                await client.hset(place.session, "head", await client.hget(other, "head"))
            case "record":
                await client.lset(place.records, 1, b'{"loop_id": 7}')
            case "no record":
                await client.rpop(place.records)
            case "no list":
                await client.delete(place.records)
            case "field":
                await client.hdel(place.session, "saved")
            case _:
                await client.delete(place.records)
                await client.set(place.records, "x")
        with pytest.raises(SessionCorruptError) as caught:
            await redis_store.load("s-1")
        assert caught.value.session_id == "s-1"
        assert caught.value.path == place.session.decode()
        assert caught.value.reason
        with pytest.raises(SessionCorruptError):
            await redis_store.list_for_agent("a")
        found = await redis_store.list_for_agent("a", on_error="skip")
        assert [session.session_id for session in found] == ["s-2"]
        if "head" in damage or damage == "field":
            with pytest.raises(SessionCorruptError):
                assert [info async for info in redis_store.infos()]
            infos = [info async for info in redis_store.infos(on_error="skip", limit=1)]
            assert [info.session_id for info in infos] == ["s-2"]
        assert await redis_store.exists("s-1")
        await redis_store.save(a_session("s-1", n=5), expect=Expect.ANYTHING)
        assert number(await redis_store.load("s-1")) == 5


@pytest.mark.parametrize("damage", ["no time", "no agent", "no fields", "type", "lost"])
@pytest.mark.parametrize("ttl", [None, 60])
async def test_what_replaces_a_damaged_or_lost_session_is_listed_once(
    redis_server: RedisServer, damage: str, ttl: float | None
) -> None:
    async with (
        RedisSessionStore(redis_server.url, ttl=ttl) as store,
        plain_client(redis_server) as client,
    ):
        await store.save(a_session("s-1"))
        await store.save(a_session("s-2"))
        place = store._layout.place("s-1")
        match damage:
            case "no time":
                await client.hdel(place.session, "saved")
            case "no agent":
                await client.hdel(place.session, "agent")
            case "no fields":
                await client.hdel(place.session, "rev", "agent", "saved", "head")
            case "type":
                await client.set(place.session, "x")
            case _:
                await client.delete(place.session, place.records)
        await store.save(a_session("s-1", n=5), expect=Expect.ANYTHING)
        found = await store.list_for_agent("a")
        assert [session.session_id for session in found] == ["s-1", "s-2"]
        infos = [info async for info in store.infos(agent_id="a")]
        assert [info.session_id for info in infos] == ["s-1", "s-2"]
        assert await store.list_ids() == ["s-1", "s-2"]
        assert await ids_of_a_sound_server(redis_server) == ["s-1", "s-2"]


@pytest.mark.parametrize("damage", ["no record", "no list", "one more", "type", "field", "head"])
async def test_what_lacks_a_part_is_neither_deleted_nor_replaced_unasked(
    redis_server: RedisServer, redis_store: RedisSessionStore, damage: str
) -> None:
    await redis_store.save(a_session(size=3))
    held, shorter = await redis_store.load("s-1"), await redis_store.load("s-1")
    shorter.loops = shorter.loops[1:]
    assert held.revision is not None
    place = redis_store._layout.place("s-1")
    async with plain_client(redis_server) as client:
        match damage:
            case "no record":
                await client.rpop(place.records)
            case "no list":
                await client.delete(place.records)
            case "one more":
                await client.rpush(place.records, b"{}")
            case "type":
                await client.set(place.records, "x")
            case field:
                await client.hdel(place.session, "saved" if field == "field" else field)
        before = [await client.dump(key) for key in (place.session, place.records)]
        for call in (
            redis_store.delete("s-1"),
            redis_store.delete("s-1", expect=Expect.UNCHANGED),
            redis_store.delete("s-1", expect=held.revision),
            redis_store.save(a_session(n=2)),
            redis_store.save(shorter),
            redis_store.save(held),
            redis_store.append("s-1", a_record("s-1", 9)),
            redis_store.prune(older_than=timedelta(seconds=-60)),
        ):
            with pytest.raises(SessionCorruptError) as caught:
                await call
            assert caught.value.session_id == "s-1"
            assert [await client.dump(key) for key in (place.session, place.records)] == before
    with pytest.raises(SessionConflictError):
        await redis_store.delete("s-1", expect=Revision("another"))
    with pytest.raises(SessionExistsError):
        await redis_store.save(a_session(n=2), expect=Expect.ABSENT)
    held.metadata["n"] = 0  # nothing of it changed, and all of it is written
    await redis_store.save(held, expect=Expect.ANYTHING)
    assert len((await redis_store.load("s-1")).loops) == 3
    await redis_store.delete("s-1")
    assert await redis_store.list_ids() == []


async def test_an_append_to_what_lacks_loops_is_refused(
    redis_server: RedisServer, redis_store: RedisSessionStore
) -> None:
    await redis_store.save(a_session("s-1", size=3))
    place = redis_store._layout.place("s-1")
    async with plain_client(redis_server) as client:
        await client.rpop(place.records)
        before = await client.hgetall(place.session)
        with pytest.raises(SessionCorruptError):
            await redis_store.append("s-1", a_record("s-1", 9))
        assert await client.hgetall(place.session) == before


async def test_a_key_of_somebody_else_is_damage(
    redis_server: RedisServer, redis_store: RedisSessionStore
) -> None:
    await redis_store.save(a_session())
    place = redis_store._layout.place("s-1")
    async with plain_client(redis_server) as client:
        await client.set(place.session, "not ours")
        for call in (
            redis_store.load("s-1"),
            redis_store.list_for_agent("a"),
            redis_store.save(a_session(n=2)),
            redis_store.append("s-1", a_record("s-1", 9)),
            redis_store.update("s-1", lambda session: None),
            redis_store.delete("s-1"),
        ):
            with pytest.raises(SessionCorruptError) as caught:
                await call
            assert caught.value.path == place.session.decode()
            assert caught.value.session_id == "s-1"
            assert await client.get(place.session) == b"not ours"
        assert await redis_store.exists("s-1")
        assert await redis_store.list_for_agent("a", on_error="skip") == []
        await redis_store.save(a_session(n=7), expect=Expect.ANYTHING)
        assert number(await redis_store.load("s-1")) == 7
        await redis_store.delete("s-1")
        with pytest.raises(SessionNotFoundError):
            await redis_store.load("s-1")
