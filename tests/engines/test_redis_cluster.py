"""A real cluster of three primaries: each change touches one slot, listings ask all."""

from __future__ import annotations

import asyncio
import errno
import gc
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import redis.asyncio
from redis.crc import key_slot
from redis_checks import a_record, a_session, add_one, eventually, number

from benchmarks.servers.redis import RedisCluster, RedisServer
from phi_sessions import (
    Expect,
    SessionConflictError,
    SessionIOError,
    SessionLockedError,
    SessionNotFoundError,
)
from phi_sessions.stores.redis import RedisSessionStore
from phi_sessions.stores.redis.layout import BUCKETS, Layout

NASTY = ["}{", "{x}", "{}", "a}b", "{phi:1}", "*", "x" * 200, "\U0001f600"]

_ELSEWHERE = ("TRYAGAIN", "ASK", "MOVED")


@pytest.fixture(autouse=True)
def no_nodes_left() -> Iterator[None]:
    """Clear away what a cluster's client of redis-py drops open when it looks for nodes anew."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        warnings.filterwarnings("error", "unclosed RedisSessionStore", ResourceWarning)
        gc.collect()


@pytest.fixture
async def cluster_store(redis_cluster: RedisCluster) -> AsyncIterator[RedisSessionStore]:
    port = redis_cluster.nodes[0].port

    def make() -> redis.asyncio.RedisCluster:
        return redis.asyncio.RedisCluster(host="127.0.0.1", port=port)

    async with RedisSessionStore(make) as store:
        yield store


@pytest.mark.parametrize("prefix", ["phi", "", "größe:1"])
def test_the_keys_of_a_session_and_of_its_indexes_are_in_one_slot(prefix: str) -> None:
    layout = Layout(prefix)
    slots: set[int] = set()
    for session_id in (*NASTY, *(f"s-{n}" for n in range(300))):
        place = layout.place(session_id)
        keys = (place.session, place.records, place.gone, place.lease, *place.bucket[1:])
        assert len({key_slot(key) for key in keys}) == 1
        slots.add(key_slot(keys[0]))
    assert len(slots) > BUCKETS / 2
    for nodes in (3, 6):  # which share the slots evenly
        shares = [0] * nodes
        for bucket in layout.buckets:
            shares[key_slot(bucket.times) * nodes // 16384] += 1
        assert min(shares) > BUCKETS / nodes / 2


async def test_all_that_a_store_does_it_does_on_a_cluster(
    redis_cluster: RedisCluster, cluster_store: RedisSessionStore
) -> None:
    ids = [*NASTY, *(f"s-{n}" for n in range(150))]
    await asyncio.gather(*(cluster_store.save(a_session(i, f"agent {i[0]}")) for i in ids))
    assert sorted(await cluster_store.list_ids()) == sorted(ids)
    for node in redis_cluster.nodes:
        with node.client() as client:
            assert client.dbsize() > 50
    for session_id in ids[:20]:
        session = await cluster_store.load(session_id)
        await cluster_store.append(session, a_record(session_id, 5))
        session.metadata["n"] = 7
        await cluster_store.save(session)
        loaded = await cluster_store.load(session_id)
        assert loaded.metadata["n"] == 7
        assert loaded.loops == session.loops
    newest = [info.session_id async for info in cluster_store.infos(limit=20)]
    assert newest == ids[:20][::-1]
    assert len([info async for info in cluster_store.infos()]) == len(ids)
    assert len(await cluster_store.list_for_agent("agent s")) == 150
    assert [info.session_id async for info in cluster_store.infos(agent_id="agent *")] == ["*"]
    async with cluster_store.lease("{x}", owner="me"):
        with pytest.raises(SessionLockedError) as caught:
            async with cluster_store.lease("{x}"):
                pass
        assert caught.value.holder.owner == "me"
    stale = await cluster_store.load("}{")
    await cluster_store.save(a_session("}{"), expect=Expect.ANYTHING)
    with pytest.raises(SessionConflictError):
        await cluster_store.save(stale)
    for session_id in ids:
        await cluster_store.delete(session_id)
    assert await cluster_store.list_ids() == []
    with pytest.raises(SessionNotFoundError):
        await cluster_store.load("}{")


async def test_no_update_of_many_tasks_is_lost(cluster_store: RedisSessionStore) -> None:
    await cluster_store.save(a_session())

    async def count() -> None:
        for _ in range(5):
            await cluster_store.update("s-1", add_one, attempts=1000)

    await asyncio.gather(*(count() for _ in range(20)))
    assert (await cluster_store.load("s-1")).metadata["count"] == 100


async def test_slots_that_move_take_their_sessions_along(
    redis_cluster: RedisCluster, cluster_store: RedisSessionStore
) -> None:
    sessions = [a_session(f"s-{n}", n=n) for n in range(30)]
    for session in sessions:
        await cluster_store.save(session)
    place = cluster_store._layout.place("s-1")
    slot = key_slot(place.session)
    owner = slot * 3 // 16384
    source, target = redis_cluster.nodes[owner], redis_cluster.nodes[owner - 1]
    stop = asyncio.Event()
    saved = 0

    async def keep_saving() -> None:
        nonlocal saved
        while not stop.is_set():
            await cluster_store.save(sessions[1])
            saved += 1
            assert number(await cluster_store.load("s-1")) == 1

    saving = asyncio.create_task(keep_saving())
    try:
        await asyncio.to_thread(_move, slot, source, target, redis_cluster.nodes)
        mark = saved

        async def goes_on() -> bool:
            return saved > mark + 3 or saving.done()

        await eventually(goes_on)
    finally:
        stop.set()
        await saving
        await asyncio.to_thread(_move, slot, target, source, redis_cluster.nodes)
    assert len(await cluster_store.list_ids()) == 30
    assert len(await cluster_store.list_for_agent("a")) == 30


@pytest.mark.parametrize("call", ["save", "append", "delete", "list"])
async def test_a_slot_that_takes_long_to_move_is_waited_for(
    redis_cluster: RedisCluster, cluster_store: RedisSessionStore, call: str
) -> None:
    await cluster_store.save(a_session("s-1"))
    slot = key_slot(cluster_store._layout.place("s-1").session)
    owner = slot * 3 // 16384
    source, target = redis_cluster.nodes[owner], redis_cluster.nodes[owner - 1]

    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "save": lambda: cluster_store.save(a_session("s-1", n=1)),
        "append": lambda: cluster_store.append("s-1", a_record("s-1", 0)),
        "delete": lambda: cluster_store.delete("s-1"),
        "list": lambda: cluster_store.list_for_agent("a"),
    }
    _begin_to_move(slot, source, target)
    under_way = asyncio.create_task(calls[call]())

    async def is_refused_again_and_again() -> bool:
        await asyncio.sleep(0.1)  # each look asks all nodes
        return under_way.done() or _refusals(redis_cluster.nodes) > 40  # a client gives up at 16

    try:
        await eventually(is_refused_again_and_again)
        assert not under_way.done()
    finally:
        await asyncio.to_thread(_move, slot, source, target, redis_cluster.nodes)
        try:
            await under_way
        finally:
            await asyncio.to_thread(_move, slot, target, source, redis_cluster.nodes)
    assert await cluster_store.list_ids() == ["s-1"][: call != "delete"]


async def test_a_slot_that_does_not_arrive_is_told(redis_cluster: RedisCluster) -> None:
    client = redis.asyncio.RedisCluster(host="127.0.0.1", port=redis_cluster.nodes[0].port)
    async with RedisSessionStore(client, timeout=6) as store:
        revision = await store.save(a_session("s-1"))
        slot = key_slot(store._layout.place("s-1").session)
        owner = slot * 3 // 16384
        source, target = redis_cluster.nodes[owner], redis_cluster.nodes[owner - 1]
        _begin_to_move(slot, source, target)
        try:
            with pytest.raises(SessionIOError) as caught:
                await store.append("s-1", a_record("s-1", 7))
            assert caught.value.errno == errno.EAGAIN
            assert type(caught.value) is SessionIOError
        finally:
            await asyncio.to_thread(_move, slot, source, target, redis_cluster.nodes)
        assert (await store.load("s-1")).revision == revision
        await asyncio.to_thread(_move, slot, target, source, redis_cluster.nodes)
    await client.aclose()


def _refusals(nodes: list[RedisServer]) -> int:
    """Return how often commands were refused as their keys are elsewhere, or not all there."""
    found = 0
    for node in nodes:
        with node.client() as client:
            told = client.info("errorstats")
        found += sum(told.get(f"errorstat_{kind}", {"count": 0})["count"] for kind in _ELSEWHERE)
    return found


def _begin_to_move(slot: int, source: RedisServer, target: RedisServer) -> None:
    with source.client() as giver, target.client() as taker:
        for client in (giver, taker):
            client.config_resetstat()
        giver_id = giver.execute_command("CLUSTER MYID").decode()
        taker_id = taker.execute_command("CLUSTER MYID").decode()
        taker.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", giver_id)
        giver.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", taker_id)


def _move(slot: int, source: RedisServer, target: RedisServer, nodes: list[RedisServer]) -> None:
    """Move one slot as an operator does, a key at a time."""
    _begin_to_move(slot, source, target)
    with source.client() as giver, target.client() as taker:
        taker_id = taker.execute_command("CLUSTER MYID").decode()
        while keys := giver.execute_command("CLUSTER GETKEYSINSLOT", slot, 100):
            giver.execute_command(
                "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "REPLACE", "KEYS", *keys
            )
        for node in (target, source, *nodes):
            with node.client() as client:
                client.execute_command("CLUSTER SETSLOT", slot, "NODE", taker_id)


async def test_a_cluster_behind_a_client_for_one_server(redis_program: str) -> None:
    # As some services offer it: one address, all slots, and scripts that may touch one slot only.
    with RedisServer(redis_program, settings={"cluster-enabled": "yes"}) as server:
        with server.client() as client:
            client.execute_command("CLUSTER ADDSLOTS", *range(16384))

            async def is_ready() -> bool:
                return client.execute_command("CLUSTER INFO")["cluster_state"] == "ok"

            await eventually(is_ready)
        async with RedisSessionStore(server.url) as store:
            ids = [f"s-{n}" for n in range(40)]
            for session_id in ids:
                await store.save(a_session(session_id))
            assert await store.list_ids() == ids[::-1]
            assert len(await store.list_for_agent("a")) == 40
            assert len([info async for info in store.infos(limit=7)]) == 7


async def test_a_cluster_that_lost_a_node_says_so(redis_program: str) -> None:
    with RedisCluster(redis_program) as cluster:
        port = cluster.nodes[0].port
        client = redis.asyncio.RedisCluster(host="127.0.0.1", port=port)
        async with RedisSessionStore(client, timeout=0.5) as store:
            ids = [f"s-{n}" for n in range(20)]
            for session_id in ids:
                await store.save(a_session(session_id))
            cluster.nodes[2].kill()
            lost = [i for i in ids if key_slot(store._layout.place(i).session) * 3 // 16384 == 2]
            with pytest.raises(SessionIOError) as caught:
                await store.load(lost[0])
            assert caught.value.session_id == lost[0]
            with pytest.raises(SessionIOError):
                await store.append(lost[0], a_record(lost[0], 1))
            with pytest.raises(SessionIOError):
                await store.list_ids()
            cluster.nodes[2].start()

            async def is_back() -> bool:
                try:
                    return len(await store.list_ids()) == 20
                except SessionIOError:
                    return False

            await eventually(is_back, 30)
            for session_id in ids:
                await store.append(session_id, a_record(session_id, 1))
        await client.aclose()


def test_durable_is_not_for_clusters() -> None:
    client = redis.asyncio.RedisCluster(host="127.0.0.1", port=1)
    with pytest.raises(ValueError, match="cluster"):
        RedisSessionStore(client, durable=True)


async def test_durable_with_a_function_that_makes_a_clusters_client_is_refused(
    redis_cluster: RedisCluster,
) -> None:
    port = redis_cluster.nodes[0].port
    async with RedisSessionStore(
        lambda: redis.asyncio.RedisCluster(host="127.0.0.1", port=port), durable=True
    ) as store:
        with pytest.raises(SessionIOError, match="not a cluster"):
            await store.save(a_session())
        assert await store.list_ids() == []
