"""What is there and what is not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ...errors import SessionNotFoundError
from .. import samples
from ..check import check
from ..claims import broken, must_be_the_same, must_equal, must_raise
from ..trial import Trial


@check()
async def what_was_never_saved_is_not_found(trial: Trial) -> None:
    """Loading, deleting or changing nothing raises `SessionNotFoundError`; finding does not."""
    store, name = trial.store, trial.new_id()
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "load": lambda: store.load(name),
        "delete": lambda: store.delete(name),
        "append": lambda: store.append(name, samples.a_loop(name)),
        "append of nothing": lambda: store.append(name),
        "update": lambda: store.update(name, lambda _: None),
    }
    for what, call in calls.items():
        with must_raise(SessionNotFoundError, f"a {what} of nothing") as refusal:
            await call()
        must_equal(refusal.error.session_id, name, f"the error's session_id after a {what}")
    must_equal(await store.find(name), None, "what find returns")
    must_equal(await store.exists(name), False, "what exists returns")
    must_equal(await trial.listed(), [], "the listed ids")
    must_equal(await store.list_for_agent(trial.agent), [], "the agent's sessions")
    must_equal([info async for info in store.infos(agent_id=trial.agent)], [], "the agent's cards")


@check()
async def find_and_exists_tell_what_is_stored(trial: Trial) -> None:
    """`find` returns what `load` returns, and `exists` says that it is there."""
    session = trial.a_session()
    await trial.store.save(session)
    found = await trial.store.find(session.session_id)
    if found is None:
        broken("find returned None for a session that is stored")
    must_be_the_same(samples.plain(found), samples.plain(session), "what was found")
    must_equal(found.revision, session.revision, "the revision of what was found")
    must_equal(await trial.store.exists(session.session_id), True, "what exists returns")


@check()
async def a_deleted_session_is_gone(trial: Trial) -> None:
    """After a delete no call finds the session, and a second delete finds nothing."""
    session, other = trial.a_session(), trial.a_session()
    store, name = trial.store, session.session_id
    await store.save(session)
    await store.append(session, samples.a_loop(name, 1))
    await store.save(other)
    await store.delete(name)
    left = [other.session_id]
    must_equal(await trial.listed(), left, "the listed ids")
    must_equal(await store.exists(name), False, "what exists returns")
    must_equal(await store.find(name), None, "what find returns")
    cards = [info.session_id async for info in store.infos(agent_id=trial.agent)]
    must_equal(cards, left, "the agent's cards")
    found = [found.session_id for found in await store.list_for_agent(trial.agent)]
    must_equal(found, left, "the agent's sessions")
    with must_raise(SessionNotFoundError, "a load of a deleted session"):
        await store.load(name)
    with must_raise(SessionNotFoundError, "a second delete"):
        await store.delete(name)


@check()
async def nothing_of_a_deleted_session_is_in_the_next(trial: Trial) -> None:
    """A session made where another was deleted has nothing of that one."""
    name = trial.new_id()
    for n in range(3):
        session = trial.a_session(name, loops=3 - n, metadata={"n": n} if n != 1 else {})
        await trial.store.save(session)
        await trial.store.append(session, samples.a_loop(name, 7 + n))
        stored = await trial.store.load(name)
        must_be_the_same(samples.plain(stored), samples.plain(session), f"session {n} of that id")
        await trial.store.delete(name)
