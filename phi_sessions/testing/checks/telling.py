"""Errors: of the documented kind, with what a caller needs, fit to be sent to another process."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Awaitable
from typing import Any

from ...errors import (
    SessionConflictError,
    SessionEncodeError,
    SessionError,
    SessionExistsError,
    SessionLockedError,
    SessionNotFoundError,
    SessionTaskError,
)
from ...lease import SupportsLease
from ...model import Session
from ...store import Expect, SessionStore
from .. import samples
from ..check import check
from ..claims import must, must_equal, must_raise
from ..trial import Trial

_TOLD = ("session_id", "expected", "found", "waited", "holder", "reason", "errno", "filename")


async def _error(call: Awaitable[object], kind: type[SessionError]) -> SessionError:
    with must_raise(kind, f"a call that has to raise {kind.__name__}") as refusal:
        await call
    return refusal.error


async def _lease_twice(store: SupportsLease, session_id: str) -> None:
    async with store.lease(session_id, owner="first"), store.lease(session_id):
        pass


async def _errors(trial: Trial, name: str) -> list[SessionError]:
    store, stale = trial.store, await trial.store.load(name)
    await store.append(name, samples.a_loop(name, 1))
    bad = Session(name, trial.agent, metadata={"x": float("inf")})
    absent = trial.new_id("absent")
    errors = [
        await _error(store.save(stale), SessionConflictError),
        await _error(store.save(stale, expect=Expect.ABSENT), SessionExistsError),
        await _error(store.save(bad), SessionEncodeError),
    ]
    for error in errors:
        must_equal(error.session_id, name, f"the session_id of a {type(error).__name__}")
    missing = await _error(store.load(absent), SessionNotFoundError)
    must_equal(missing.session_id, absent, "the session_id of a SessionNotFoundError")
    if isinstance(store, SupportsLease):
        locked = await _error(_lease_twice(store, name), SessionLockedError)
        must_equal(locked.session_id, name, "the session_id of a SessionLockedError")
        errors.append(locked)
    return [*errors, missing]


@check()
async def errors_tell_their_session_and_can_be_pickled(trial: Trial) -> None:
    """Every error names its session, and after pickling or copying it tells the same."""
    session = trial.a_session()
    await trial.store.save(session)
    errors = await _errors(trial, session.session_id)
    await trial.store.aclose()
    errors.append(await _error(_any_call(trial.store), SessionTaskError))
    for error in errors:
        name = type(error).__name__
        must(str(error), f"a {name} says nothing")
        copies: list[Any] = [pickle.loads(pickle.dumps(error)), copy.copy(error)]  # noqa: S301 - our own
        for again in copies:
            must_equal(again.__class__, error.__class__, f"the type of a {name}")
            must_equal(str(again), str(error), f"the text of a {name}")
            for told in _TOLD:
                expected = getattr(error, told, None)
                must_equal(getattr(again, told, None), expected, f"the {told} of a {name}")


async def _any_call(store: SessionStore) -> None:
    await store.list_ids()
