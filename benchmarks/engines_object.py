"""The object store against bare obstore doing the same requests, on a server of its own.

- The server is SeaweedFS (`weed server -s3`) on loopback, so that requests are as fast as they get
  and what the store adds shows most. It acknowledges what is in the system's caches.
- Bare: obstore's own store, with ready bytes. What the store asked for in its last operation was
  written down, and is asked for again under other keys: puts of the same bytes, those on condition
  on condition, and removals. So it does the same requests whether the records went into the
  manifest, into a part, or had parts folded.
- `append` adds a record of about 2 KB to sessions of 10 records, which therefore grow, have parts
  and have them folded. The store has worked on the sessions before, as it would have in a run.
- `save` of 20 KB. `turn`: the session was loaded, and its last record, about 2 KB, is replaced.
  `built`: each save is of a session made by hand, all of which is encoded and checked. It is also
  held against the floor plus one `msgspec.json.encode` of the same session as a plain struct, by
  the faster of the two rivals in `plain`.
- `list_for_agent` finds the ten sessions of one agent among 10,000. Bare: the same listing of the
  folder of the agent, and the same reads, as many at a time. `list_ids` lists all; as all were put
  within seconds nearly all are read, which is the worst that can be. Bare: the same.
- 64 tasks append to 64 sessions, one record each; bare: 64 puts on condition.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from itertools import count
from random import Random
from typing import Any

import obstore
from obstore.store import S3Store

from phi_sessions import LoopRecord, Session, codec
from phi_sessions.stores.object import ObjectSessionStore
from phi_sessions.stores.object.crowd import AT_ONCE

from .data import SIZES, TURN_BYTES, agent_of, make_record, make_session, make_turn
from .measure import Contestant, alternate
from .plain import fastest_encode
from .report import Figure, compare, rate
from .servers.s3 import S3Server

__all__ = ["measure"]

_ROUNDS = 300
_SHORT = 10
_OLD_TURN_BYTES = 1_000
_STAYS_SHORT = 64
_SESSIONS = 10_000
_RARE = 10
_LISTINGS = 100
_FULL_LISTINGS = 2
_TASKS = 64
_TASKS_ROUNDS = 40
_BUCKET = "sessions"


class Tape:
    """obstore's store, and what it was asked for since the tape was cleared."""

    def __init__(self, store: S3Store) -> None:
        self._store = store
        self.requests: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def put_async(self, path: str, data: bytes, **options: Any) -> Any:
        self.requests.append(("put", path, data, options["mode"]))
        return await self._store.put_async(path, data, **options)

    async def get_async(self, path: str, **options: Any) -> Any:
        self.requests.append(("get", path, options["options"]))
        return await self._store.get_async(path, **options)

    async def delete_async(self, paths: list[str]) -> None:
        self.requests.append(("delete", paths))
        await self._store.delete_async(paths)

    def list(self, prefix: str, **options: Any) -> Any:
        self.requests.append(("list", prefix))
        return self._store.list(prefix, **options)


class Bare:
    """obstore's store, doing what is on a tape."""

    def __init__(self, store: S3Store) -> None:
        self.store = store
        self._versions: dict[str, Any] = {}

    async def change(self, requests: Iterable[tuple[Any, ...]]) -> None:
        """Do again what changed something, under other keys."""
        for request in requests:
            if request[0] == "delete":
                await self.store.delete_async([f"bare/{path}" for path in request[1]])
                continue
            _, path, data, mode = request
            path = f"bare/{path}"
            if mode != "overwrite":
                found = self._versions.get(path)
                mode = {"e_tag": found["e_tag"]} if found else "overwrite"
            self._versions[path] = await self.store.put_async(
                path, data, mode=mode, use_multipart=False
            )

    async def read(self, requests: list[tuple[Any, ...]]) -> None:
        """Do again what read something: the listing first, then the rest, some at a time."""
        for request in requests:
            if request[0] == "list":
                async for _ in self.store.list(request[1], chunk_size=1000):
                    pass
        todo = iter([request for request in requests if request[0] == "get"])

        async def work() -> None:
            for _, path, options in todo:
                result = await self.store.get_async(path, options=options)
                await result.bytes_async()

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))


