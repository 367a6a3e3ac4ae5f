"""Many processes change one session by `update` and by `append`.

- 8 processes call `update` on one session of 20 KB as fast as they can, in rounds of a fixed time
  that all begin together; each call counts one up in the session's metadata. A wait is the whole
  call, with every attempt at it. Then the same with `append` of a record of about 200 bytes to a
  session of its own.
- What was acknowledged is held against what is stored in the end: the difference should be none,
  and so should errors of any kind.
- Rounds alternate with those of the floor: read the file and replace it by `floors.RawSave`, under
  a flock(2) that waits in the kernel's queue.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count
from multiprocessing.synchronize import Barrier
from statistics import median
from time import perf_counter
from typing import Any

import msgspec

from phi_sessions import FileSystemSessionStore, LoopRecord, Session

from .data import SIZES, make_session
from .floors import RawSave, raw_read
from .measure import middle_half, percentile
from .race import PATIENCE, race
from .report import Figure

__all__ = ["measure"]

_PROCESSES = 8
_ROUNDS = 6
_SECONDS = 2.0
_KINDS = ("update", "append")
_RAW = "raw"


class _Result(msgspec.Struct):
    """What one process saw: the waits of each round, by what it did in them."""

    waits: dict[str, list[list[float]]]
    errors: dict[str, Counter[str]]


async def measure(directory: str, *, quick: bool) -> tuple[list[Figure], list[str]]:
    place = os.path.join(directory, "update")
    processes, rounds, seconds = (3, 1, 0.2) if quick else (_PROCESSES, _ROUNDS, _SECONDS)
    size, records = SIZES["20 KB"]
    async with FileSystemSessionStore(place) as store:
        for name in (*_KINDS, _RAW):
            session = make_session(name, size, records=records)
            session.metadata["count"] = 0
            await store.save(session)
        each = [(place, me, rounds, seconds) for me in range(processes)]
        results = await asyncio.to_thread(race, _rounds, each, 3 * rounds * seconds)
        kept = {
            "update": (await store.load("update")).metadata["count"],
            "append": len((await store.load("append")).loops) - records,
        }
    figures = [figure for kind in _KINDS for figure in _kind(kind, results, seconds, kept[kind])]
    figures.append(_rate(_RAW, f"{processes} processes, raw saves", results, seconds))
    return figures, [f"processes: {processes}, rounds of {seconds} s"]


def count_up(session: Session) -> None:
    session.metadata["count"] += 1


async def _rounds(place: str, me: int, rounds: int, seconds: float, barrier: Barrier) -> _Result:
    result = _Result({}, {})
    raw, numbers = RawSave(place, f"{_RAW}.json"), count()
    async with FileSystemSessionStore(place) as store:

        async def append() -> None:
            await store.append("append", LoopRecord(f"{me}.{next(numbers)}", "append", "agent-1"))

        async def replace() -> None:
            raw(raw_read(raw.path))

        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "update": lambda: store.update("update", count_up),
            "append": append,
            _RAW: replace,
        }
        for _ in range(rounds):
            for kind, call in calls.items():
                errors = result.errors.setdefault(kind, Counter())
                await asyncio.to_thread(barrier.wait, PATIENCE)
                waits = await _as_fast_as_it_can(call, seconds, errors)
                result.waits.setdefault(kind, []).append(waits)
    return result


async def _as_fast_as_it_can(
    call: Callable[[], Awaitable[Any]], seconds: float, errors: Counter[str]
) -> list[float]:
    """Return how long each of the calls took that went well."""
    waits: list[float] = []
    end = perf_counter() + seconds
    while (begun := perf_counter()) < end:
        try:
            await call()
        except Exception as error:  # noqa: BLE001 - each is counted
            errors[type(error).__name__] += 1
        else:
            waits.append(perf_counter() - begun)
    return waits


def _kind(kind: str, results: list[_Result], seconds: float, kept: int) -> list[Figure]:
    title = f"{len(results)} processes, {kind}"
    errors = sum((one.errors[kind] for one in results), Counter[str]())
    each = [[wait * 1e3 for waits in one.waits[kind] for wait in waits] for one in results]
    waits = [wait for one in each for wait in one]
    counts = [len(one) for one in each]
    return [
        Figure(
            name=f"{title}: errors {dict(errors) or ''}".rstrip(),
            value=errors.total(),
            unit="errors",
            goal=0,
        ),
        Figure(
            name=f"{title}: acknowledged and not kept",
            value=abs(len(waits) - kept),
            unit="errors",
            goal=0,
        ),
        Figure(name=f"{title}: wait p99", value=percentile(waits, 99), unit="ms", goal=100),
        Figure(name=f"{title}: wait p50", value=percentile(waits, 50), unit="ms"),
        Figure(name=f"{title}: wait p100", value=max(waits), unit="ms"),
        _rate(kind, title, results, seconds),
        Figure(name=f"{title}: fewest calls / median process", value=min(counts) / median(counts)),
        _against_raw(kind, title, results),
    ]


def _rate(kind: str, title: str, results: list[_Result], seconds: float) -> Figure:
    rates = [calls / seconds for calls in _calls(kind, results)]
    return Figure(name=title, value=median(rates), unit="calls/s", spread=middle_half(rates))


def _against_raw(kind: str, title: str, results: list[_Result]) -> Figure:
    pairs = zip(_calls(kind, results), _calls(_RAW, results), strict=True)
    ratios = [calls / raw for calls, raw in pairs]
    return Figure(
        name=f"{title}: calls / raw reads and saves",
        value=median(ratios),
        spread=middle_half(ratios),
    )


def _calls(kind: str, results: list[_Result]) -> list[int]:
    """Return how many calls all processes made in each round."""
    rounds = zip(*(one.waits[kind] for one in results), strict=True)
    return [sum(map(len, waits)) for waits in rounds]
