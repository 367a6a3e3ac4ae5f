"""Listings against one inline pass over the directory.

- Floor of `list_ids`: `os.scandir`, for each `.json` a status by `DirEntry.stat`, and one sort by
  time, then name, inline in one thread. It meets the lock files as well, as the store does.
- `list_for_agent` and `infos` are held against `list_ids` of the same run: once with an agent that
  has ten sessions in the whole directory, once (`infos` only) with no filter, which reads the head
  of every file. The directory is touched before each, so that nothing is known of it. `read
  prefixes` tells what opening, reading 512 bytes and closing each file costs inline: a floor for
  whatever must look into every file.
- `again` is a listing of a directory in which no file came, went or was replaced since the last
  one, against `os.scandir` alone, which only gathers the names.
- Lag is by how much a task that wants to run each millisecond comes too late meanwhile: the worst
  of each listing, and of these the median. The machine's own noise is in it.
- The directory holds 100,000 sessions of about 2 KB with their lock files, written directly in the
  store's layout (a session saved by the store, its ids replaced), and is in the system's caches.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from statistics import median
from typing import Any

from phi_sessions import FileSystemSessionStore

from .data import SIZES, make_session
from .floors import raw_read
from .measure import Contestant, Samples, alternate, middle_half
from .report import Figure, compare
from .ticker import Ticker

__all__ = ["measure"]

_SESSIONS = 100_000
_QUICK_SESSIONS = 2_000
_ROUNDS = 7
_RARE = 10
_AGENTS = 20
_QUIET = 4.0
"""Seconds after which a directory that stayed as it is counts as unchanged."""


async def measure(directory: str, *, quick: bool) -> tuple[list[Figure], list[str]]:
    count = _QUICK_SESSIONS if quick else _SESSIONS
    place = os.path.join(directory, "list")
    async with FileSystemSessionStore(place) as store:
        await _fill(store, place, count)
        rounds = 2 if quick else _ROUNDS
        samples = await _time(store, place, rounds)
        lags = [await _lag(store, place, name, rounds) for name in _LISTINGS]
        again = await _time_again(store, place, rounds)
    notes = [f"{count:,} sessions, {_RARE} of them the rare agent's, files in the caches"]
    return _figures(samples) + _figures_again(again) + lags, notes


async def _fill(store: FileSystemSessionStore, place: str, count: int) -> None:
    """Write `count` sessions as the store lays them out."""
    name, rare = "session-0000000", "agent-rare"
    size, records = SIZES["2 KB"]
    template = make_session(name, size, records=records)
    await store.save(template)
    parts = raw_read(os.path.join(place, f"{name}.json"))
    for number in range(count):
        agent = rare if number % (count // _RARE) == 7 else f"agent-{number % _AGENTS:04d}"
        session_id = f"session-{number:07d}"
        text = parts.replace(name.encode(), session_id.encode())
        text = text.replace(template.agent_id.encode(), agent.encode())
        path = os.path.join(place, f"{session_id}.json")
        for target, content in ((path, text), (f"{path}.lock", b"")):
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.write(fd, content)
            os.close(fd)


async def _infos(store: FileSystemSessionStore, agent_id: str | None) -> int:
    return sum([1 async for _ in store.infos(agent_id=agent_id)])  # none is kept


_LISTINGS: dict[str, Callable[[FileSystemSessionStore], Awaitable[Any]]] = {
    "list_for_agent": lambda store: store.list_for_agent("agent-rare"),
    "infos of one agent": lambda store: _infos(store, "agent-rare"),
    "infos of all": lambda store: _infos(store, None),
}

_BY_AGENT = ["list_for_agent", "infos of one agent"]


async def _time(store: FileSystemSessionStore, place: str, rounds: int) -> Samples:
    assert await store.list_ids() == _scan_stat_sort(place)
    assert await _infos(store, "agent-rare") == _RARE
    touch = partial(_touch, place)
    listings = {name: Contestant(partial(call, store), touch) for name, call in _LISTINGS.items()}
    return await alternate(
        {
            "list_ids": Contestant(store.list_ids),
            **listings,
            "scandir + stat + sort": Contestant(lambda: _scan_stat_sort(place)),
            "read prefixes": Contestant(lambda: _read_prefixes(place)),
        },
        rounds,
        warm_up=1,
    )


async def _time_again(store: FileSystemSessionStore, place: str, rounds: int) -> Samples:
    await asyncio.sleep(_QUIET)
    return await alternate(
        {
            **{name: Contestant(partial(_LISTINGS[name], store)) for name in _BY_AGENT},
            "scandir": Contestant(lambda: _scan(place)),
        },
        rounds,
        warm_up=1,
    )


async def _lag(store: FileSystemSessionStore, place: str, name: str, rounds: int) -> Figure:
    worst: list[float] = []
    for _ in range(rounds):
        _touch(place)
        async with Ticker() as ticker:
            await _LISTINGS[name](store)
        worst.append(max(ticker.lags) * 1e3)
    return Figure(
        name=f"{name}: lag max, median",
        value=median(worst),
        unit="ms",
        goal=15,
        spread=middle_half(worst),
    )


def _touch(place: str) -> None:
    """Have the directory look as if something in it had changed a second ago."""
    moment = time.time() - 1
    os.utime(place, (moment, moment))


def _scan(place: str) -> list[str]:
    with os.scandir(place) as entries:
        return [entry.name for entry in entries]


def _scan_stat_sort(place: str) -> list[str]:
    with os.scandir(place) as entries:
        found = [
            (-entry.stat(follow_symlinks=False).st_mtime_ns, entry.name[:-5])
            for entry in entries
            if entry.name.endswith(".json")
        ]
    found.sort()
    return [name for _, name in found]


def _read_prefixes(place: str) -> None:
    with os.scandir(place) as entries:
        paths = [entry.path for entry in entries if entry.name.endswith(".json")]
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.read(fd, 512)
        os.close(fd)


def _figures(samples: Samples) -> list[Figure]:
    floor = ["scandir + stat + sort"]
    prefixes = "read prefixes"
    return [
        compare("list_ids / (scandir + stat + sort)", samples, "list_ids", floor, goal=1.25),
        *(compare(f"{n} / list_ids", samples, n, ["list_ids"], goal=1.2) for n in _LISTINGS),
        *(compare(f"{n} / {prefixes}", samples, n, [prefixes]) for n in _LISTINGS),
        compare(f"{prefixes} / list_ids", samples, prefixes, ["list_ids"]),
    ]


def _figures_again(samples: Samples) -> list[Figure]:
    floor = ["scandir"]
    return [compare(f"{n} again / scandir", samples, n, floor, goal=0.6) for n in _BY_AGENT]
