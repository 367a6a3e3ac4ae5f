"""Many tasks at once, on one session and on many."""

from __future__ import annotations

import asyncio

from ...errors import SessionConflictError, SessionExistsError, SessionNotFoundError
from ...model import Session
from ...store import Expect
from .. import samples
from ..check import check
from ..claims import must, must_be_the_same, must_equal
from ..elsewhere import together
from ..trial import Trial


def _must_be_refused(results: list[object], expected: type[Exception], what: str) -> list[int]:
    """Say that all but one ended with this error; return the places of those that did not."""
    winners = [n for n, result in enumerate(results) if not isinstance(result, BaseException)]
    must_equal(len(winners), 1, f"how many of {len(results)} {what} succeeded")
    others = {type(result) for result in results if isinstance(result, BaseException)}
    must_equal(others, {expected}, f"how the other {what} ended")
    return winners


@check()
async def many_tasks_save_sessions_of_their_own(trial: Trial) -> None:
    """Saves and loads of many sessions at once keep each as it was saved."""
    sessions = [
        trial.a_session(loops=2, metadata={"n": n}) for n in range(trial.scale.sessions * 3)
    ]
    await together(*(trial.store.save(session) for session in sessions))
    names = [session.session_id for session in sessions]
    loaded = await together(*map(trial.store.load, names))
    for found, session in zip(loaded, sessions, strict=True):
        must_be_the_same(samples.plain(found), samples.plain(session), "a session")
    must_equal(sorted(await trial.listed()), sorted(names), "the listed ids")
    await together(*map(trial.store.delete, names))
    must_equal(await trial.listed(), [], "the listed ids after the deletes")


@check()
async def saves_of_one_session_take_effect_in_order(trial: Trial) -> None:
    """Of saves of one session that were begun one after another, the last to begin is stored."""
    name, count = trial.new_id(), trial.scale.tasks * 5
    sessions = [trial.a_session(name, metadata={"n": n}) for n in range(count)]
    saves = (trial.store.save(session, expect=Expect.ANYTHING) for session in sessions)
    revisions = await together(*saves)
    must_equal(len(set(revisions)), count, "the number of different revisions")
    stored = await trial.store.load(name)
    must_equal(stored.metadata, {"n": count - 1}, "the metadata that is stored")
    must_equal(stored.revision, revisions[-1], "the stored revision")


@check()
async def of_many_creators_one_succeeds(trial: Trial) -> None:
    """Of many tasks that create a session with `Expect.ABSENT` one does; the others are told."""
    name = trial.new_id()
    sessions = [trial.a_session(name, metadata={"n": n}) for n in range(trial.scale.tasks * 4)]
    saves = (trial.store.save(session, expect=Expect.ABSENT) for session in sessions)
    results = await asyncio.gather(*saves, return_exceptions=True)
    [winner] = _must_be_refused(list(results), SessionExistsError, "creations")
    stored = await trial.store.load(name)
    must_equal(stored.metadata, {"n": winner}, "the metadata that is stored")


@check()
async def of_many_holders_of_one_state_one_succeeds(trial: Trial) -> None:
    """Of many tasks that save what they loaded one does, and the others have a conflict."""
    session = trial.a_session()
    await trial.store.save(session)
    count = trial.scale.tasks * 4
    holders = [await trial.store.load(session.session_id) for _ in range(count)]
    for n, holder in enumerate(holders):
        holder.metadata["n"] = n
    results = await asyncio.gather(*map(trial.store.save, holders), return_exceptions=True)
    [winner] = _must_be_refused(list(results), SessionConflictError, "saves")
    stored = await trial.store.load(session.session_id)
    must_equal(stored.metadata, {"n": winner}, "the metadata that is stored")


@check()
async def of_many_deleters_one_succeeds(trial: Trial) -> None:
    """Of many tasks that delete a session one does, and the others find nothing."""
    session = trial.a_session()
    await trial.store.save(session)
    deletes = (trial.store.delete(session.session_id) for _ in range(trial.scale.tasks * 2))
    results = await asyncio.gather(*deletes, return_exceptions=True)
    _must_be_refused(list(results), SessionNotFoundError, "deletes")
    must_equal(await trial.listed(), [], "the listed ids")


@check()
async def no_addition_is_lost_by_those_who_try_again(trial: Trial) -> None:
    """Tasks that load, add, save and start again on a conflict lose nothing of what they add."""
    session = trial.a_session(loops=0)
    name, rounds = session.session_id, trial.scale.rounds
    await trial.store.save(session)

    async def add(number: int) -> None:
        while True:
            mine = await trial.store.load(name)
            mine.loops.append(samples.a_loop(name, number))
            try:
                await trial.store.save(mine)
            except SessionConflictError:
                continue
            return

    async def work(task: int) -> None:
        for n in range(rounds):
            await add(task * rounds + n)

    await together(*map(work, range(trial.scale.tasks)))
    stored = await trial.store.load(name)
    kept = sorted(loop.metadata["number"] for loop in stored.loops)
    must_equal(kept, list(range(trial.scale.tasks * rounds)), "the additions that were kept")


@check()
async def loads_during_saves_see_one_whole_state(trial: Trial) -> None:
    """A load sees the state before or after a save, never half of each, and never an older one."""
    name, last = trial.new_id(), trial.scale.rounds * 4

    def version(n: int) -> Session:
        session = trial.a_session(name, loops=0, metadata={"n": n})
        for place in range(1 + n % 5):
            loop = samples.a_loop(name, place, text=str(n) * 500)
            loop.metadata = n
            session.loops.append(loop)
        return session

    await trial.store.save(version(0))
    done = False

    async def write() -> None:
        nonlocal done
        try:
            for n in range(1, last):
                await trial.store.save(version(n))
                await asyncio.sleep(0)
        finally:
            done = True

    async def read() -> None:
        seen = 0
        while not done:
            session = await trial.store.load(name)
            number = session.metadata["n"]
            must(number >= seen, f"a load saw state {number} after state {seen}")
            seen = number
            found = [loop.metadata for loop in session.loops]
            must_equal(found, [seen] * (1 + seen % 5), f"the loops of state {seen}")
            await asyncio.sleep(0)

    await together(write(), read(), read(), read())