class Takes:
    """One kind of operation, and the requests of its last one."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self.requests: list[tuple[Any, ...]] = []

    def contestant(
        self, run: Callable[[], Awaitable[Any]], prepare: Callable[[], None] | None = None
    ) -> Contestant:
        def begin() -> None:
            if prepare is not None:
                prepare()
            self._tape.requests = self.requests = []

        return Contestant(run, begin)


async def measure(directory: str, *, quick: bool) -> tuple[list[Figure], list[str]]:
    place = os.path.join(directory, "engines-object")
    os.makedirs(place)
    with S3Server(place) as server:
        notes = [f"obstore {obstore.__version__}, {server.version()}, on loopback"]
        server.make_bucket(_BUCKET)
        tape, bare = Tape(_store(server)), Bare(_store(server))
        recorded: Any = tape  # it does what obstore's does
        async with ObjectSessionStore(recorded, prefix="bench") as sessions:
            rounds = 5 if quick else _ROUNDS
            figures = await _append(sessions, tape, bare, rounds)
            figures += await _save(sessions, tape, bare, rounds, notes)
            few_or_many = (8, 2) if quick else (_TASKS, _TASKS_ROUNDS)
            figures += await _tasks(sessions, tape, bare, *few_or_many)
        async with ObjectSessionStore(recorded, prefix="many") as sessions:
            sizes = (100, 3, 1) if quick else (_SESSIONS, _LISTINGS, _FULL_LISTINGS)
            figures += await _list(sessions, tape, bare, *sizes)
    return figures, notes


def _store(server: S3Server) -> S3Store:
    config: Any = server.config()
    return S3Store(_BUCKET, config=config, client_options={"allow_http": True})


async def _append(store: ObjectSessionStore, tape: Tape, bare: Bare, rounds: int) -> list[Figure]:
    random, numbers = Random(11), count(1_000)
    ids = [f"session-{number}" for number in range(_STAYS_SHORT)]
    for name in ids:
        await store.save(make_session(name, _SHORT * _OLD_TURN_BYTES, records=_SHORT))
    record: list[LoopRecord] = []
    takes = Takes(tape)

    def prepare() -> None:
        number = next(numbers)
        record[:] = [make_turn(random, ids[number % len(ids)], number)]

    samples = await alternate(
        {
            "append": takes.contestant(
                lambda: store.append(record[0].session_id, *record), prepare
            ),
            "bare": Contestant(lambda: bare.change(takes.requests)),
        },
        rounds,
        warm_up=2 * len(ids),
    )
    return [compare("append / bare obstore", samples, "append", ["bare"], goal=1.3)]


async def _save(
    store: ObjectSessionStore, tape: Tape, bare: Bare, rounds: int, notes: list[str]
) -> list[Figure]:
    size, loops = SIZES["20 KB"]
    made = {name: make_session(name, size, records=loops) for name in ("turn", "built")}
    for session in made.values():
        await store.save(session)
    records = list(made["built"].loops)
    texts = [
        codec.encode_head(made["built"]),
        *(text for _, text in codec.encode_records(made["built"])),
    ]
    whole = texts[0][:-1] + b',"loops":[' + b",".join(texts[1:]) + b"]}"
    rival, encode = await fastest_encode(whole, 5 if rounds < 100 else 50)
    notes.append(f"20 KB: {loops} records; plain encoding: {rival}")
    random = Random(7)
    built: list[Session] = []
    takes = {name: Takes(tape) for name in (*made, "load")}
    turn = await store.load("turn")

    def change() -> None:
        turn.loops[-1] = make_record(random, "turn", turn.agent_id, loops - 1, TURN_BYTES)

    def build() -> None:
        built[:] = [Session("built", agent_of(1), metadata={"title": "built"}, loops=records)]

    samples = await alternate(
        {
            "turn": takes["turn"].contestant(lambda: store.save(turn), change),
            "bare turn": Contestant(lambda: bare.change(takes["turn"].requests)),
            "built": takes["built"].contestant(lambda: store.save(built[0]), build),
            "bare built": Contestant(lambda: bare.change(takes["built"].requests)),
            "load": takes["load"].contestant(lambda: store.load("built")),
            "bare load": Contestant(lambda: bare.read(takes["load"].requests)),
            "encode": Contestant(encode),
        },
        rounds,
    )
    return [
        compare("save 20 KB, a turn / bare obstore", samples, "turn", ["bare turn"], goal=1.3),
        compare("save 20 KB, built / bare obstore", samples, "built", ["bare built"], goal=1.3),
        compare(
            "save 20 KB, built / (bare obstore + encode)",
            samples,
            "built",
            ["bare built", "encode"],
        ),
        compare("load 20 KB / bare obstore", samples, "load", ["bare load"]),
    ]


async def _tasks(
    store: ObjectSessionStore, tape: Tape, bare: Bare, tasks: int, rounds: int
) -> list[Figure]:
    random, numbers = Random(13), count(1_000)
    ids = [f"task-{number}" for number in range(tasks)]
    for name in ids:
        await store.save(make_session(name, _SHORT * _OLD_TURN_BYTES, records=_SHORT))
    records: list[LoopRecord] = []
    takes = Takes(tape)

    def prepare() -> None:
        records[:] = [make_turn(random, name, next(numbers)) for name in ids]

    def append() -> Awaitable[Any]:
        return asyncio.gather(
            *(store.append(name, record) for name, record in zip(ids, records, strict=True))
        )

    def bare_append() -> Awaitable[Any]:
        by_session: dict[str, list[tuple[Any, ...]]] = {}
        for request in takes.requests:
            path = request[1] if isinstance(request[1], str) else request[1][0]
            by_session.setdefault(path.split("/")[2], []).append(request)
        return asyncio.gather(*map(bare.change, by_session.values()))

    samples = await alternate(
        {
            "append": takes.contestant(append, prepare),
            "bare": Contestant(bare_append),
        },
        rounds,
    )
    return [
        compare(f"{tasks} tasks append / bare obstore", samples, "append", ["bare"]),
        rate(f"{tasks} tasks append", samples, "append", tasks, "appends/s"),
    ]


async def _list(
    store: ObjectSessionStore,
    tape: Tape,
    bare: Bare,
    sessions: int,
    rounds: int,
    full_rounds: int,
) -> list[Figure]:
    size, loops = SIZES["2 KB"]
    rare = "agent-rare"

    async def fill(numbers: Iterable[int]) -> None:
        for number in numbers:
            session = make_session(f"session-{number:07d}", size, records=loops)
            is_rare = number % (sessions // _RARE) == 7
            session.agent_id = rare if is_rare else f"agent-{number % 20}"
            await store.save(session)

    todo = iter(range(sessions))
    await asyncio.gather(*(fill(todo) for _ in range(AT_ONCE)))
    takes = {name: Takes(tape) for name in ("list_for_agent", "infos", "list_ids")}

    async def infos() -> int:
        return len([info async for info in store.infos(agent_id=rare)])

    assert await infos() == _RARE
    samples = await alternate(
        {
            "list_for_agent": takes["list_for_agent"].contestant(
                lambda: store.list_for_agent(rare)
            ),
            "bare list_for_agent": Contestant(lambda: bare.read(takes["list_for_agent"].requests)),
            "infos": takes["infos"].contestant(infos),
            "bare infos": Contestant(lambda: bare.read(takes["infos"].requests)),
        },
        rounds,
    )
    full = await alternate(
        {
            "list_ids": takes["list_ids"].contestant(store.list_ids),
            "bare": Contestant(lambda: bare.read(takes["list_ids"].requests)),
        },
        full_rounds,
        warm_up=1,
    )
    many = f"{sessions:,} sessions"
    return [
        compare(
            f"{many}: list_for_agent / bare obstore",
            samples,
            "list_for_agent",
            ["bare list_for_agent"],
            goal=2,
        ),
        compare(f"{many}: infos of one agent / bare obstore", samples, "infos", ["bare infos"]),
        compare(f"{many}: list_ids / bare obstore", full, "list_ids", ["bare"]),
    ]
