"""What outlives a store object."""

from __future__ import annotations

import asyncio

from ...errors import SessionConflictError, SessionTaskError
from .. import samples
from ..check import check
from ..claims import must, must_be_the_same, must_equal, must_raise
from ..trial import Trial


@check(reopens=True)
async def what_was_stored_is_there_after_a_reopen(trial: Trial) -> None:
    """After a close the next store finds each session, its revision, and the order of all."""
    rich = samples.with_unknown_keys(samples.rich_session(trial.new_id(), trial.agent))
    sessions = [trial.a_session(loops=n, metadata={"n": n}) for n in range(4)]
    for session in (rich, *sessions):
        await trial.store.save(session)
    await trial.store.append(sessions[1], samples.a_loop(sessions[1].session_id, 9))
    await trial.store.update(sessions[0].session_id, lambda found: found.metadata.update(n=7))
    sessions[0] = await trial.store.load(sessions[0].session_id)
    gone = trial.a_session()
    await trial.store.save(gone)
    await trial.store.delete(gone.session_id)
    order = await trial.listed()
    store = await trial.reopen()
    for session in (rich, *sessions):
        loaded = await store.load(session.session_id)
        must_be_the_same(samples.plain(loaded), samples.plain(session), "a session")
        must_equal(loaded.revision, session.revision, "its revision")
    mine = set(order)
    must_equal([each for each in await store.list_ids() if each in mine], order, "the listed ids")
    cards = [info.session_id async for info in store.infos(agent_id=trial.agent)]
    must_equal(cards, order, "the cards")
    must(not await store.exists(gone.session_id), "a deleted session is there again")


@check(reopens=True)
async def revisions_hold_across_a_reopen(trial: Trial) -> None:
    """A holder from before a reopen can save if nobody else did, and is stale if somebody did."""
    session, stale = trial.a_session(), trial.a_session()
    await trial.store.save(session)
    await trial.store.save(stale)
    await trial.store.append(stale.session_id, samples.a_loop(stale.session_id, 1))
    store = await trial.reopen()
    session.metadata["again"] = True
    await store.save(session)
    await store.append(session, samples.a_loop(session.session_id, 1))
    stored = await store.load(session.session_id)
    must_be_the_same(samples.plain(stored), samples.plain(session), "what is stored")
    with must_raise(SessionConflictError, "a save of a stale holder"):
        await store.save(stale)


@check(reopens=True)
async def what_is_saved_during_a_close_is_there_if_it_was_acknowledged(trial: Trial) -> None:
    """A save that succeeded while the store was closed is there; one that was refused is not."""
    sessions = [trial.a_session() for _ in range(trial.scale.sessions)]
    tasks = [trial.start(trial.store.save(session)) for session in sessions]
    await asyncio.sleep(0)
    store = await trial.reopen()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for session, result in zip(sessions, results, strict=True):
        found = await store.find(session.session_id)
        is_refused = isinstance(result, SessionTaskError)
        must_equal(found is None, is_refused, f"whether a save that gave {result!r} left nothing")
