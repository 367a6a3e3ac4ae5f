"""`save` against the same system calls inline in one thread.

- Floor: `floors.RawSave` with the very bytes that the store wrote, in the event loop's thread,
  and one empty hop to the store's own threads; their medians are added up. On files beside the
  store's, in one directory. The floor looks at nothing that is stored and stamps no time.
- `untouched`: the session was loaded and is saved again and again. `turn`: before each save the
  last loop record, about 2 KB, is replaced by another one. `built`: each save is of a session made
  by hand, so that everything is encoded and checked. What prepares a save is not in the time.
- `built` is also held against the floor plus one `msgspec.json.encode` of the same session as a
  plain struct, by the faster of the two rivals in `plain`.
- `raw in a hop`: the floor's system calls run in the store's threads: what a hop really costs.
- lock and unlock: the store's `acquire` and `release`, less an open and close of the lock file.
- 64 tasks: each saves its own session once; the rival is `floors.NaiveSave` with ready bytes, for
  `built` with a plain msgspec encoding before it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from aiofiles.os import wrap

from phi_sessions import FileSystemSessionStore, Session
from phi_sessions.stores.flock import acquire, release

from .data import SIZES, TURN_BYTES, agent_of, make_record, make_session
from .floors import NaiveSave, RawSave, empty_hop, raw_read
from .measure import Contestant, Samples, alternate
from .plain import fastest_encode
from .report import Figure, compare, rate, speed_up
from .syscalls import count_hops, count_system_calls

__all__ = ["measure"]

_SIZES = ("2 KB", "20 KB", "200 KB")
_ROUNDS = 400
_LOCK_ROUNDS = 4000
_TASKS = 64
_TASKS_BYTES = 8_000
_TASKS_ROUNDS = 60
_COUNTED = ("flock", "unlock", "write", "fsync", "rename", "fsync directory")


async def measure(directory: str, *, quick: bool) -> tuple[list[Figure], list[str]]:
    figures: list[Figure] = []
    notes: list[str] = []
    for label in _SIZES:
        figures += await _one_session(directory, label, 5 if quick else _ROUNDS, notes)
    figures.append(await _lock(directory, 20 if quick else _LOCK_ROUNDS))
    figures += await _many_tasks(directory, *((8, 2) if quick else (_TASKS, _TASKS_ROUNDS)))
    figures += await _calls(directory, notes)
    return figures, notes


async def _one_session(directory: str, label: str, rounds: int, notes: list[str]) -> list[Figure]:
    place = os.path.join(directory, "save-" + label.replace(" ", "-"))
    size, records = SIZES[label]
    async with FileSystemSessionStore(place) as store:
        for name in ("untouched", "turn", "built"):
            await store.save(make_session(name, size, records=records))
        untouched, turn = await store.load("untouched"), await store.load("turn")
        loops = list(make_session("built", size, records=records).loops)
        built: list[Session] = []
        random = Random(7)
        data = raw_read(os.path.join(place, "built.json"))
        rival, encode = await fastest_encode(data, 5 if rounds < 100 else 50)
        raw, hopped = RawSave(place, "raw.json"), RawSave(place, "hopped.json")

        def new_turn() -> None:
            number = len(turn.loops) - 1
            share = TURN_BYTES if number else size - 330
            turn.loops[-1] = make_record(random, "turn", turn.agent_id, number, share)

        def build() -> None:
            built[:] = [Session("built", agent_of(1), metadata={"title": "built"}, loops=loops)]

        samples = await alternate(
            {
                "untouched": Contestant(lambda: store.save(untouched)),
                "turn": Contestant(lambda: store.save(turn), new_turn),
                "built": Contestant(lambda: store.save(built[0]), build),
                "raw": Contestant(lambda: raw(data)),
                "raw in a hop": Contestant(lambda: wrap(raw_in(hopped, data))(**own(store))),
                "hop": Contestant(lambda: empty_hop(store)),
                "encode": Contestant(encode),
            },
            rounds,
        )
    notes.append(f"{label}: {len(data):,} bytes, {records} records; plain encoding: {rival}")
    figures: list[Figure] = []
    for name in ("untouched", "turn", "built"):
        title = f"{label} {name}"
        figures.append(compare(f"{title} / (raw + hop)", samples, name, ["raw", "hop"], goal=1.15))
        figures.append(compare(f"{title} / raw", samples, name, ["raw"], goal=1.25))
    figures.append(
        compare(f"{label} built / (raw + encode + hop)", samples, "built", ["raw", "encode", "hop"])
    )
    figures.append(compare(f"{label} raw in a hop / raw", samples, "raw in a hop", ["raw"]))
    figures.append(_hop(label, samples))
    return figures


def raw_in(raw: RawSave, data: bytes) -> Callable[[], None]:
    return lambda: raw(data)


def own(store: FileSystemSessionStore) -> dict[str, Any]:
    """Return what sends an aiofiles call to the store's own threads."""
    return {"executor": store._workers}


