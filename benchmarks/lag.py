"""How late the event loop is while the store works.

A ticker sleeps 1 ms again and again. Lag is by how much a tick comes too late; a gap is the whole
time between two ticks. Each part of the run is repeated, all kinds in turn, in an order drawn anew.

- 64 tasks, each saving its own session of 2 to 20 KB over and over: loaded before (`untouched`), or
  made by hand so that each save encodes everything (`built`). Beside them `idle`: nothing but the
  ticker, which is the machine's own noise. `busy thread`: one thread of pure Python that computes,
  which is what CPython's switch interval of 5 ms costs any event loop. `raw in a hop`: the bare
  system calls of those saves in the store's own threads, which is the floor for any store that
  leaves blocking calls to threads.
- One session of 20 MB and 200 loop records, saved `untouched` and `built`, and loaded. The load's
  longest gap is held against one `msgspec` decode of the same bytes into plain structs, inline,
  in the same round, by the faster of the two rivals in `plain`.
- `largest` figures are the worst tick of the whole run, `median` ones the median over the repeats
  of each repeat's worst: on a machine that is shared, the first tell more about the neighbours.
- Garbage is collected as usual, in the floors too.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
from collections.abc import Awaitable, Callable
from statistics import median
from time import perf_counter
from typing import Any

from aiofiles.os import wrap

from phi_sessions import FileSystemSessionStore, LoopRecord, Session

from .data import SIZES, make_session
from .floors import RawSave, raw_read
from .measure import middle_half, percentile
from .plain import fastest_read
from .report import Figure
from .ticker import Ticker

__all__ = ["measure"]

_TASKS = 64
_REPEATS = 8
_SECONDS = 1.5
_LARGE_REPEATS = 9
_KINDS = ("untouched", "built", "raw in a hop", "idle", "busy thread")

Work = Callable[[], Awaitable[object]]


async def measure(directory: str, *, quick: bool) -> tuple[list[Figure], list[str]]:
    many = os.path.join(directory, "lag-many")
    large = os.path.join(directory, "lag-large")
    counts = (8, 1, 0.1) if quick else (_TASKS, _REPEATS, _SECONDS)
    figures = await _many_tasks(many, *counts)
    label = "2 MB" if quick else "20 MB"
    notes: list[str] = []
    figures += await _large_session(large, label, 2 if quick else _LARGE_REPEATS, notes)
    return figures, notes


async def _many_tasks(place: str, tasks: int, repeats: int, seconds: float) -> list[Figure]:
    ids = [f"task-{number}" for number in range(tasks)]
    spread = random.Random(3)
    sizes = [spread.randint(2_000, 20_000) for _ in ids]
    lags: dict[str, list[list[float]]] = {name: [] for name in _KINDS}
    async with FileSystemSessionStore(place) as store:

        def of_all(prefix: str) -> list[Session]:
            return [
                make_session(prefix + name, size, records=max(1, size // 2500))
                for name, size in zip(ids, sizes, strict=True)
            ]

        made = of_all("built-")
        for session in (*made, *of_all("")):
            await store.save(session)
        loaded = [await store.load(name) for name in ids]
        texts = [raw_read(os.path.join(place, f"{name}.json")) for name in ids]
        raw = [RawSave(place, f"raw-{number}") for number in range(tasks)]

        async def build_and_save(number: int) -> None:
            session = made[number]
            session.loops = type(session.loops)(list(session.loops))
            session.revision = None
            await store.save(session)

        def in_tasks(step: Callable[[int], Awaitable[Any]]) -> Work:
            async def loop_of(number: int, end: float) -> None:
                while perf_counter() < end:
                    await step(number)

            async def work() -> None:
                end = perf_counter() + seconds
                await asyncio.gather(*(loop_of(number, end) for number in range(tasks)))

            return work

        kinds: dict[str, Work] = {
            "untouched": in_tasks(lambda n: store.save(loaded[n])),
            "built": in_tasks(build_and_save),
            "raw in a hop": in_tasks(
                lambda n: wrap(lambda: raw[n](texts[n]))(executor=store._workers)
            ),
            "idle": lambda: asyncio.sleep(seconds),
            "busy thread": lambda: _busy(seconds),
        }
        gc.collect()
        for _ in range(repeats):
            for name in spread.sample(_KINDS, len(_KINDS)):
                async with Ticker() as ticker:
                    await kinds[name]()
                lags[name].append(ticker.lags)
    return [figure for name in _KINDS for figure in _lag_figures(name, tasks, lags[name])]


def _lag_figures(name: str, tasks: int, repeats: list[list[float]]) -> list[Figure]:
    # Those that only show the noise have no goal.
    is_store = name in ("untouched", "built")
    worst = [max(lags) * 1e3 for lags in repeats]
    p99 = [percentile(lags, 99) * 1e3 for lags in repeats]
    everything = [lag for lags in repeats for lag in lags]
    title = f"{tasks} tasks {name}" if is_store or name == "raw in a hop" else name
    return [
        Figure(
            name=f"{title}: lag p99",
            value=percentile(everything, 99) * 1e3,
            unit="ms",
            goal=2 if is_store else None,
            spread=middle_half(p99),
        ),
        Figure(
            name=f"{title}: lag max, median",
            value=median(worst),
            unit="ms",
            goal=5 if is_store else None,
            spread=middle_half(worst),
        ),
        Figure(
            name=f"{title}: lag max, largest",
            value=max(worst),
            unit="ms",
            goal=5 if is_store else None,
        ),
    ]


async def _busy(seconds: float) -> None:
    stop = threading.Event()

    def compute() -> None:
        number = 0
        while not stop.is_set():
            number += 1

    thread = threading.Thread(target=compute)
    thread.start()
    await asyncio.sleep(seconds)
    stop.set()
    thread.join()


async def _large_session(place: str, label: str, repeats: int, notes: list[str]) -> list[Figure]:
    size, records = SIZES[label]
    gaps: dict[str, list[float]] = {name: [] for name in ("untouched", "built", "load", "idle")}
    seconds: dict[str, list[float]] = {name: [] for name in (*gaps, "decode")}
    async with FileSystemSessionStore(place) as store:
        loops: list[LoopRecord] = list(make_session("built", size, records=records).loops)
        await store.save(make_session("large", size, records=records))
        untouched = await store.load("large")
        path = os.path.join(place, "large.json")
        rival, read = await fastest_read(raw_read(path), 3)
        notes.append(f"large session: {os.path.getsize(path):,} bytes; faster decoder: {rival}")
        kinds: dict[str, Work] = {
            "untouched": lambda: store.save(untouched),
            "built": lambda: store.save(Session("built", "agent-1", loops=loops)),
            "load": lambda: store.load("large"),
            "idle": lambda: asyncio.sleep(0.3),
        }
        order = random.Random(4)
        for _ in range(repeats):
            data = raw_read(path)
            gc.collect()
            begun = perf_counter()
            whole = read(data)
            seconds["decode"].append(perf_counter() - begun)
            del whole, data
            for name in order.sample(list(kinds), len(kinds)):
                gc.collect()
                async with Ticker() as ticker:
                    begun = perf_counter()
                    result = await kinds[name]()
                    seconds[name].append(perf_counter() - begun)
                gaps[name].append(max(ticker.gaps))
                del result
    figures: list[Figure] = []
    for name in ("untouched", "built"):
        figures += _gap_figures(f"{label} save {name}", gaps[name], 12)
    figures += _gap_figures(f"{label} load", gaps["load"], None)
    figures += _gap_figures("idle", gaps["idle"], None)
    shares = [gap / whole for gap, whole in zip(gaps["load"], seconds["decode"], strict=True)]
    figures.append(
        Figure(
            name=f"{label} load: longest gap / one typed decode",
            value=median(shares),
            goal=0.15,
            spread=middle_half(shares),
        )
    )
    for name in ("decode", "untouched", "built", "load"):
        times = [value * 1e3 for value in seconds[name]]
        title = f"{label} one typed decode" if name == "decode" else f"{label} {name}: whole call"
        figures.append(
            Figure(name=title, value=median(times), unit="ms", spread=middle_half(times))
        )
    return figures


def _gap_figures(name: str, gaps: list[float], goal: float | None) -> list[Figure]:
    millis = [gap * 1e3 for gap in gaps]
    return [
        Figure(
            name=f"{name}: longest gap, median",
            value=median(millis),
            unit="ms",
            goal=goal,
            spread=middle_half(millis),
        ),
        Figure(name=f"{name}: longest gap, largest", value=max(millis), unit="ms", goal=goal),
    ]
