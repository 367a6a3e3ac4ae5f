"""Redis: the store against redis-py, which has the same scripts run with ready arguments.

- The server is one of its own, on loopback, and writes each change to its disk before it answers
  (`appendonly yes`, `appendfsync always`); its data is in the system's temporary directory. The
  bare driver is a client with its default settings, and passes over what it gets.
- Append: one record of about 2 KB to sessions of 10 and of 10,000 turns. The store gets an object
  that it has to encode and check.
- Save of 20 KB: of a session that was loaded and whose last record and metadata were changed, of
  which the store sends only these; and of a new one, all of it. The latter is also held against
  the driver plus the encoding that the store cannot do without.
- Listings: 10,000 sessions of 2 KB of 1,000 agents with 10 each, one with 100 besides.
- 64 tasks append to 64 sessions at once, against a pool of redis-py's with as many connections.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from random import Random
from typing import Any

from phi_sessions import LoopRecord, Session
from phi_sessions.codec import StoredRecord, encode_head, encode_loops, encode_records

from .data import agent_of, make_session, make_turn
from .measure import Contestant, alternate
from .report import Figure, compare, rate

__all__ = ["measure"]

_ROUNDS = 400
_TURNS = 10_000
_SESSIONS = 10_000
_FEW, _MANY = 10, 100
_CONNECTIONS = 16


async def measure(directory: str, *, quick: bool) -> tuple[list[Figure], list[str]]:  # noqa: ARG001 - all take it
    import redis

    from phi_sessions.stores.redis import RedisSessionStore

    from .servers.redis import RedisServer

    with RedisServer() as server:
        bare = redis.asyncio.Redis.from_url(server.url)
        try:
            async with RedisSessionStore(server.url, max_connections=_CONNECTIONS) as store:
                version = (await bare.info("server"))["redis_version"]
                figures = await _append(store, bare, *((5, 100) if quick else (_ROUNDS, _TURNS)))
                figures += await _save(store, bare, 5 if quick else _ROUNDS)
                figures += await _tasks(store, server.url, *((4, 2) if quick else (64, 40)))
                figures += await _list(store, bare, *((200, 2) if quick else (_SESSIONS, 60)))
        finally:
            await bare.aclose()
    program = os.path.basename(server.program)
    about = f"{program} {version}, redis-py {redis.__version__}, loopback, appendfsync always"
    return figures, [about]


class _Rival:
    """The driver, told what the store would tell it."""

    def __init__(self, store: Any, client: Any) -> None:
        self._layout = store._layout
        self._client = client

    def change(self, script: Any, name: str, *args: bytes) -> Awaitable[Any]:
        """Have a script change a session, whatever is stored."""
        place = self._layout.place(name)
        keys = (place.session, place.records, place.gone, *place.bucket[1:])
        told = (place.name, os.urandom(8).hex(), "?", 0, "", *args)
        answer: Awaitable[Any] = self._run(script, keys, told)
        return answer

    async def list_for_agent(self, agent_id: str) -> list[Any]:
        """Return all that is stored of an agent's sessions, as it comes."""
        from phi_sessions.stores.redis.layout import digest_of
        from phi_sessions.stores.redis.scripts import LIST, READ

        keys = [key for bucket in self._layout.buckets for key in (bucket.agents, bucket.expiry)]
        listed = await self._run(LIST, keys, (digest_of(agent_id), -1))
        places = [self._layout.place_of_name(name) for bucket in listed for name in bucket[::2]]
        keys = [key for place in places for key in (place.session, place.records)]
        found: list[Any] = await self._run(READ, keys, (1,))
        return found

    def _run(self, script: Any, keys: Sequence[bytes], args: Sequence[Any]) -> Any:
        return self._client.evalsha(script.digest, len(keys), *keys, *args)


def _pairs(records: list[StoredRecord]) -> list[bytes]:
    return [part for record in records for part in (record.loop_id.encode(), record.text)]


async def _append(store: Any, bare: Any, rounds: int, turns: int) -> list[Figure]:
    from phi_sessions.stores.redis.scripts import PATCH

    random, numbers, rival = Random(11), count(turns), _Rival(store, bare)
    for name, loops in (("short", 9), ("bare", 9), ("long", turns), ("bare long", turns)):
        await store.save(make_session(name, loops * 1_000, records=loops))
    records: dict[str, LoopRecord] = {}
    texts: dict[str, list[bytes]] = {}

    def prepare(name: str) -> Callable[[], None]:
        def make() -> None:
            records[name] = make_turn(random, name, next(numbers))
            texts[name] = _pairs(encode_loops([records[name]], name))

        return make

    def append(name: str) -> Contestant:
        return Contestant(lambda: store.append(name, records[name]), prepare(name))

    def send(name: str) -> Contestant:
        return Contestant(lambda: rival.change(PATCH, name, b"", b"", *texts[name]), prepare(name))

    await store.append("short", make_turn(random, "short", next(numbers)))  # the server has it then
    samples = await alternate(
        {
            "short": append("short"),
            "long": append("long"),
            "bare": send("bare"),
            "bare long": send("bare long"),
        },
        rounds,
        warm_up=10,
    )
    many = f"{turns:,} turns"
    return [
        compare("append, 10 turns / redis-py", samples, "short", ["bare"], goal=1.3),
        compare(f"append, {many} / redis-py", samples, "long", ["bare long"], goal=1.3),
        compare(f"append, {many} / 10 turns", samples, "long", ["short"]),
    ]


