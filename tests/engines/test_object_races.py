"""Saves, appends, deletes and loads at once, with answers lost: what was answered makes sense."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import scaled
from object_proxy import Act, Proxy, proxy_to
from object_samples import a_session
from s3_server import BUCKET

from phi_sessions import Expect, SessionExistsError, SessionIOError, SessionStore
from phi_sessions.stores.object import ObjectSessionStore, open_url

sys.path.append(
    str(Path(__file__).parents[1] / "linearizability")
)  # whose checker judges here, too

from lin_checker import unexplained
from lin_history import ID, Operation, Recorder, Worker, read_history

if TYPE_CHECKING:
    from benchmarks.servers.s3 import S3Server

WORKERS = 6
CALLS = 25


class Enduring(Worker):
    """One that goes on after errors of the storage, of which the calls may have been made."""

    async def _one(self) -> None:
        with suppress(SessionIOError):
            await super()._one()


async def _history(
    places: list[SessionStore], directory: Path, cancels: float, seed: int
) -> list[Operation]:
    """Let workers call the stores, and return what they asked and were answered."""
    recorders = [Recorder(str(directory / f"{n}.history")) for n in range(WORKERS)]
    workers = [
        Enduring(places[n % len(places)], recorder, f"w{n}", random.Random(f"{seed} {n}"))
        for n, recorder in enumerate(recorders)
    ]
    await asyncio.gather(*(worker.run(CALLS, cancels=cancels) for worker in workers))
    history: list[Operation] = []
    for n, recorder in enumerate(recorders):
        recorder.close()
        history += read_history(str(directory / f"{n}.history"), time.monotonic_ns())
    return history


async def _last_load(store: SessionStore) -> Operation:
    began = time.monotonic_ns()
    session = await store.find(ID)
    found = None if session is None else ["ok", session.revision, session.loops.ids()]  # type: ignore[attr-defined]
    return Operation("load", None, found or ["absent"], began, time.monotonic_ns())


@pytest.mark.parametrize("cancels", [0.0, 0.2])
async def test_histories_of_several_stores_make_sense(
    s3_server: S3Server, s3_prefix: str, tmp_path: Path, cancels: float
) -> None:
    for seed in range(scaled(2)):
        url = s3_server.url(BUCKET, f"{s3_prefix}/{seed}")
        (directory := tmp_path / str(seed)).mkdir()
        async with AsyncExitStack() as stack:
            stores = [await stack.enter_async_context(open_url(url)) for _ in range(3)]
            history = await _history([*stores], directory, cancels, seed)
            history.append(await _last_load(stores[0]))
        assert unexplained(history) == []
        kinds = {(call.kind, call.result and call.result[0]) for call in history}
        assert {("append", "ok"), ("load", "ok"), ("save", "ok")} <= kinds


async def test_histories_with_lost_answers_make_sense(
    s3_server: S3Server, s3_prefix: str, tmp_path: Path
) -> None:
    for seed in range(scaled(2)):
        chance = random.Random(seed)
        losses = 0

        def rule(method: str, path: str, chance: random.Random = chance) -> Act:
            nonlocal losses
            if chance.random() > 0.1:
                return Act.PASS
            losses += 1
            return chance.choice([Act.LOSE_ANSWER, Act.LOSE_REQUEST, Act.FAIL, Act.TURN_DOWN])

        (directory := tmp_path / str(seed)).mkdir()
        async with proxy_to(s3_server.port) as proxy, AsyncExitStack() as stack:
            url = s3_server.url(BUCKET, f"{s3_prefix}/{seed}", endpoint=proxy.endpoint)
            stores = [await stack.enter_async_context(open_url(url, timeout=5)) for _ in range(3)]
            proxy.rule = rule
            history = await _history([*stores], directory, 0.0, seed)
            _stop_losing(proxy)
            history.append(await _last_load(stores[0]))
        assert unexplained(history) == []
        assert losses > 20
        # Nearly every lost answer was found again.
        assert sum(call.result is None for call in history) <= losses // 4


def _stop_losing(proxy: Proxy) -> None:
    proxy.rule = lambda method, path: Act.PASS


async def test_whoever_creates_after_a_delete_is_one(s3_url: str) -> None:
    async def create(store: ObjectSessionStore, n: int) -> bool:
        try:
            await store.save(a_session(metadata={"by": n}), expect=Expect.ABSENT)
        except SessionExistsError:
            return False
        return True

    async with open_url(s3_url) as one, open_url(s3_url) as two:
        for _ in range(scaled(10)):
            made = await asyncio.gather(*(create((one, two)[n % 2], n) for n in range(6)))
            assert made.count(True) == 1
            assert (await one.load("s-1")).metadata == {"by": made.index(True)}
            await two.delete("s-1")
