"""Several processes at once on one place."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from ...errors import SessionConflictError, SessionExistsError, SessionLockedError
from ...lease import SupportsLease
from ...model import Session
from ...promise import Promise
from ...store import Expect
from .. import samples
from ..check import check
from ..children import Child, Line, children
from ..claims import broken, must, must_equal, must_raise
from ..elsewhere import together
from ..trial import OpenStore, Trial, opened
from .leasing import is_held

_SHARED = {Promise.PROCESSES}


async def _results(started: list[Child]) -> list[Any]:
    for child in started:
        child.go()
    return await together(*(child.result() for child in started))


async def _update(line: Line, open_store: OpenStore, name: str, agent: str, rounds: int) -> None:
    def change(session: Session) -> None:
        session.metadata["n"] = session.metadata.get("n", 0) + 1

    async with await opened(open_store) as store:
        await line.ready()
        for _ in range(rounds):
            await store.update(name, change, create=lambda: Session(name, agent))


@check(needs=_SHARED, processes=True)
async def updates_of_many_processes_are_all_kept(trial: Trial) -> None:
    """Many processes that update one session at once, which the first creates, lose no change."""
    name, count, rounds = trial.new_id(), trial.scale.processes, trial.scale.rounds
    each = [(name, trial.agent, rounds)] * count
    async with children(trial, _update, each) as started:
        await _results(started)
    stored = await trial.store.load(name)
    must_equal(stored.metadata, {"n": count * rounds}, "the number of updates that were kept")


async def _append(line: Line, open_store: OpenStore, name: str, first: int, rounds: int) -> Any:
    async with await opened(open_store) as store:
        await line.ready()
        return [
            await store.append(name, samples.a_loop(name, first + n, text="x" * (n % 3 * 1_000)))
            for n in range(rounds)
        ]


@check(needs=_SHARED, processes=True)
async def appends_of_many_processes_are_all_kept(trial: Trial) -> None:
    """Appends of many processes to one session are all kept, each once, each process's in order."""
    count, rounds = max(2, trial.scale.processes // 2), trial.scale.rounds * 2
    session = trial.a_session(loops=0)
    name = session.session_id
    await trial.store.save(session)
    each = [(name, n * rounds, rounds) for n in range(count)]
    async with children(trial, _append, each) as started:
        revisions = sum(await _results(started), list[str]())
    stored = await trial.store.load(name)
    numbers = [loop.metadata["number"] for loop in stored.loops]
    must_equal(sorted(numbers), list(range(count * rounds)), "the loops that were kept")
    must_equal(len(set(revisions)), count * rounds, "the number of different revisions")
    for n in range(count):
        own = [number for number in numbers if number // rounds == n]
        must_equal(own, sorted(own), "the order of one process's loops")


async def _create(line: Line, open_store: OpenStore, names: list[str], agent: str) -> list[bool]:
    """Create the sessions, and save each a second time; tell which were made here."""
    made: list[bool] = []
    async with await opened(open_store) as store:
        await line.ready()
        for name in names:
            session = samples.a_session(name, agent)
            try:
                await store.save(session, expect=Expect.ABSENT)
            except SessionExistsError:
                made.append(False)
            else:
                made.append(True)
    return made


@check(needs=_SHARED, processes=True)
async def of_many_processes_one_creates(trial: Trial) -> None:
    """Of processes that create the same sessions with `Expect.ABSENT`, one makes each of them."""
    names = trial.new_ids(trial.scale.rounds)
    each = [(names, trial.agent)] * 2
    async with children(trial, _create, each) as started:
        made = await _results(started)
    for name, by in zip(names, zip(*made, strict=True), strict=True):
        must_equal(sum(by), 1, f"the number of processes that made {name!r}")
    must_equal(set(await trial.listed()), set(names), "the listed ids")


async def _answer(line: Line, open_store: OpenStore, name: str, rounds: int) -> None:
    """Make the next even state of each odd one of the session, and delete the one after."""
    async with await opened(open_store) as store:
        await line.ready()
        for n in range(rounds + 1):
            session = await store.load(name)
            while session.metadata["n"] != 2 * n + 1:
                await asyncio.sleep(0.001)
                session = await store.load(name)
            if n == rounds:
                await store.delete(name)
            else:
                session.metadata["n"] += 1
                await store.save(session)
            line.say(session.revision)


@check(needs=_SHARED, processes=True)
async def processes_see_each_others_changes_at_once(trial: Trial) -> None:
    """What one process has saved or deleted another sees with its next call, and is stale then."""
    session = trial.a_session(metadata={"n": 0})
    name, rounds = session.session_id, trial.scale.rounds
    await trial.store.save(session)
    async with children(trial, _answer, [(name, rounds)]) as [child]:
        child.go()
        for n in range(rounds):
            session.metadata["n"] = 2 * n + 1
            await trial.store.save(session)
            revision = await child.said()
            with must_raise(SessionConflictError, "a save of what another process has changed"):
                await trial.store.save(session)
            session = await trial.store.load(name)
            must_equal(session.revision, revision, "the revision that another process saved")
            must_equal(session.metadata, {"n": 2 * n + 2}, "what another process saved")
        session.metadata["n"] += 1
        await trial.store.save(session)
        await child.said()
        must_equal(await trial.store.find(name), None, "what another process has deleted")
        must_equal(await trial.listed(), [], "the listed ids after another's delete")


async def _hold(line: Line, open_store: OpenStore, name: str) -> None:
    async with await opened(open_store) as store:
        async with cast("SupportsLease", store).lease(name, owner="the other process") as lease:
            await line.ready()
            line.say(lease)
            await asyncio.sleep(3600)


@check(needs=_SHARED, leases=True, processes=True)
async def the_lease_of_a_killed_process_is_free(trial: Trial) -> None:
    """A lease keeps other processes out, tells its holder, and is free when that one is killed."""
    name = trial.new_id()
    async with children(trial, _hold, [(name,)]) as [child]:
        child.go()
        lease = await child.said()
        with must_raise(SessionLockedError, "a lease that another process holds") as refusal:
            async with trial.leases.lease(name):
                broken("a session has two holders, in two processes")
        must_equal(refusal.error.holder, lease, "the holder that the error tells")
        must(await is_held(trial.leases, name), "a lease is free while its holder lives")
        await child.killed()
        limit = trial.scale.lease_expiry
        try:
            async with trial.leases.lease(name, timeout=limit):
                pass
        except SessionLockedError as error:
            broken(f"{limit:g} s after its holder was killed a lease is not free: {error}")
    must(not await is_held(trial.leases, name), "a lease that was left is held")