def _hop(label: str, samples: Samples) -> Figure:
    hop = samples.summary("hop")
    return Figure(name=f"{label} empty hop", value=hop.p50, unit="us", measured=hop)


async def _lock(directory: str, rounds: int) -> Figure:
    path = os.path.join(directory, "s.json.lock")
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    samples = await alternate(
        {
            "lock": Contestant(lambda: release(acquire(path))),
            "open": Contestant(lambda: os.close(os.open(path, flags, 0o600))),
        },
        rounds,
    )
    return Figure(
        name="lock + unlock, less open + close",
        value=(samples.p50("lock") - samples.p50("open")) / 1e3,
        unit="us",
        goal=15,
        measured=samples.summary("lock"),
        floor=samples.summary("open"),
    )


async def _many_tasks(directory: str, tasks: int, rounds: int) -> list[Figure]:
    place = os.path.join(directory, "save-tasks")
    ids = [f"task-{number}" for number in range(tasks)]
    async with FileSystemSessionStore(place) as store:
        made = [make_session(f"built-{name}", _TASKS_BYTES, records=4) for name in ids]
        for session in (*made, *(make_session(name, _TASKS_BYTES, records=4) for name in ids)):
            await store.save(session)
        loaded = [await store.load(name) for name in ids]
        texts = [raw_read(os.path.join(place, f"{name}.json")) for name in ids]
        encoders = [(await fastest_encode(data, 3))[1] for data in texts]
        naive = [NaiveSave(place, f"naive-{number}") for number in range(tasks)]
        raw = [RawSave(place, f"raw-{number}") for number in range(tasks)]

        def rebuild() -> None:
            for session in made:
                session.loops = type(session.loops)(list(session.loops))
                session.revision = None

        async def encoding(save: NaiveSave, encode: Callable[[], bytes]) -> None:
            await save(encode())

        def each(run: Callable[[int], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
            return lambda: asyncio.gather(*(run(number) for number in range(tasks)))

        samples = await alternate(
            {
                "untouched": Contestant(each(lambda n: store.save(loaded[n]))),
                "built": Contestant(each(lambda n: store.save(made[n])), rebuild),
                "naive": Contestant(each(lambda n: naive[n](texts[n]))),
                "naive built": Contestant(each(lambda n: encoding(naive[n], encoders[n]))),
                "raw in a hop": Contestant(
                    each(lambda n: wrap(raw_in(raw[n], texts[n]))(**own(store)))
                ),
            },
            rounds,
        )
    faster = "times as fast as naive"
    figures = [
        speed_up(f"{tasks} tasks untouched: {faster}", samples, "untouched", "naive", goal=2.2),
        speed_up(f"{tasks} tasks built: {faster}", samples, "built", "naive built", goal=2.2),
        compare(f"{tasks} tasks untouched / raw in a hop", samples, "untouched", ["raw in a hop"]),
    ]
    figures += [
        rate(f"{tasks} tasks {name}", samples, name, tasks, "saves/s")
        for name in ("untouched", "built", "naive", "raw in a hop")
    ]
    return figures


async def _calls(directory: str, notes: list[str]) -> list[Figure]:
    hops = await count_hops(os.path.join(directory, "hops"))
    figures = [
        Figure(name=f"hops of one {call}", value=count, unit="calls", goal=1)
        for call, count in hops.items()
    ]
    calls = count_system_calls(directory)
    if calls is None:
        notes.append("system calls were not counted: there is no strace, or it may not trace")
        return figures
    figures += [
        Figure(name=f"{name} of one save", value=calls["save"][name], unit="calls", goal=1)
        for name in _COUNTED
    ]
    for call, counts in calls.items():
        listed = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        notes.append(f"system calls of one {call}: {listed}")
    return figures
