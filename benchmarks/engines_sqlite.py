"""The SQLite store against its bare driver, and against rows of aiosqlite.

- Bare: Python's `sqlite3` on a database of the store's own schema, with the store's settings, one
  connection in one thread of its own: for each operation one hop there, and in it the statements
  that the store needs for it. It gets ready texts; the store gets objects that it has to encode and
  check. Each has a database of its own, so that nobody takes the other's log in; the store's log is
  taken in by the store every 4 MB, the bare one's by SQLite every 1,000 pages.
- `append` adds a record of about 2 KB to sessions of 10 records.
- `save` of 20 KB. `turn`: the session was loaded, and before each save its last record, about 2 KB,
  is replaced by another one; both write that record. `built`: each save is of a session made by
  hand, so that both write all records, and the store encodes and checks them. It is also held
  against the floor plus one `msgspec.json.encode` of the same session as a plain struct, by the
  faster of the two rivals in `plain`.
- `list_for_agent` finds the ten sessions of one agent among 10,000. The bare query joins the same
  rows by the same index. The floor with a decode also reads each session's JSON into plain structs,
  by the faster of the two rivals in `plain`, in the same hop.
- 64 tasks append to 64 sessions, one record each. The rivals are 64 tasks that insert one row each
  through one connection of aiosqlite (`rows` tells of the two ways); they get ready bytes.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import count
from random import Random
from typing import Any

import msgspec

from phi_sessions import Expect, LoopRecord, Session, codec
from phi_sessions.record import enc_hook
from phi_sessions.stores.base import new_revision
from phi_sessions.stores.sqlite import SQLiteSessionStore, statements

from .data import SIZES, TURN_BYTES, agent_of, make_record, make_session, make_turn
from .measure import Contestant, alternate
from .plain import fastest_encode, fastest_read
from .report import Figure, compare, rate, speed_up
from .rows import Add, open_autocommit, open_committed, versions

__all__ = ["measure"]

_ROUNDS = 500
_SHORT = 10
_OLD_TURN_BYTES = 1_000
_SESSIONS = 10_000
_RARE = 10
_LISTINGS = 200
_TASKS = 64
_TASKS_ROUNDS = 60

_OF_AGENT = (
    "SELECT sessions.*, records.loop_id, records.text FROM sessions JOIN records ON records.place"
    " BETWEEN sessions.number << 32 AND (sessions.number << 32) + 4294967295"
    " WHERE agent_id = CAST(? AS TEXT) ORDER BY turn DESC, place"
)

_encode = msgspec.json.Encoder(enc_hook=enc_hook).encode


async def measure(directory: str, *, quick: bool) -> tuple[list[Figure], list[str]]:
    place = os.path.join(directory, "engines-sqlite")
    os.makedirs(place)
    rounds = 5 if quick else _ROUNDS
    notes = [f"rows: {versions()}; all with WAL, synchronous=FULL"]
    figures = await _append(place, rounds)
    figures += await _save(place, rounds, notes)
    figures += await _list(place, *((200, 3) if quick else (_SESSIONS, _LISTINGS)), notes)
    figures += await _tasks(place, *((8, 2) if quick else (_TASKS, _TASKS_ROUNDS)))
    return figures, notes


class Bare:
    """The driver, one hop away, doing what the store has it do."""

    def __init__(self, path: str) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.text_factory = bytes
        for setting in ("synchronous=FULL", "temp_store=MEMORY", "cell_size_check=ON"):
            self._connection.execute(f"PRAGMA {setting}")

    def run(self, job: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        return asyncio.get_running_loop().run_in_executor(self._thread, job, *args)

    def append(self, session_id: str, loop_id: str, text: bytes) -> None:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        number, _, records, size = execute(statements.FIND, (session_id,)).fetchone()
        name = loop_id.encode()
        execute(statements.FIND_RECORD, (number, name)).fetchone()
        self._connection.executemany(
            statements.ADD_RECORD, [((number << 32) + records, number, name, text)]
        )
        values = (new_revision(), time.time_ns(), records + 1, size + len(text), number)
        execute(statements.CHANGE, values)
        execute("COMMIT")

    def change(self, session_id: str, loop_id: str, text: bytes) -> None:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        number, _, records, size = execute(statements.FIND, (session_id,)).fetchone()
        key = (number, loop_id.encode())
        place, old = execute(statements.FIND_RECORD, key).fetchone()
        execute(statements.CHANGE_RECORD, (text, place))
        values = (new_revision(), time.time_ns(), records, size + len(text) - old, number)
        execute(statements.CHANGE, values)
        execute("COMMIT")

    def save(
        self, session_id: str, agent_id: str, head: bytes, ids: list[str], texts: list[bytes]
    ) -> None:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        number, *_ = execute(statements.FIND, (session_id,)).fetchone()
        first, last = statements.places(number)
        execute(statements.REMOVE_RECORDS, (first, last))
        rows = [(first + n, number, ids[n].encode(), text) for n, text in enumerate(texts)]
        self._connection.executemany(statements.ADD_RECORD, rows)
        size = len(head) + sum(map(len, texts))
        values = (agent_id.encode(), head, new_revision(), time.time_ns(), len(texts), size)
        execute(statements.REPLACE, (*values, number))
        execute("COMMIT")

    def of_agent(self, agent_id: str) -> list[Any]:
        return self._connection.execute(_OF_AGENT, (agent_id.encode(),)).fetchall()

    def close(self) -> None:
        self._connection.close()
        self._thread.shutdown()


@asynccontextmanager
async def _opened(place: str, name: str) -> AsyncIterator[SQLiteSessionStore]:
    async with SQLiteSessionStore(os.path.join(place, name)) as store:
        yield store


@asynccontextmanager
async def _both(
    place: str, name: str, sessions: list[Session]
) -> AsyncIterator[tuple[SQLiteSessionStore, Bare]]:
    """Yield the store and the bare driver, each with a database of its own with `sessions`."""
    async with _opened(place, f"{name}.db") as store, _opened(place, f"{name}-bare.db") as filler:
        for filled in (store, filler):
            await asyncio.gather(*(filled.save(each, expect=Expect.ANYTHING) for each in sessions))
        await filler.aclose()
        bare = Bare(os.path.join(place, f"{name}-bare.db"))
        try:
            yield store, bare
        finally:
            bare.close()


async def _append(place: str, rounds: int) -> list[Figure]:
    random, numbers = Random(11), count(1_000)
    ids = [f"session-{number}" for number in range(64)]
    sessions = [make_session(name, _SHORT * _OLD_TURN_BYTES, records=_SHORT) for name in ids]
    records: list[LoopRecord] = []
    texts: list[bytes] = []

    def prepare() -> None:
        number = next(numbers)
        records[:] = [make_turn(random, ids[number % len(ids)], number)]
        texts[:] = [_encode(records[0])]

    async with _both(place, "append", sessions) as (store, bare):
        samples = await alternate(
            {
                "append": Contestant(
                    lambda: store.append(records[0].session_id, *records), prepare
                ),
                "bare": Contestant(
                    lambda: bare.run(
                        bare.append, records[0].session_id, records[0].loop_id, texts[0]
                    ),
                    prepare,
                ),
            },
            rounds,
        )
    return [compare("append / bare driver", samples, "append", ["bare"], goal=1.3)]


async def _save(place: str, rounds: int, notes: list[str]) -> list[Figure]:
    size, loops = SIZES["20 KB"]
    made = {name: make_session(name, size, records=loops) for name in ("turn", "built")}
    plain = [codec.encode_head(made["built"]), *map(_encode, made["built"].loops)]
    rival, encode = await fastest_encode(_joined(plain[0], plain[1:]), 5 if rounds < 100 else 50)
    notes.append(f"20 KB: {loops} records; plain encoding: {rival}")
    records = list(made["built"].loops)
    random = Random(7)
    built: list[Session] = []
    texts: list[bytes] = []

    async with _both(place, "save", list(made.values())) as (store, bare):
        turn = await store.load("turn")

        def new_turn() -> LoopRecord:
            return make_record(random, "turn", turn.agent_id, loops - 1, TURN_BYTES)

        def change() -> None:
            turn.loops[-1] = new_turn()

        def encode_turn() -> None:
            texts[:] = [_encode(new_turn())]

        def build() -> None:
            built[:] = [Session("built", agent_of(1), metadata={"title": "built"}, loops=records)]

        def encode_all() -> None:
            texts[:] = [codec.encode_head(made["built"]), *map(_encode, records)]

        def bare_built() -> Awaitable[None]:
            ids = [record.loop_id for record in records]
            return bare.run(bare.save, "built", agent_of(1), texts[0], ids, texts[1:])

        samples = await alternate(
            {
                "turn": Contestant(lambda: store.save(turn), change),
                "bare turn": Contestant(
                    lambda: bare.run(bare.change, "turn", turn.loops.ids()[-1], texts[0]),
                    encode_turn,
                ),
                "built": Contestant(lambda: store.save(built[0]), build),
                "bare built": Contestant(bare_built, encode_all),
                "encode": Contestant(encode),
            },
            rounds,
        )
    both = ["bare built", "encode"]
    return [
        compare("save 20 KB, a turn / bare driver", samples, "turn", ["bare turn"], goal=1.3),
        compare("save 20 KB, built / bare driver", samples, "built", both[:1], goal=1.3),
        compare("save 20 KB, built / (bare driver + encode)", samples, "built", both),
    ]


async def _list(place: str, sessions: int, rounds: int, notes: list[str]) -> list[Figure]:
    size, loops = SIZES["2 KB"]
    rare = "agent-rare"
    made: list[Session] = []
    for number in range(sessions):
        session = make_session(f"session-{number:07d}", size, records=loops)
        session.agent_id = rare if number % (sessions // _RARE) == 7 else f"agent-{number % 20}"
        made.append(session)
    first = [codec.encode_head(made[0]), *map(_encode, made[0].loops)]
    rival, read = await fastest_read(_joined(first[0], first[1:]), 25)
    notes.append(f"{sessions:,} sessions of 2 KB, {_RARE} of the agent; faster decoder: {rival}")
    async with _both(place, "list", made) as (store, bare):

        async def infos() -> int:
            return len([info async for info in store.infos(agent_id=rare)])

        def query_and_decode() -> list[Any]:
            # The sessions hold one record each, so that each row is a whole session.
            return [read(_joined(row[-3], [row[-1]])) for row in bare.of_agent(rare)]

        assert await infos() == len(await bare.run(query_and_decode)) == _RARE
        samples = await alternate(
            {
                "list_for_agent": Contestant(lambda: store.list_for_agent(rare)),
                "infos": Contestant(infos),
                "query": Contestant(lambda: bare.run(bare.of_agent, rare)),
                "query and decode": Contestant(lambda: bare.run(query_and_decode)),
            },
            rounds,
        )
    many, decoded = f"{sessions:,} sessions", ["query and decode"]
    return [
        compare(
            f"{many}: list_for_agent / bare query", samples, "list_for_agent", ["query"], goal=2
        ),
        compare(
            f"{many}: list_for_agent / (bare query and decode)", samples, "list_for_agent", decoded
        ),
        compare(f"{many}: infos of one agent / bare query", samples, "infos", ["query"]),
    ]


def _joined(head: bytes, records: Sequence[bytes]) -> bytes:
    """Return a session as one JSON text."""
    return head[:-1] + b',"loops":[' + b",".join(records) + b"]}"


async def _tasks(place: str, tasks: int, rounds: int) -> list[Figure]:
    random, numbers = Random(13), count(1_000)
    ids = [f"task-{number}" for number in range(tasks)]
    records: list[LoopRecord] = []
    texts: list[bytes] = []

    def prepare() -> None:
        records[:] = [make_turn(random, name, next(numbers)) for name in ids]
        texts[:] = [_encode(record) for record in records]

    def each(run: Callable[[int], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
        return lambda: asyncio.gather(*(run(number) for number in range(tasks)))

    def row(add: Add) -> Contestant:
        return Contestant(each(lambda n: add(ids[n], records[n].loop_id, texts[n])), prepare)

    async with (
        _opened(place, "tasks.db") as store,
        open_committed(place) as committed,
        open_autocommit(place) as autocommit,
    ):
        for name in ids:
            await store.save(make_session(name, _SHORT * _OLD_TURN_BYTES, records=_SHORT))
        samples = await alternate(
            {
                "append": Contestant(each(lambda n: store.append(ids[n], records[n])), prepare),
                "row": row(committed),
                "autocommit": row(autocommit),
            },
            rounds,
        )
    faster, names = f"{tasks} tasks: times as fast as", ("append", "row", "autocommit")
    return [
        speed_up(f"{faster} aiosqlite rows", samples, "append", "row", goal=1.5),
        speed_up(f"{faster} rows, autocommit", samples, "append", "autocommit", goal=1.5),
        *(rate(f"{tasks} tasks {name}", samples, name, tasks, "/s") for name in names),
    ]
