"""What one turn costs while a session grows from turn 10 to turn 10,000: time, and bytes written.

- `append`: each turn is one `append` to the session by its id. `held append`: the same, given the
  session object of a holder who never loads again.
- `holder`: each turn adds a loop record at the end of a session object and saves that; the object
  is loaded anew for each run of 100 turns, outside the time.
- `one holder`: the same, up to turn 2,000, by one object that is never loaded again. All records
  that were added to it are live objects, which each save has to encode to see whether they changed.
- Turns are loop records of about 1 KB. Bytes are all that the process wrote, as the kernel counts
  them (`wchar` of /proc/self/io): the times when the tail is taken into the session file are among
  them. `kept` is what all records take; `whole file each turn` is what a store would write that
  replaces the file with each turn, by arithmetic.
- The first and the last turns are compared by their medians; the mean is of all turns.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from random import Random
from statistics import mean
from time import perf_counter_ns
from typing import Any

from phi_sessions import FileSystemSessionStore, LoopRecord, Session

from .data import agent_of, make_record, make_session
from .measure import percentile
from .report import Figure

__all__ = ["measure"]

_TURNS = 10_000
_HELD_TURNS = 2_000
_RUN = 100
_FIRST = 10
_TURN_BYTES = 1_060
_WINDOW = 100
_MEGABYTES = 40.0


async def measure(directory: str, *, quick: bool) -> tuple[list[Figure], list[str]]:
    place = os.path.join(directory, "growth")
    turns, held_turns, window = (150, 60, 20) if quick else (_TURNS, _HELD_TURNS, _WINDOW)
    notes: list[str] = []
    figures: list[Figure] = []
    held: dict[str, Session] = {}
    async with FileSystemSessionStore(place) as store:
        for name in ("append", "held append", "holder", "one holder"):
            await store.save(make_session(name, _FIRST * _TURN_BYTES, records=_FIRST))
            held[name] = await store.load(name)

        async def append(name: str, record: LoopRecord) -> None:
            await store.append(name, record)

        async def held_append(name: str, record: LoopRecord) -> None:
            await store.append(held[name], record)

        async def save(name: str, record: LoopRecord) -> None:
            held[name].loops.append(record)
            await store.save(held[name])

        async def load(name: str) -> None:
            held[name] = await store.load(name)

        figures += await _grow("append", append, turns, window)
        figures += await _grow("held append", held_append, turns, window)
        figures += await _grow("holder", save, turns, window, before_a_run=load)
        figures += await _grow("one holder", save, held_turns, window)
        stored = [(name, len((await store.load(name)).loops)) for name in held]
    notes += [f"{name}: {found:,} turns are stored" for name, found in stored]
    if _bytes_written() is None:
        notes.append("bytes were not counted: there is no /proc/self/io")
    return figures, notes


async def _grow(
    name: str,
    add: Callable[[str, LoopRecord], Awaitable[Any]],
    turns: int,
    window: int,
    *,
    before_a_run: Callable[[str], Awaitable[None]] | None = None,
) -> list[Figure]:
    random = Random(17)
    times: list[int] = []
    before = _bytes_written()
    for number in range(_FIRST, turns):
        record = make_record(random, name, agent_of(1), number, _TURN_BYTES)
        if before_a_run is not None and number % _RUN == 0:
            await before_a_run(name)
        begun = perf_counter_ns()
        await add(name, record)
        times.append(perf_counter_ns() - begun)
    after = _bytes_written()
    first, last = percentile(times[:window], 50) / 1e3, percentile(times[-window:], 50) / 1e3
    figures = [
        Figure(name=f"{name}: last {window} turns / first {window}", value=last / first),
        Figure(name=f"{name}: p50 of the first {window}", value=first, unit="us"),
        Figure(name=f"{name}: p50 of the last {window}", value=last, unit="us"),
        Figure(name=f"{name}: mean of all {turns:,}", value=mean(times) / 1e3, unit="us"),
        Figure(name=f"{name}: longest", value=max(times) / 1e6, unit="ms"),
    ]
    if before is None or after is None:
        return figures
    whole = sum(range(_FIRST, turns)) * _TURN_BYTES
    figures += [
        Figure(
            name=f"{name}: written over {turns:,} turns",
            value=(after - before) / 1e6,
            unit="MB",
            goal=_MEGABYTES,
        ),
        Figure(name=f"{name}: kept", value=turns * _TURN_BYTES / 1e6, unit="MB"),
        Figure(name=f"{name}: whole file each turn", value=whole / 1e6, unit="MB"),
        Figure(name=f"{name}: written / kept", value=(after - before) / (turns * _TURN_BYTES)),
    ]
    return figures


def _bytes_written() -> int | None:
    """Return how many bytes this process has written."""
    try:
        with open("/proc/self/io") as file:
            return int(dict(line.split(": ") for line in file)["wchar"])
    except FileNotFoundError:
        return None
