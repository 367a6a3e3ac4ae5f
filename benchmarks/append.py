"""`append` of one loop record, against a durable row of aiosqlite and a bare write.

- One record of about 2 KB is added to sessions of 10 and of 10,000 turns, in turn with the insert
  of a row of as many bytes (`rows` tells of its two ways), and with the floor: open, write,
  fdatasync, close of a file that grows, inline in the event loop's thread. The session of 10 turns
  is another one every few rounds, so that it stays short; it has a tail already, as after any
  append. The record that the store gets is an object that it has to encode and check; the rivals
  get ready bytes.
- 64 tasks append to 64 sessions, one record each; the rivals are 64 tasks that insert one row each
  into one database, through one connection.
- One append is traced by strace: how often it asks for the disk, and what it writes beside the
  record.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from itertools import count
from random import Random
from typing import Any

import msgspec

from phi_sessions import FileSystemSessionStore, LoopRecord
from phi_sessions.record import enc_hook

from .data import TURN_BYTES, make_session, make_turn
from .measure import Contestant, alternate
from .report import Figure, compare, rate, speed_up
from .rows import Add, open_autocommit, open_committed, versions
from .syscalls import BYTES, count_system_calls
from .traced import traced_record

__all__ = ["measure"]

_ROUNDS = 500
_TURNS = 10_000
_OLD_TURN_BYTES = 1_000
_STAYS_SHORT = 5
_TASKS = 64
_TASKS_ROUNDS = 60

_encode = msgspec.json.Encoder(enc_hook=enc_hook).encode


async def measure(directory: str, *, quick: bool) -> tuple[list[Figure], list[str]]:
    place = os.path.join(directory, "append")
    notes: list[str] = []
    async with FileSystemSessionStore(place) as store:
        figures = await _one_session(
            store, place, *((5, 200) if quick else (_ROUNDS, _TURNS)), notes
        )
        figures += await _many_tasks(store, place, *((8, 2) if quick else (_TASKS, _TASKS_ROUNDS)))
    figures += _calls(directory, notes)
    return figures, notes


async def _one_session(
    store: FileSystemSessionStore, place: str, rounds: int, turns: int, notes: list[str]
) -> list[Figure]:
    random, numbers = Random(11), count(turns)
    short = [f"short-{number}" for number in range(rounds // _STAYS_SHORT + 2)]
    for name, loops in (*((name, 9) for name in short), ("long", turns - 1)):
        await store.save(make_session(name, loops * _OLD_TURN_BYTES, records=loops))
        await store.append(name, make_turn(random, name, next(numbers)))
    records: dict[str, LoopRecord] = {}
    texts: list[bytes] = []
    used = count()

    def prepare_short() -> None:
        records["short"] = make_turn(random, short[next(used) // _STAYS_SHORT], next(numbers))

    def prepare_long() -> None:
        records["long"] = make_turn(random, "long", next(numbers))

    def prepare_text() -> None:
        records["row"] = make_turn(random, "long", next(numbers))
        texts[:] = [_encode(records["row"])]

    def append(name: str) -> Callable[[], Awaitable[Any]]:
        return lambda: store.append(records[name].session_id, records[name])

    def row(add: Add) -> Contestant:
        return Contestant(lambda: add("long", records["row"].loop_id, texts[0]), prepare_text)

    bare = os.path.join(place, "bare")
    async with open_committed(place) as committed, open_autocommit(place) as autocommit:
        samples = await alternate(
            {
                "short": Contestant(append("short"), prepare_short),
                "long": Contestant(append("long"), prepare_long),
                "row": row(committed),
                "autocommit": row(autocommit),
                "bare": Contestant(lambda: bare_write(bare, texts[0]), prepare_text),
            },
            rounds,
        )
    notes.append(f"rows: {versions()}, WAL, synchronous=FULL")
    size = os.path.getsize(os.path.join(place, "long.json"))
    notes.append(f"{turns:,} turns: {size:,} bytes and a tail; each record {TURN_BYTES:,} bytes")
    many = f"{turns:,} turns"
    return [
        compare(f"{many} / 10 turns", samples, "long", ["short"], goal=1.3),
        compare("10 turns / aiosqlite row", samples, "short", ["row"], goal=0.7),
        compare(f"{many} / aiosqlite row", samples, "long", ["row"], goal=0.7),
        compare(
            "10 turns / aiosqlite row, autocommit and no key", samples, "short", ["autocommit"]
        ),
        compare(f"{many} / aiosqlite row, autocommit and no key", samples, "long", ["autocommit"]),
        compare("10 turns / bare write and fdatasync", samples, "short", ["bare"]),
        compare(f"{many} / bare write and fdatasync", samples, "long", ["bare"]),
    ]


def bare_write(path: str, data: bytes) -> None:
    """Add `data` to a file durably, with no more than that takes."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, data)
    os.fdatasync(fd)
    os.close(fd)


async def _many_tasks(
    store: FileSystemSessionStore, place: str, tasks: int, rounds: int
) -> list[Figure]:
    random, numbers = Random(13), count(1_000)
    ids = [f"task-{number}" for number in range(tasks)]
    for name in ids:
        await store.save(make_session(name, 10 * _OLD_TURN_BYTES, records=10))
        await store.append(name, make_turn(random, name, next(numbers)))
    records: list[LoopRecord] = []
    texts: list[bytes] = []

    def prepare() -> None:
        records[:] = [make_turn(random, name, next(numbers)) for name in ids]
        texts[:] = [_encode(record) for record in records]

    def each(run: Callable[[int], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
        return lambda: asyncio.gather(*(run(number) for number in range(tasks)))

    def row(add: Add) -> Contestant:
        return Contestant(each(lambda n: add(ids[n], records[n].loop_id, texts[n])), prepare)

    os.makedirs(apart := os.path.join(place, "tasks"))
    async with open_committed(apart) as committed, open_autocommit(apart) as autocommit:
        samples = await alternate(
            {
                "append": Contestant(each(lambda n: store.append(ids[n], records[n])), prepare),
                "row": row(committed),
                "autocommit": row(autocommit),
            },
            rounds,
        )
    faster, rows = f"{tasks} tasks: times as fast as", "aiosqlite rows"
    return [
        speed_up(f"{faster} {rows}", samples, "append", "row", goal=2.5),
        speed_up(f"{faster} {rows}, autocommit", samples, "append", "autocommit"),
        rate(f"{tasks} tasks append", samples, "append", tasks, "appends/s"),
        rate(f"{tasks} tasks row", samples, "row", tasks, "rows/s"),
        rate(f"{tasks} tasks autocommit", samples, "autocommit", tasks, "rows/s"),
    ]


def _calls(directory: str, notes: list[str]) -> list[Figure]:
    calls = count_system_calls(directory)
    if calls is None:
        notes.append("system calls were not counted: there is no strace, or it may not trace")
        return []
    append = calls["append"]
    listed = ", ".join(f"{name} {number}" for name, number in sorted(append.items()))
    notes.append(f"system calls of one append: {listed}")
    record = len(_encode(traced_record()))
    syncs = append["fdatasync"] + append["fsync"] + append["fsync directory"]
    return [
        Figure(name="bytes beside the record", value=append[BYTES] - record, unit="B", goal=512),
        Figure(name="fdatasync of one append", value=append["fdatasync"], unit="calls", goal=1),
        Figure(name="fsync and fdatasync of one append", value=syncs, unit="calls", goal=1),
    ]
