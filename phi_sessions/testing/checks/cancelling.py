"""Cancelled calls: the session is the old one or the new one, and nothing of the call is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

from ...model import Session
from ...store import Expect
from ..cancels import Ending, Leftovers, cancelled_everywhere
from ..check import check
from ..claims import broken, must, must_equal
from ..trial import Trial

Make = Callable[[Session], Coroutine[Any, Any, Any]]
"""Turns the session from version 0 into version 1, or deletes it."""

Then = Callable[[Session], Coroutine[Any, Any, int]]
"""Is called after a cancelled call; returns the version that it has stored."""


def _version(trial: Trial, session_id: str, n: int, *, loops: int = 3) -> Session:
    session = trial.a_session(session_id, trial.new_agent(), loops=loops)
    _turn_into(session, n)
    return session


def _turn_into(session: Session, n: int) -> None:
    for loop in session.loops:
        loop.metadata = n


async def _stored(trial: Trial, session_id: str) -> int | None:
    """Return which version is stored, after making sure that all of it is of one version."""
    session = await trial.store.find(session_id)
    if session is None:
        return None
    found = {loop.metadata for loop in session.loops}
    must(len(found) == 1, f"versions are mixed in one session: {found}")
    return int(found.pop())


def _must_have_ended(ending: Ending, what: str) -> None:
    if not ending.was_cancelled and ending.error is not None:
        broken(f"a {what} that was {ending.place} raised {ending.error!r}")


async def _cancel(
    trial: Trial,
    what: str,
    make: Make,
    *,
    new: int | None = 1,
    loops: int = 3,
    places: int | None = None,
    then: Then | None = None,
) -> None:
    """Cancel such calls everywhere, each on a session of its own, and look what is left of them."""
    current = _version(trial, trial.new_id(), 0, loops=loops)
    seen: dict[str, int | None] = {}

    async def begin() -> Leftovers:
        nonlocal current
        current = _version(trial, trial.new_id(), 0, loops=loops)
        await trial.store.save(current)
        return Leftovers()

    async def call() -> None:
        await make(current)

    await begin()
    await make(current)  # whatever a store starts with its first calls is there now
    leftovers = await begin()
    async with aclosing(
        cancelled_everywhere(trial, call, places or trial.scale.cancels)
    ) as endings:
        async for ending in endings:
            await leftovers.must_be_none(ending.place)
            _must_have_ended(ending, what)
            number = await _stored(trial, current.session_id)
            must(number in (0, new), f"a {what} that was {ending.place} left version {number}")
            if not ending.was_cancelled:
                must_equal(number, new, f"the version after a {what} that succeeded")
            if then is not None:
                async with trial.promptly(f"a save after a {what} that was {ending.place}"):
                    number = await then(current)
            seen[current.session_id] = number
            leftovers = await begin()
    await asyncio.sleep(trial.scale.settling)
    for session_id, number in seen.items():
        later = await _stored(trial, session_id)
        must_equal(later, number, f"the version a while after a cancelled {what} had ended")


def _save(trial: Trial) -> Make:
    async def save(session: Session) -> None:
        _turn_into(session, 1)
        await trial.store.save(session)

    return save


def _append(trial: Trial, *, by_id: bool) -> Make:
    async def append(session: Session) -> None:
        loops = _version(trial, session.session_id, 1).loops
        await trial.store.append(session.session_id if by_id else session, *loops)

    return append


def _update(trial: Trial) -> Make:
    async def update(session: Session) -> None:
        await trial.store.update(session.session_id, lambda found: _turn_into(found, 1))

    return update


def _delete(trial: Trial) -> Make:
    async def delete(session: Session) -> None:
        await trial.store.delete(session.session_id)

    return delete


@check()
async def a_cancelled_save_leaves_the_old_session_or_the_new(trial: Trial) -> None:
    """When a cancelled save has ended, nothing of it runs; the session is old or new for good."""
    await _cancel(trial, "save", _save(trial))


@check()
async def a_cancelled_save_of_a_long_session_leaves_the_old_or_the_new(trial: Trial) -> None:
    """A cancelled save of many records has replaced all of them, or none."""
    await _cancel(trial, "save", _save(trial), loops=150)


@check()
async def a_cancelled_append_leaves_all_of_its_loops_or_none(trial: Trial) -> None:
    """When a cancelled append has ended, all of its loops are there for good, or none."""
    await _cancel(trial, "append by id", _append(trial, by_id=True))
    await _cancel(trial, "append by object", _append(trial, by_id=False))


@check()
async def a_cancelled_update_leaves_the_old_session_or_the_new(trial: Trial) -> None:
    """When a cancelled update has ended, nothing of it runs, and the session is old or new."""
    await _cancel(trial, "update", _update(trial))


@check()
async def a_cancelled_delete_leaves_the_session_or_nothing(trial: Trial) -> None:
    """When a cancelled delete has ended, the session is there whole for good, or gone for good."""
    await _cancel(trial, "delete", _delete(trial), new=None)


@check()
async def a_cancelled_call_holds_no_lock(trial: Trial) -> None:
    """After any cancelled change the next save succeeds at once, and is not undone later."""

    async def replace(session: Session) -> int:
        await trial.store.save(_version(trial, session.session_id, 2), expect=Expect.ANYTHING)
        return 2

    await _cancel(trial, "save", _save(trial), then=replace)
    await _cancel(trial, "append", _append(trial, by_id=True), then=replace)
    await _cancel(trial, "update", _update(trial), then=replace)
    await _cancel(trial, "delete", _delete(trial), new=None, then=replace)


@check()
async def the_holder_of_a_cancelled_change_is_still_the_holder(trial: Trial) -> None:
    """Whether a cancelled save or append by object took effect or not, its object can be saved."""

    async def save_again(session: Session) -> int:
        _turn_into(session, 2)
        await trial.store.save(session)
        return 2

    await _cancel(trial, "save", _save(trial), then=save_again)
    await _cancel(trial, "append", _append(trial, by_id=False), then=save_again)


@check()
async def a_cancelled_look_leaves_nothing_behind(trial: Trial) -> None:
    """After a cancelled load or listing nothing of it runs; the session can be saved at once."""
    store = trial.store

    async def read_cards(session: Session) -> None:
        async for info in store.infos(agent_id=session.agent_id):
            must(info.session_id, "a card without an id")

    looks: dict[str, Make] = {
        "load": lambda session: store.load(session.session_id),
        "find": lambda session: store.find(session.session_id),
        "exists": lambda session: store.exists(session.session_id),
        "list_ids": lambda _: store.list_ids(),
        "list_for_agent": lambda session: store.list_for_agent(session.agent_id),
        "infos": read_cards,
    }

    async def save_again(session: Session) -> int:
        _turn_into(session, 2)
        await store.save(session)
        return 2

    for what, look in looks.items():
        places = max(1, trial.scale.cancels // 2)
        await _cancel(trial, what, look, new=0, places=places, then=save_again)
