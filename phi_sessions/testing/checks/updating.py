"""Changing what is stored so that nobody's change is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ...errors import (
    SessionConflictError,
    SessionEncodeError,
    SessionExistsError,
    SessionNotFoundError,
)
from ...model import Session
from ...store import Expect
from .. import samples
from ..check import check
from ..claims import must, must_equal, must_raise
from ..elsewhere import together
from ..trial import Trial


def _count(session: Session) -> None:
    session.metadata["count"] = session.metadata.get("count", 0) + 1


@check()
async def an_update_stores_and_returns_the_changed_session(trial: Trial) -> None:
    """A change in place, plain or async, is stored; the returned object is its current holder."""
    session = trial.a_session(loops=2)
    name = session.session_id
    await trial.store.save(session)

    async def slowly(found: Session) -> None:
        await asyncio.sleep(0)
        _count(found)

    for n, change in enumerate((_count, slowly), 1):
        updated = await trial.store.update(name, change)
        stored = await trial.store.load(name)
        must_equal(stored, updated, "what is stored after an update")
        must_equal(stored.metadata, {"count": n}, "the metadata")
        must_equal(stored.loops, session.loops, "the loops that the change left alone")
        updated.loops[0].metadata = n
        await trial.store.save(updated)  # it is the holder of what is stored
        session.loops[0].metadata = n
    with must_raise(SessionConflictError, "a save of the holder from before the updates"):
        await trial.store.save(session)


@check()
async def an_update_stores_the_session_that_its_change_returns(trial: Trial) -> None:
    """A session that a change returns, plain or async, takes the place of what was there."""
    name = trial.new_id()
    await trial.store.save(trial.a_session(name))
    other = trial.a_session(name, loops=3, metadata={"other": True})

    async def gives_another(_: Session) -> Session:
        await asyncio.sleep(0)
        return trial.a_session(name, metadata={"other": 2})

    updated = await trial.store.update(name, lambda _: other)
    must(updated is other, "update did not return the object that the change returned")
    must_equal(await trial.store.load(name), other, "what is stored")
    await trial.store.update(name, gives_another)
    stored = await trial.store.load(name)
    must_equal(stored.metadata, {"other": 2}, "the metadata that is stored")


@check()
async def an_update_creates_what_is_not_there_and_only_that(trial: Trial) -> None:
    """`create` builds a session where there is none; without it, nothing is found or made."""
    name, seen = trial.new_id(), list[Session]()
    with must_raise(SessionNotFoundError, "an update of nothing"):
        await trial.store.update(name, seen.append)
    must_equal(seen, [], "what the change was called with")
    built: list[Session] = []

    def create() -> Session:
        built.append(trial.a_session(name, loops=0, metadata={"created": True}))
        return built[-1]

    for _ in range(2):
        await trial.store.update(name, _count, create=create)
    must_equal(len(built), 1, "how often a session was built")
    stored = await trial.store.load(name)
    must_equal(stored.metadata, {"created": True, "count": 2}, "the metadata")


@check()
async def an_update_that_fails_changes_nothing(trial: Trial) -> None:
    """What a change raises is passed on; what it makes of the session is not stored."""
    session = trial.a_session(metadata={"count": 0})
    name, elsewhere = session.session_id, trial.new_id("elsewhere")
    await trial.store.save(session)
    before = await trial.states()

    def fail(found: Session) -> None:
        _count(found)
        raise ZeroDivisionError

    async def fail_later(found: Session) -> None:
        await asyncio.sleep(0)
        fail(found)

    def rename(found: Session) -> None:
        found.session_id = elsewhere

    def spoil(found: Session) -> None:
        found.metadata["x"] = float("nan")

    def never(_: Session) -> None:
        raise AssertionError

    with must_raise(ZeroDivisionError, "an update whose change raises"):
        await trial.store.update(name, fail)
    with must_raise(ZeroDivisionError, "an update whose async change raises"):
        await trial.store.update(name, fail_later)
    with must_raise(ZeroDivisionError, "an update whose create raises"):
        await trial.store.update(elsewhere, never, create=lambda: trial.a_session(loops=1 // 0))
    with must_raise(ValueError, "an update that changes the id"):
        await trial.store.update(name, rename)
    with must_raise(SessionEncodeError, "an update that cannot be stored"):
        await trial.store.update(name, spoil)
    with must_raise(ValueError, "an update without an attempt"):
        await trial.store.update(name, _count, attempts=0)
    must_equal(await trial.states(), before, "what is stored")


@check()
async def an_update_tries_again_with_what_others_stored(trial: Trial) -> None:
    """Each attempt gets a fresh object of what is stored then, so that both changes are kept."""
    name = trial.new_id()
    await trial.store.save(trial.a_session(name, metadata={"count": 0}))
    seen: list[Session] = []
    counts: list[int] = []

    async def meet_others(session: Session) -> None:
        seen.append(session)
        counts.append(session.metadata["count"])
        if len(seen) <= 3:
            other = await trial.store.load(name)
            other.metadata["count"] += 10
            await trial.store.save(other)
        session.metadata["count"] += 1

    await trial.store.update(name, meet_others)
    must_equal(counts, [0, 10, 20, 30], "what the attempts were given")
    must_equal(len({id(session) for session in seen}), 4, "the number of objects")
    stored = await trial.store.load(name)
    must_equal(stored.metadata, {"count": 31}, "the metadata that is stored")


@check()
async def an_update_gives_up_after_its_attempts(trial: Trial) -> None:
    """An update that others always outrun ends with a conflict, and theirs is what is stored."""
    name, made_meanwhile = trial.new_id(), trial.new_id("made")
    await trial.store.save(trial.a_session(name))
    calls = 0

    async def be_late(session: Session) -> None:
        nonlocal calls
        calls += 1
        other = await trial.store.load(name)
        other.metadata["other"] = calls
        await trial.store.save(other)
        session.metadata["mine"] = True

    for attempts in (1, 3):
        calls = 0
        with must_raise(SessionConflictError, "an update that is always late"):
            await trial.store.update(name, be_late, attempts=attempts)
        must_equal(calls, attempts, "the number of attempts")
        stored = await trial.store.load(name)
        must_equal(stored.metadata, {"other": attempts}, "the metadata that is stored")

    async def somebody_makes_it(_: Session) -> None:
        theirs = trial.a_session(made_meanwhile, metadata={"by": "somebody"})
        await trial.store.save(theirs, expect=Expect.ANYTHING)

    with must_raise(SessionExistsError, "an update whose session others make"):
        await trial.store.update(
            made_meanwhile,
            somebody_makes_it,
            create=lambda: trial.a_session(made_meanwhile),
            attempts=1,
        )
    stored = await trial.store.load(made_meanwhile)
    must_equal(stored.metadata, {"by": "somebody"}, "the metadata of what was made meanwhile")


@check()
async def an_update_does_not_bring_back_what_was_deleted_meanwhile(trial: Trial) -> None:
    """A session that is deleted while its change runs stays deleted."""
    session = trial.a_session()
    await trial.store.save(session)

    async def somebody_deletes_it(found: Session) -> None:
        await trial.store.delete(found.session_id)

    with must_raise(SessionNotFoundError, "an update of what is deleted meanwhile"):
        await trial.store.update(session.session_id, somebody_deletes_it)
    must_equal(await trial.listed(), [], "the listed ids")


@check()
async def updates_of_many_tasks_are_all_kept(trial: Trial) -> None:
    """Many tasks that update one session, which the first of them creates, lose no change."""
    name, tasks, rounds = trial.new_id(), trial.scale.tasks, trial.scale.rounds

    def adding(number: int) -> Callable[[Session], None]:
        def change(session: Session) -> None:
            _count(session)
            session.loops.append(samples.a_loop(name, number))

        return change

    async def work(task: int) -> None:
        for n in range(rounds):
            change = adding(task * rounds + n)
            await trial.store.update(name, change, create=lambda: trial.a_session(name, loops=0))

    await together(*map(work, range(tasks)))
    stored = await trial.store.load(name)
    must_equal(stored.metadata, {"count": tasks * rounds}, "the count")
    kept = {loop.metadata["number"] for loop in stored.loops}
    must_equal(kept, set(range(tasks * rounds)), "the loops that were kept")
