"""`load` against one read and one typed decode inline.

- Floor: open, fstat, one read, close; `msgspec.json.decode` of the whole file into plain structs,
  by the faster of the two rivals in `plain` (the notes name it); and one empty hop to the store's
  own threads. Read and decode are timed together, the hop apart; the medians are added up.
- The store checks each record when it loads and builds it when it is looked at. `load, look at
  all` is a load after which every record was looked at: the same amount of Python objects as the
  floor's. It has no goal.
"""

from __future__ import annotations

import os
from typing import Any

from phi_sessions import FileSystemSessionStore

from .data import SIZES, make_session
from .floors import empty_hop, raw_read
from .measure import Contestant, alternate
from .plain import fastest_read
from .report import Figure, compare

__all__ = ["measure"]

_ROUNDS = {"2 KB": 1000, "20 KB": 800, "200 KB": 300, "2 MB": 60}


async def measure(directory: str, *, quick: bool) -> tuple[list[Figure], list[str]]:
    place = os.path.join(directory, "load")
    figures: list[Figure] = []
    notes: list[str] = []
    async with FileSystemSessionStore(place) as store:
        for label, rounds in _ROUNDS.items():
            figures += await _one_size(store, place, label, 5 if quick else rounds, notes)
    return figures, notes


async def _one_size(
    store: FileSystemSessionStore, place: str, label: str, rounds: int, notes: list[str]
) -> list[Figure]:
    size, records = SIZES[label]
    session_id = label.replace(" ", "-")
    await store.save(make_session(session_id, size, records=records))
    path = os.path.join(place, f"{session_id}.json")
    data = raw_read(path)
    rival, read = await fastest_read(data, 5 if rounds < 10 else 25)
    notes.append(f"{label}: {len(data):,} bytes, {records} records; faster decoder: {rival}")

    async def load_and_look() -> Any:
        session = await store.load(session_id)
        return session, list(session.loops)

    samples = await alternate(
        {
            "load": Contestant(lambda: store.load(session_id)),
            "load, look at all": Contestant(load_and_look),
            "read + decode": Contestant(lambda: read(raw_read(path))),
            "hop": Contestant(lambda: empty_hop(store)),
        },
        rounds,
    )
    floor = ["read + decode", "hop"]
    name = f"{label} load"
    return [
        compare(f"{name} / (read + decode + hop)", samples, "load", floor, goal=1.2),
        compare(f"{name}, look at all / (same)", samples, "load, look at all", floor),
    ]
