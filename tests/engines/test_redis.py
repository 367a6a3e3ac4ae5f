"""What the Redis store keeps, where, and what that costs."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import scaled
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
    FileSystemSessionStore,
    LoopRecord,
    Session,
)
from phi_sessions.opening import open_store
from phi_sessions.stores.redis import RedisSessionStore, open_url

DATA = sorted(
    path
    for path in (Path(__file__).parents[1] / "data").glob("*.json")
    if path.stem != "first-loop"
)
NASTY = [
    "'; DROP TABLE sessions; --",
    "{phi:1}:times",
    "}{",
    "{}",
    "}:s:",
    "*",
    "[a-z]?*",
    "a\r\n$3\r\nSET",
    "../..",
    "\u202eevil",
    "\U0001f600",
    "a\x00b",
    " ",
    "x" * 200,
    "' .. redis.call('FLUSHALL') .. '",
    "%s%n",
    "+" + "0" * 16,
]


@pytest.mark.parametrize("path", DATA, ids=lambda path: path.stem)
async def test_every_shape_comes_back_as_it_was(
    redis_store: RedisSessionStore, path: Path, tmp_path: Path
) -> None:
    session_id = json.loads(path.read_text())["session_id"]
    (tmp_path / f"{session_id}.json").write_bytes(path.read_bytes())
    async with FileSystemSessionStore(tmp_path) as files:
        session = await files.load(session_id)
    texts = [entry.text for entry in session.loops.entries]
    session.revision = None
    await redis_store.save(session)
    loaded = await redis_store.load(session_id)
    assert [entry.text for entry in loaded.loops.entries] == texts
    loaded.revision = session.revision = None
    assert loaded == session


@pytest.mark.parametrize("nasty", NASTY)
async def test_nothing_that_is_kept_is_taken_for_a_command(
    redis_server: RedisServer, redis_store: RedisSessionStore, nasty: str
) -> None:
    await redis_store.save(a_session("other", "other", n=1))
    session = Session(nasty, nasty, metadata={nasty: nasty})
    session.loops.append(LoopRecord(nasty, nasty, nasty, metadata={nasty: nasty}))
    await redis_store.save(session)
    await redis_store.append(session, LoopRecord(nasty + "2", nasty, nasty))
    await redis_store.append(nasty, LoopRecord(nasty, nasty, nasty, metadata={"again": nasty}))
    loaded = await redis_store.load(nasty)
    assert loaded.loops.ids() == [nasty, nasty + "2"]
    assert loaded.loops[0].metadata == {"again": nasty}
    assert loaded.metadata == {nasty: nasty}
    assert await redis_store.list_ids() == [nasty, "other"]
    assert [s.session_id for s in await redis_store.list_for_agent(nasty)] == [nasty]
    assert [i.agent_id async for i in redis_store.infos(agent_id=nasty)] == [nasty]
    async with redis_store.lease(nasty, owner=nasty) as lease:
        assert lease.owner == nasty
    assert await ids_of_a_sound_server(redis_server) == sorted([nasty, "other"])
    await redis_store.delete(nasty)
    assert number(await redis_store.load("other")) == 1
    assert await redis_store.list_ids() == ["other"]


async def test_an_agent_that_can_have_no_session_has_none(redis_store: RedisSessionStore) -> None:
    await redis_store.save(a_session())
    for agent_id in ("", "\ud800", "a\x00", "*", "a*"):
        assert await redis_store.list_for_agent(agent_id) == []
        assert [info async for info in redis_store.infos(agent_id=agent_id)] == []


async def test_a_session_of_many_megabytes(redis_store: RedisSessionStore) -> None:
    session = a_session(n=1)
    text = "größer " * 60_000
    session.loops.extend(a_record("s-1", 100 + n, text=text) for n in range(20))
    await redis_store.save(session)
    await redis_store.append(session, a_record("s-1", 500, text=text))
    loaded = await redis_store.load("s-1")
    assert loaded.loops == session.loops
    infos = [info async for info in redis_store.infos()]
    assert infos[0].size is not None
    assert infos[0].size > 8_000_000


async def test_a_session_of_many_loops(redis_store: RedisSessionStore) -> None:
    session = a_session(n=1, size=scaled(3000))
    await redis_store.save(session)
    changed = a_record("s-1", 17)
    await redis_store.append("s-1", changed, a_record("s-1", 1_000_000))
    loaded = await redis_store.load("s-1")
    assert len(loaded.loops) == scaled(3000) + 1
    assert loaded.loops[17] == changed
    assert loaded.loops.ids()[-1] == "s-1.1000000"


async def test_two_records_with_one_loop_id_stay_two(
    redis_server: RedisServer, redis_store: RedisSessionStore
) -> None:
    twins = [LoopRecord("l", "s-1", "a", metadata={"n": n}) for n in range(3)]
    await redis_store.save(Session("s-1", "a", loops=twins))
    assert (await redis_store.load("s-1")).loops == twins
    await redis_store.append("s-1", LoopRecord("l", "s-1", "a", metadata={"n": 9}))
    loaded = await redis_store.load("s-1")
    assert [record.metadata["n"] for record in loaded.loops] == [0, 1, 9]
    loaded.metadata["x"] = 1
    await redis_store.save(loaded)
    assert [r.metadata["n"] for r in (await redis_store.load("s-1")).loops] == [0, 1, 9]


@asynccontextmanager
async def received(server: RedisServer) -> AsyncIterator[dict[str, int]]:
    """Tell how many bytes and commands the server took meanwhile."""
    async with plain_client(server) as client:
        before = await client.info("stats")
        told: dict[str, int] = {}
        yield told
        after = await client.info("stats")
        for name in ("total_net_input_bytes", "total_commands_processed"):
            told[name] = after[name] - before[name]


async def test_each_change_is_one_round_trip_that_carries_what_changed(
    redis_server: RedisServer, redis_store: RedisSessionStore
) -> None:
    session = a_session(n=1)
    session.loops.extend(a_record("s-1", 100 + n, text="x" * 1000) for n in range(200))
    await redis_store.save(session)
    await redis_store.append("s-1", a_record("s-1", 400))
    async with received(redis_server) as nothing:
        pass

    async def costs(call: Any) -> tuple[int, int]:
        async with received(redis_server) as told:
            await call
        commands = told["total_commands_processed"] - nothing["total_commands_processed"]
        return commands, told["total_net_input_bytes"] - nothing["total_net_input_bytes"]

    commands, size = await costs(redis_store.append("s-1", a_record("s-1", 401, text="y" * 1000)))
    inside = 20  # the commands of a script count as well
    assert commands <= 1 + inside
    assert size < 3000
    loaded = await redis_store.load("s-1")
    loaded.loops[50].metadata["text"] = "changed"
    commands, size = await costs(redis_store.save(loaded))
    assert commands <= 1 + inside
    assert size < 2000
    loaded.metadata["title"] = "changed"
    _, size = await costs(redis_store.save(loaded))
    assert size < 2000
    del loaded.loops[0]
    _, size = await costs(redis_store.save(loaded))
    assert size > 200_000
    reloaded = await redis_store.load("s-1")
    assert reloaded.loops == loaded.loops
    commands, _ = await costs(redis_store.delete("s-1"))
    assert commands <= 1 + inside


async def test_the_servers_clock_orders_the_sessions(
    redis_server: RedisServer, redis_store: RedisSessionStore
) -> None:
    ids = [f"s-{n}" for n in range(40)]
    before = time.time()
    for session_id in ids:
        await redis_store.save(a_session(session_id))
    await redis_store.append("s-3", a_record("s-3", 7))
    ids.remove("s-3")
    expected = ["s-3", *reversed(ids)]
    assert await redis_store.list_ids() == expected
    infos = [info async for info in redis_store.infos()]
    assert [info.session_id for info in infos] == expected
    stamps = [info.saved_at for info in infos]
    assert stamps == sorted(stamps, reverse=True)
    assert len(set(stamps)) == len(stamps)
    assert all(before - 1 < s.timestamp() < time.time() + 1 for s in stamps if s is not None)
    for limit in (1, 5, 39, 40, 100):
        first = [info.session_id async for info in redis_store.infos(limit=limit)]
        assert first == expected[:limit]


async def test_saves_that_meet_in_one_bucket_are_in_strict_order(
    redis_server: RedisServer, redis_store: RedisSessionStore
) -> None:
    # A clock that was put back: what was saved last is nevertheless first.
    layout = redis_store._layout
    bucket = layout.place("s-1").bucket
    mates = [f"s-{n}" for n in range(2000) if layout.place(f"s-{n}").bucket == bucket][:5]
    ahead = (int(time.time()) + 3600) * 1_000_000
    async with plain_client(redis_server) as client:
        await client.zadd(bucket.times, {"of-the-future": ahead})
        for session_id in mates:
            await redis_store.save(a_session(session_id))
        await client.zrem(bucket.times, "of-the-future")
    assert await redis_store.list_ids() == mates[::-1]
    await ids_of_a_sound_server(redis_server)


async def test_a_session_that_changes_its_agent_is_listed_for_the_new_one(
    redis_server: RedisServer, redis_store: RedisSessionStore
) -> None:
    session = a_session("s-1", "first")
    await redis_store.save(session)
    session.agent_id = "second"
    await redis_store.save(session)
    assert await redis_store.list_for_agent("first") == []
    assert len(await redis_store.list_for_agent("second")) == 1
    await redis_store.save(a_session("s-1", "third"), expect=Expect.ANYTHING)
    assert await redis_store.list_for_agent("second") == []
    assert [i.session_id async for i in redis_store.infos(agent_id="third")] == ["s-1"]
    assert await ids_of_a_sound_server(redis_server) == ["s-1"]


async def test_stores_with_different_prefixes_share_nothing(redis_server: RedisServer) -> None:
    prefixes = ["phi", "phi:1", "", "größe *?[", "x" * 300]
    stores = [RedisSessionStore(redis_server.url, prefix=prefix) for prefix in prefixes]
    for n, store in enumerate(stores):
        await store.save(a_session("s-1", n=n))
        async with store.lease("s-1"), stores[n - 1].lease("s-1"):
            pass
    for n, store in enumerate(stores):
        assert await store.list_ids() == ["s-1"]
        assert number(await store.load("s-1")) == n
        await store.delete("s-1")
        assert await store.list_for_agent("a") == []
        await store.aclose()


async def test_scripts_that_the_server_forgot_are_sent_again(
    redis_server: RedisServer, redis_store: RedisSessionStore
) -> None:
    await redis_store.save(a_session())
    async with plain_client(redis_server) as client:
        for call in (
            lambda: redis_store.save(a_session()),
            lambda: redis_store.append("s-1", a_record("s-1", 1)),
            lambda: redis_store.load("s-1"),
            redis_store.list_ids,
            lambda: redis_store.delete("s-1"),
        ):
            await client.script_flush()
            await call()


async def test_a_url_opens_the_store(redis_server: RedisServer) -> None:
    for store in (open_url(redis_server.url, prefix="x"), open_store(redis_server.url, prefix="x")):
        assert isinstance(store, RedisSessionStore)
        async with store:
            await store.save(a_session())
            assert await store.list_ids() == ["s-1"]
    async with RedisSessionStore(redis_server.url.replace("/0", "/5"), prefix="x") as other:
        assert await other.list_ids() == []  # a database of its own
    with pytest.raises(TypeError):
        open_url(redis_server.url, no_such_option=1)


@pytest.mark.parametrize("password", ["se/cret", "se#cret", "1/cret", "1#cret"])
def test_a_url_that_cannot_be_read_is_not_quoted(password: str) -> None:
    with pytest.raises(ValueError, match="percent-encoded") as caught:
        RedisSessionStore(f"redis://me:{password}@127.0.0.1:6379/0")
    assert "se" not in str(caught.value).split()
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
