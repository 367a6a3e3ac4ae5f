"""Event loops: never blocked, and several of them on one store."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from ...errors import SessionTaskError
from ...lease import SupportsLease
from ...store import Expect, SessionStore
from .. import samples
from ..blocking_calls import blocking_calls_noted
from ..check import check
from ..claims import broken, must, must_equal, must_raise
from ..elsewhere import in_thread, together
from ..loop_watch import loop_watched
from ..trial import Trial, opened

T = TypeVar("T")


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def _every_call(trial: Trial, store: SessionStore) -> None:
    """Make each kind of call once, on a small session."""
    session = trial.a_session(loops=2)
    name = session.session_id
    await store.save(session)
    await store.append(name, samples.a_loop(name, 2))
    await store.append(await store.load(name), samples.a_loop(name, 3))
    await store.update(name, lambda found: found.metadata.update(n=1))
    await store.find(name)
    await store.exists(name)
    await store.list_ids()
    await store.list_for_agent(trial.agent)
    must([info async for info in store.infos(agent_id=trial.agent)], "an agent has no cards")
    if isinstance(store, SupportsLease):
        async with store.lease(name):
            pass
    await store.delete(name)


@check()
async def no_blocking_call_is_made_on_the_loop(trial: Trial) -> None:
    """The event loop's thread opens no file, never sleeps, waits for no disk, socket or lock."""
    await _every_call(trial, trial.store)  # imports and first connections are made
    with blocking_calls_noted() as noted:
        for _ in range(3):
            await _every_call(trial, trial.store)
    if noted:
        kinds = list(dict.fromkeys(noted))
        told = "\n".join(kinds[:3])
        broken(f"{len(noted)} blocking calls on the event loop's thread, the first are {told}")


@check()
async def the_event_loop_never_stands_still(trial: Trial) -> None:
    """While many tasks work with small sessions, the event loop goes round all the time."""
    await _every_call(trial, trial.store)
    async with loop_watched(trial.scale.stall) as watch:
        for _ in range(2):
            await together(*(_every_call(trial, trial.store) for _ in range(trial.scale.tasks)))
    if watch.stalls:
        broken(f"the event loop stood still {len(watch.stalls)} times: {watch.stalls[0]}")


@check()
async def event_loops_in_two_threads_share_a_store(trial: Trial) -> None:
    """One store object serves two event loops in two threads at once, and nothing is lost."""
    store, rounds = trial.store, trial.scale.rounds
    name = trial.new_id()
    await store.save(trial.a_session(name, loops=0, metadata={"n": 0}))

    async def work(who: int) -> None:
        own = trial.a_session(loops=1)
        for n in range(rounds):
            await store.append(name, samples.a_loop(name, who * rounds + n))
            await store.update(name, lambda found: found.metadata.update(n=found.metadata["n"] + 1))
            await store.save(own)
            must((await store.load(own.session_id)).revision == own.revision, "a save was lost")
            must(own.session_id in await store.list_ids(), "a saved session is not listed")

    await together(work(0), in_thread(_run, work(1)), in_thread(_run, work(2)))
    stored = await store.load(name)
    must_equal(stored.metadata, {"n": 3 * rounds}, "the number of updates that were kept")
    kept = sorted(loop.metadata["number"] for loop in stored.loops)
    must_equal(kept, list(range(3 * rounds)), "the appends that were kept")


@check()
async def two_runs_share_a_store(trial: Trial) -> None:
    """A store object outlives an event loop: it works in one `asyncio.run` after another."""
    name = trial.new_id()

    async def crowd(store: SessionStore, n: int) -> None:
        """Make calls that have to wait for each other, on a session that all runs share."""
        loops = [samples.a_loop(name, 4 * n + k) for k in range(4)]
        await together(*(store.append(name, loop) for loop in loops))
        await together(*(store.update(name, lambda s: s.metadata.update(n=n)) for _ in range(4)))
        fleeting = trial.new_id()
        saves = (store.save(trial.a_session(fleeting), expect=Expect.ANYTHING) for _ in range(4))
        await together(*saves)
        await _every_call(trial, store)
        stored = await store.load(name)
        must_equal((len(stored.loops), stored.metadata), (4 * n + 4, {"n": n}), "what is stored")

    async def begin() -> SessionStore:
        store = await opened(trial.open_store)
        await store.save(trial.a_session(name, loops=0))
        await crowd(store, 0)
        return store

    async def end(store: SessionStore) -> None:
        must_equal(len((await store.load(name)).loops), 16, "the number of loops")
        await store.aclose()
        with must_raise(SessionTaskError, "a call after the store was closed"):
            await store.load(name)

    def run_after_run() -> None:
        store = asyncio.run(begin())
        for n in range(1, 4):
            asyncio.run(crowd(store, n))
        asyncio.run(end(store))

    await in_thread(run_after_run)


@check()
async def a_run_that_is_left_in_the_middle_does_not_hinder_the_next(trial: Trial) -> None:
    """An event loop that ends while calls are under way leaves the store fit for the next one."""
    name = trial.new_id()

    async def leave() -> None:
        for n in range(trial.scale.tasks * 2):
            session = trial.a_session(name, metadata={"n": n})
            kept.append(asyncio.create_task(trial.store.save(session)))
        await asyncio.sleep(0.001)

    kept: list[asyncio.Task[Any]] = []
    await trial.store.save(trial.a_session(name))
    for _ in range(3):
        await in_thread(lambda: asyncio.run(leave()))  # its tasks are cancelled
    async with trial.promptly("a save after event loops that were left"):
        session = trial.a_session(name, metadata={"n": "last"})
        await trial.store.save(session)
        stored = await trial.store.load(name)
    must_equal(stored.metadata, {"n": "last"}, "the metadata that is stored")
    must_equal(stored.revision, session.revision, "the stored revision")
