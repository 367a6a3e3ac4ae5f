"""A store that was closed, or closed twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from ...errors import SessionTaskError
from ...lease import SupportsLease
from ...model import Session
from ...store import SessionStore
from .. import samples
from ..check import check
from ..claims import must, must_equal, must_raise
from ..trial import Trial, opened


@check()
async def every_call_after_close_is_refused(trial: Trial) -> None:
    """After `aclose` each method raises `SessionTaskError`, whether the store was used or not."""
    name = trial.new_id()
    used = await opened(trial.open_store)
    await used.save(trial.a_session(name))
    for store in (used, trial.store):
        await store.aclose()
        session = trial.a_session(name)
        for what, call in _calls(store, session).items():
            with must_raise(SessionTaskError, f"{what} of a closed store"):
                await call()
        must_equal((session.revision, len(session.loops)), (None, 1), "the object")


def _calls(store: SessionStore, session: Session) -> dict[str, Callable[[], Awaitable[object]]]:
    name, agent = session.session_id, session.agent_id
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "save": lambda: store.save(session),
        "load": lambda: store.load(name),
        "find": lambda: store.find(name),
        "exists": lambda: store.exists(name),
        "delete": lambda: store.delete(name),
        "append": lambda: store.append(name, samples.a_loop(name, 1)),
        "append by object": lambda: store.append(session, samples.a_loop(name, 1)),
        "update": lambda: store.update(name, lambda _: None),
        "list_ids": store.list_ids,
        "list_for_agent": lambda: store.list_for_agent(agent),
        "infos": lambda: anext(aiter(store.infos())),
        "prune": lambda: store.prune(older_than=timedelta(days=1), dry_run=True),
    }
    if isinstance(store, SupportsLease):
        calls["lease"] = lambda: store.lease(name).__aenter__()
    return calls


@check()
async def closing_twice_is_harmless(trial: Trial) -> None:
    """A store may be closed again, also by several tasks at once, used or not."""
    await trial.store.save(trial.a_session())
    for store in (trial.store, await opened(trial.open_store)):
        await asyncio.gather(store.aclose(), store.aclose())
        await store.aclose()


@check()
async def async_with_gives_the_store_and_closes_it(trial: Trial) -> None:
    """`async with` gives the store itself, and closes it also after an error, which passes on."""
    async with trial.store as entered:
        must(entered is trial.store, "`async with` gave another object")
        await entered.save(trial.a_session())
    store = await opened(trial.open_store)
    with must_raise(ZeroDivisionError, "an error inside `async with`"):
        async with store:
            await store.save(trial.a_session())
            raise ZeroDivisionError
    for closed in (trial.store, store):
        with must_raise(SessionTaskError, "a call after `async with`"):
            await closed.list_ids()


@check()
async def calls_under_way_at_a_close_end_or_are_refused(trial: Trial) -> None:
    """A close while others save hangs nobody: each save has succeeded or tells that it has not."""
    sessions = [trial.a_session() for _ in range(trial.scale.sessions)]
    tasks = [trial.start(trial.store.save(session)) for session in sessions]
    await asyncio.sleep(0)
    async with trial.promptly("closing a store while others save"):
        await trial.store.aclose()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for session, result in zip(sessions, results, strict=True):
        if not isinstance(result, SessionTaskError):
            must_equal(result, session.revision, "the result of a save")
            must(session.revision is not None, "a save that succeeded set no revision")
        else:
            must_equal(session.revision, None, "the revision of a session that was refused")
