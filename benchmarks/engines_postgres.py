"""PostgreSQL: the store against asyncpg, which sends the same statements with ready arguments.

- The server is one of its own, on loopback, with `fsync` and `synchronous_commit` on; its data is
  in the system's temporary directory. The bare driver has one connection, prepared statements and
  no pool, and passes over what it gets.
- Append: one record of about 2 KB to sessions of 10 and of 10,000 turns. The store gets an object
  that it has to encode and check.
- Save of 20 KB: of a session that was loaded, its metadata and its last record of about 2 KB
  replaced, of which the store sends only these; and of a new one, all of it, which the store has to
  encode and check. That is also held against the driver plus the encoding.
- Listings: 10,000 sessions of 2 KB, 10 of one agent and 100 of another; also held against the
  driver plus one `msgspec.json.decode` of each text into plain objects.
- 64 tasks append to 64 sessions at once, against asyncpg's own pool of as many connections.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from random import Random
from typing import Any

import msgspec

from phi_sessions import LoopRecord, Session
from phi_sessions.codec import encode_head, encode_loops, encode_records

from .data import agent_of, make_session, make_turn
from .measure import Contestant, alternate
from .report import Figure, compare, rate

__all__ = ["measure"]

_ROUNDS = 400
_TURNS = 10_000
_SESSIONS = 10_000
_FEW, _MANY = 10, 100
_TASKS, _TASKS_ROUNDS = 64, 40
_POOL = 10

Args = tuple[Any, ...]


async def measure(directory: str, *, quick: bool) -> tuple[list[Figure], list[str]]:  # noqa: ARG001 - all take it
    import asyncpg

    from phi_sessions.stores.postgres import PostgresSessionStore

    from .servers.postgres import PostgresServer, PostgresUnavailableError

    try:
        server = PostgresServer(durable=True)
    except PostgresUnavailableError as reason:
        return [], [f"left out: {reason}"]
    with server:
        bare = await asyncpg.connect(server.url())
        try:
            async with PostgresSessionStore(server.url(), pool_size=_POOL) as store:
                version = await bare.fetchval("SHOW server_version")
                figures = await _append(store, bare, *((5, 100) if quick else (_ROUNDS, _TURNS)))
                figures += await _save(store, bare, 5 if quick else _ROUNDS)
                figures += await _tasks(store, server.url(), *((4, 2) if quick else (64, 40)))
                figures += await _list(store, bare, *((200, 2) if quick else (_SESSIONS, 60)))
        finally:
            await bare.close()
    return figures, [f"PostgreSQL {version}, asyncpg {asyncpg.__version__}, loopback, fsync on"]


def _put_args(session_id: str, head: bytes | None, records: list[LoopRecord]) -> Args:
    """Return what an append sends, or with a head a save of what changed."""
    from phi_sessions.stores.postgres.rows import as_columns

    agent_id = None if head is None else agent_of(1).encode()
    return (*_begin(session_id), *as_columns(encode_loops(records, session_id)), agent_id, head)


def _replace_args(session: Session) -> Args:
    """Return what the save of a new session sends."""
    from phi_sessions.stores.postgres.rows import as_columns

    head, records = encode_head(session), list(encode_records(session))
    size = len(head) + sum(len(record.text) for record in records)
    begin, columns = _begin(session.session_id), as_columns(records)
    return (*begin, *columns, False, session.agent_id.encode(), head, size)


def _begin(session_id: str) -> Args:
    return session_id.encode(), None, "5000ms", True, os.urandom(8).hex().encode()


async def _append(store: Any, bare: Any, rounds: int, turns: int) -> list[Figure]:
    random, numbers, put = Random(11), count(turns), store._statements.put
    for name, loops in (("short", 9), ("bare", 9), ("long", turns), ("bare long", turns)):
        await store.save(make_session(name, loops * 1_000, records=loops))
    records: dict[str, LoopRecord] = {}
    args: dict[str, Args] = {}

    def prepare(name: str) -> Callable[[], None]:
        def make() -> None:
            records[name] = make_turn(random, name, next(numbers))
            args[name] = _put_args(name, None, [records[name]])

        return make

    def append(name: str) -> Contestant:
        return Contestant(lambda: store.append(name, records[name]), prepare(name))

    def send(name: str) -> Contestant:
        return Contestant(lambda: bare.fetch(put, *args[name]), prepare(name))

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
        compare("append, 10 turns / asyncpg", samples, "short", ["bare"], goal=1.3),
        compare(f"append, {many} / asyncpg", samples, "long", ["bare long"], goal=1.3),
        compare(f"append, {many} / 10 turns", samples, "long", ["short"]),
    ]


async def _save(store: Any, bare: Any, rounds: int) -> list[Figure]:
    random, numbers, statements = Random(12), count(), store._statements
    for name in ("held", "rival"):
        await store.save(make_session(name, 20_000, records=8))
    held, rival = await store.load("held"), await store.load("rival")
    new: list[Session] = []
    args: list[Args] = []

    def prepare_new() -> None:
        new[:] = [make_session(f"new-{next(numbers)}", 20_000, records=8)]

    def prepare_bare() -> None:
        prepare_new()
        args[:] = [_replace_args(new[0])]

    def change(session: Session) -> None:
        session.metadata["n"] = next(numbers)
        session.loops[-1] = make_turn(random, session.session_id, len(session.loops) - 1)

    def prepare_changed() -> None:
        change(rival)
        args[:] = [_put_args("rival", encode_head(rival), [rival.loops[-1]])]

    samples = await alternate(
        {
            "new": Contestant(lambda: store.save(new[0]), prepare_new),
            "bare new": Contestant(lambda: bare.fetch(statements.replace, *args[0]), prepare_bare),
            "changed": Contestant(lambda: store.save(held), lambda: change(held)),
            "bare changed": Contestant(
                lambda: bare.fetch(statements.put, *args[0]), prepare_changed
            ),
            "encode": Contestant(lambda: _replace_args(new[0]), prepare_new),
        },
        rounds,
        warm_up=10,
    )
    return [
        compare("save of 20 KB, changed / asyncpg", samples, "changed", ["bare changed"], goal=1.3),
        compare("save of 20 KB, new / asyncpg", samples, "new", ["bare new"], goal=1.3),
        compare(
            "save of 20 KB, new / (asyncpg + encoding)", samples, "new", ["bare new", "encode"]
        ),
    ]


async def _tasks(store: Any, url: str, tasks: int, rounds: int) -> list[Figure]:
    import asyncpg

    random, numbers, put = Random(13), count(1_000), store._statements.put
    ids = [f"task-{number}" for number in range(tasks)]
    for name in ids:
        await store.save(make_session(name, 10_000, records=10))
    records: list[LoopRecord] = []
    args: list[Args] = []

    def prepare() -> None:
        records[:] = [make_turn(random, name, next(numbers)) for name in ids]
        args[:] = [
            _put_args(name, None, [record]) for name, record in zip(ids, records, strict=True)
        ]

    def each(run: Callable[[int], Awaitable[Any]]) -> Contestant:
        return Contestant(lambda: asyncio.gather(*map(run, range(tasks))), prepare)

    async with asyncpg.create_pool(url, min_size=_POOL, max_size=_POOL) as pool:
        samples = await alternate(
            {
                "store": each(lambda n: store.append(ids[n], records[n])),
                "pool": each(lambda n: pool.fetch(put, *args[n])),
            },
            rounds,
        )
    return [
        compare(f"{tasks} tasks append / asyncpg's pool", samples, "store", ["pool"]),
        rate(f"{tasks} tasks append", samples, "store", tasks, "appends/s"),
    ]


async def _list(store: Any, bare: Any, sessions: int, rounds: int) -> list[Figure]:
    agents = {"few": min(_FEW, sessions), "many": min(_MANY, sessions)}
    names = [name for name, number in agents.items() for _ in range(number)]
    for number in range(sessions):
        session = make_session(f"session-{number:07d}", 2_000, records=1)
        session.agent_id = names[number] if number < len(names) else f"agent-{number % 1_000}"
        await store.save(session)
    await bare.execute("ANALYZE")
    query, contestants = store._statements.of_agent, dict[str, Contestant]()
    for name in agents:
        contestants[name] = Contestant(lambda name=name: store.list_for_agent(name))
        contestants[f"bare {name}"] = Contestant(lambda name=name: bare.fetch(query, name.encode()))
        texts = [row["text"] for row in await bare.fetch(query, name.encode())]
        contestants[f"decode {name}"] = Contestant(lambda texts=texts: _decode(texts))
    samples = await alternate(contestants, rounds, warm_up=10)
    figures: list[Figure] = []
    for name, number in agents.items():
        title, floor = f"list_for_agent, {number} of {sessions:,} / ", f"bare {name}"
        goal = 2 if name == "few" else None
        figures.append(compare(f"{title}asyncpg", samples, name, [floor], goal=goal))
        floors = [floor, f"decode {name}"]
        figures.append(compare(f"{title}(asyncpg + decoding)", samples, name, floors))
    return figures


def _decode(texts: Sequence[bytes]) -> None:
    for text in texts:
        msgspec.json.decode(text)
