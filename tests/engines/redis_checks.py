"""What the Redis tests look at from outside: keys, indexes, and where a call stands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio

from benchmarks.servers.redis import RedisServer
from phi_sessions import LoopRecord, Session
from phi_sessions.ids import id_from_name
from phi_sessions.stores.redis.layout import Bucket, Layout


def a_record(session_id: str, n: int, *, text: str = "", agent_id: str = "a") -> LoopRecord:
    """Return a loop record that says `n`."""
    metadata = {"n": n, "text": text}
    return LoopRecord(f"{session_id}.{n}", session_id, agent_id, metadata=metadata)


def a_session(
    session_id: str = "s-1", agent_id: str = "a", *, n: int = 0, size: int = 1
) -> Session:
    """Return a session built by hand, of `size` loops, whose every part says `n`."""
    loops = [
        LoopRecord(f"{session_id}.{k}", session_id, agent_id, metadata={"n": n})
        for k in range(size)
    ]
    return Session(session_id, agent_id, metadata={"n": n}, loops=loops)


def number(session: Session) -> int:
    """Return the `n` of a session after making sure that it is all of one piece."""
    n = session.metadata["n"]
    assert all(record.metadata["n"] == n for record in session.loops)
    return int(n)


def add_one(session: Session) -> None:
    """Count in the metadata."""
    session.metadata["count"] = session.metadata.get("count", 0) + 1


@asynccontextmanager
async def plain_client(server: RedisServer, **options: Any) -> AsyncIterator[Any]:
    """Open a client of the driver's own."""
    client = redis.asyncio.Redis(port=server.port, protocol=2, **options)
    try:
        yield client
    finally:
        await client.aclose()


async def ids_of_a_sound_server(server: RedisServer, prefix: str = "phi") -> list[str]:
    """Return the ids of all sessions after making sure that the indexes name them and no others."""
    found: list[str] = []
    async with plain_client(server) as client:
        for bucket in Layout(prefix).buckets:
            for name in await _names_of_a_sound_bucket(client, bucket):
                session_id = id_from_name(name.decode())
                assert session_id is not None
                found.append(session_id)
    return sorted(found)


async def _names_of_a_sound_bucket(client: Any, bucket: Bucket) -> list[bytes]:
    times = dict(await client.zrange(bucket.times, 0, -1, withscores=True))
    entries = {}
    for name, score in times.items():
        fields = await client.hgetall(bucket.tag + b":s:" + name)
        texts = await client.lrange(bucket.tag + b":r:" + name, 0, -1)
        assert int(fields[b"saved"]) == score
        assert int(fields[b"count"]) == len(texts)
        assert int(fields[b"size"]) == len(fields[b"head"]) + sum(map(len, texts))
        for field, value in fields.items():
            if field.startswith(b"l:"):
                position, length = map(int, value.split())
                assert len(texts[position]) == length
        entries[fields[b"agent"] + fields[b"saved"] + name] = name
    assert await client.zrange(bucket.agents, 0, -1) == sorted(entries)
    assert set(await client.zrange(bucket.expiry, 0, -1)) <= set(entries)
    keys = {key async for key in client.scan_iter(match=bucket.tag + b":[sr]:*", count=1000)}
    assert {key for key in keys if b"}:s:" in key[:40]} == {bucket.tag + b":s:" + n for n in times}
    assert {key for key in keys if b"}:r:" in key[:40]} <= {bucket.tag + b":r:" + n for n in times}
    return list(times)


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.005)
