"""Many writers of one session.

- 16 processes save one session of 20 KB as fast as they can, in rounds of a fixed time that all
  begin together. Rounds of the store alternate with rounds of the floor: the same system calls
  inline (`floors.RawSave`), with a flock(2) that waits in the kernel's queue. The ratio is of
  saves in the same time. A wait is the whole call: queue, lock and save.
- 100 tasks of one process save one session once each; the floor is 100 of the raw sequences
  inline, one after the other.
- Errors of any kind are counted and should be none.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from multiprocessing.synchronize import Barrier
from statistics import median
from time import perf_counter

from phi_sessions import Expect, FileSystemSessionStore

from .data import SIZES, make_session
from .floors import RawSave, raw_read
from .measure import Contestant, Summary, alternate, middle_half, percentile
from .race import PATIENCE, race
from .report import Figure, compare

__all__ = ["measure"]

_PROCESSES = 16
_ROUNDS = 6
_SECONDS = 2.0
_TASKS = 100
_TASK_ROUNDS = 30
_ID = "contended"

_Waits = list[float]
_Result = tuple[list[_Waits], list[_Waits], Counter[str]]


async def measure(directory: str, *, quick: bool) -> tuple[list[Figure], list[str]]:
    place = os.path.join(directory, "contention")
    size, records = SIZES["20 KB"]
    async with FileSystemSessionStore(place) as store:
        await store.save(make_session(_ID, size, records=records))
    seconds = 0.2 if quick else _SECONDS
    processes = 4 if quick else _PROCESSES
    rounds = 1 if quick else _ROUNDS
    each = [(place, rounds, seconds)] * processes
    results = await asyncio.to_thread(race, _rounds, each, 2 * rounds * seconds)
    figures = _processes(results, seconds)
    figures += await _tasks(place, *((10, 2) if quick else (_TASKS, _TASK_ROUNDS)))
    return figures, [f"processes: {processes}, rounds of {seconds} s"]


async def _rounds(place: str, rounds: int, seconds: float, barrier: Barrier) -> _Result:
    raw = RawSave(place, "raw.json")
    data = raw_read(os.path.join(place, f"{_ID}.json"))
    stores: list[_Waits] = []
    floors: list[_Waits] = []
    errors: Counter[str] = Counter()
    async with FileSystemSessionStore(place) as store:
        session = await store.load(_ID)
        for _ in range(rounds):
            waits: _Waits = []
            barrier.wait(PATIENCE)
            end = perf_counter() + seconds
            while (begun := perf_counter()) < end:
                try:
                    await store.save(session, expect=Expect.ANYTHING)
                except Exception as error:  # noqa: BLE001 - each is counted
                    errors[type(error).__name__] += 1
                waits.append(perf_counter() - begun)
            stores.append(waits)
            waits = []
            barrier.wait(PATIENCE)
            end = perf_counter() + seconds
            while (begun := perf_counter()) < end:
                raw(data)
                waits.append(perf_counter() - begun)
            floors.append(waits)
    return stores, floors, errors


def _processes(results: list[_Result], seconds: float) -> list[Figure]:
    stores = [[w for one in results for w in one[0][i]] for i in range(len(results[0][0]))]
    floors = [[w for one in results for w in one[1][i]] for i in range(len(results[0][1]))]
    ratios = [len(a) / len(b) for a, b in zip(stores, floors, strict=True)]
    counts = [[len(waits) for waits in one[0]] for one in results]
    shares = [min(column) / median(column) for column in zip(*counts, strict=True)]
    errors = sum((one[2] for one in results), Counter[str]())
    title = f"{len(results)} processes"
    figures = [
        Figure(
            name=f"{title}: saves, store / raw with a waiting flock",
            value=median(ratios),
            spread=middle_half(ratios),
        ),
        Figure(
            name=f"{title}: errors {dict(errors) or ''}".rstrip(),
            value=errors.total(),
            unit="errors",
            goal=0,
        ),
        Figure(name=f"{title}: fewest saves / median process", value=median(shares)),
    ]
    for name, rounds in (("store", stores), ("raw", floors)):
        rates = [len(waits) / seconds for waits in rounds]
        waits = [wait * 1e3 for waits in rounds for wait in waits]
        figures += [
            Figure(
                name=f"{title}, {name}",
                value=median(rates),
                unit="saves/s",
                spread=middle_half(rates),
            ),
            *(
                Figure(name=f"{title}, {name}: wait p{percent}", value=value, unit="ms")
                for percent, value in (
                    (50, percentile(waits, 50)),
                    (99, percentile(waits, 99)),
                    (100, max(waits)),
                )
            ),
        ]
    return figures


async def _tasks(place: str, tasks: int, rounds: int) -> list[Figure]:
    raw = RawSave(place, "raw.json")
    waits: list[int] = []
    errors: Counter[str] = Counter()
    async with FileSystemSessionStore(place) as store:
        sessions = [await store.load(_ID) for _ in range(tasks)]
        data = raw_read(os.path.join(place, f"{_ID}.json"))

        async def save(number: int) -> None:
            begun = perf_counter()
            try:
                await store.save(sessions[number], expect=Expect.ANYTHING)
            except Exception as error:  # noqa: BLE001 - each is counted
                errors[type(error).__name__] += 1
            waits.append(round((perf_counter() - begun) * 1e9))

        def inline() -> None:
            for _ in range(tasks):
                raw(data)

        samples = await alternate(
            {
                "tasks": Contestant(lambda: asyncio.gather(*map(save, range(tasks)))),
                "raw": Contestant(inline),
            },
            rounds,
            warm_up=1,
        )
    title = f"{tasks} tasks"
    wait = Summary(
        count=len(waits),
        p50=percentile(waits, 50) / 1e3,
        p95=percentile(waits, 95) / 1e3,
        shortest=min(waits) / 1e3,
        longest=max(waits) / 1e3,
    )
    return [
        compare(f"{title}: time / raw inline", samples, "tasks", ["raw"]),
        Figure(
            name=f"{title}: errors {dict(errors) or ''}".rstrip(),
            value=errors.total(),
            unit="errors",
            goal=0,
        ),
        Figure(
            name=f"{title}, store",
            value=tasks / samples.p50("tasks") * 1e9,
            unit="saves/s",
            measured=samples.summary("tasks"),
        ),
        Figure(name=f"{title}: wait p50", value=wait.p50 / 1e3, unit="ms", measured=wait),
        Figure(name=f"{title}: wait p99", value=percentile(waits, 99) / 1e6, unit="ms"),
        Figure(name=f"{title}: wait p100", value=wait.longest / 1e3, unit="ms"),
    ]