async def _save(store: Any, bare: Any, rounds: int) -> list[Figure]:
    from phi_sessions.stores.redis.layout import digest_of
    from phi_sessions.stores.redis.scripts import PATCH, PUT

    numbers, rival, digest = count(), _Rival(store, bare), digest_of(agent_of(1))
    for name in ("held", "rival"):
        await store.save(make_session(name, 20_000, records=8))
    held, theirs = [await store.load(name) for name in ("held", "rival")]
    new: list[Session] = []
    args: list[bytes] = []

    def prepare_new() -> None:
        new[:] = [make_session(f"new-{next(numbers)}", 20_000, records=8)]

    def encode() -> None:
        args[:] = [digest, encode_head(new[0]), *_pairs(list(encode_records(new[0])))]

    def prepare_bare() -> None:
        prepare_new()
        encode()

    def change(session: Session) -> None:
        session.metadata["n"] = number = next(numbers)
        session.loops[-1].metadata = {"n": number}

    def prepare_changed() -> None:
        change(theirs)
        last = encode_loops([theirs.loops[-1]], "rival")
        args[:] = [digest, encode_head(theirs), *_pairs(last)]

    samples = await alternate(
        {
            "new": Contestant(lambda: store.save(new[0]), prepare_new),
            "bare new": Contestant(
                lambda: rival.change(PUT, new[0].session_id, *args), prepare_bare
            ),
            "encode": Contestant(encode, prepare_new),
            "changed": Contestant(lambda: store.save(held), lambda: change(held)),
            "bare changed": Contestant(
                lambda: rival.change(PATCH, "rival", *args), prepare_changed
            ),
        },
        rounds,
        warm_up=10,
    )
    size = "save of 20 KB"
    return [
        compare(f"{size}, changed / redis-py", samples, "changed", ["bare changed"], goal=1.3),
        compare(f"{size}, new / redis-py", samples, "new", ["bare new"], goal=1.3),
        compare(
            f"{size}, new / redis-py and encoding", samples, "new", ["bare new", "encode"], goal=1.3
        ),
    ]


async def _tasks(store: Any, url: str, tasks: int, rounds: int) -> list[Figure]:
    import redis

    from phi_sessions.stores.redis.scripts import PATCH

    random, numbers = Random(13), count(1_000)
    ids = [f"task-{number}" for number in range(tasks)]
    for name in ids:
        await store.save(make_session(name, 10_000, records=10))
    records: list[LoopRecord] = []
    texts: list[list[bytes]] = []

    def prepare() -> None:
        records[:] = [make_turn(random, name, next(numbers)) for name in ids]
        texts[:] = [
            _pairs(encode_loops([record], name)) for name, record in zip(ids, records, strict=True)
        ]

    def each(run: Callable[[int], Awaitable[Any]]) -> Contestant:
        return Contestant(lambda: asyncio.gather(*map(run, range(tasks))), prepare)

    pool = redis.asyncio.BlockingConnectionPool.from_url(url, max_connections=_CONNECTIONS)
    client = redis.asyncio.Redis.from_pool(pool)
    rival = _Rival(store, client)
    try:
        samples = await alternate(
            {
                "store": each(lambda n: store.append(ids[n], records[n])),
                "pool": each(lambda n: rival.change(PATCH, ids[n], b"", b"", *texts[n])),
            },
            rounds,
        )
    finally:
        await client.aclose()
    return [
        compare(f"{tasks} tasks append / redis-py's pool", samples, "store", ["pool"]),
        rate(f"{tasks} tasks append", samples, "store", tasks, "appends/s"),
    ]


async def _list(store: Any, bare: Any, sessions: int, rounds: int) -> list[Figure]:
    rival = _Rival(store, bare)
    agents = {"few": min(_FEW, sessions), "many": min(_MANY, sessions)}
    names = [name for name, number in agents.items() for _ in range(number)]
    for number in range(sessions):
        session = make_session(f"session-{number:07d}", 2_000, records=1)
        session.agent_id = names[number] if number < len(names) else f"agent-{number % 1_000}"
        await store.save(session)
    contestants: dict[str, Contestant] = {}
    for name in agents:
        contestants[name] = Contestant(lambda name=name: store.list_for_agent(name))
        contestants[f"bare {name}"] = Contestant(lambda name=name: rival.list_for_agent(name))
    await store.list_for_agent("few")
    samples = await alternate(contestants, rounds, warm_up=10)
    return [
        compare(
            f"list_for_agent, {number} of {sessions:,} / redis-py",
            samples,
            name,
            [f"bare {name}"],
            goal=2,
        )
        for name, number in agents.items()
    ]
