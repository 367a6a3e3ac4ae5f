"""Copying itself: session by session, some at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from copy import copy
from datetime import datetime
from typing import Any, Final, Literal, get_args

from msgspec.structs import replace

from ..codec import Parcel
from ..errors import (
    MissingDependencyError,
    SessionConflictError,
    SessionCorruptError,
    SessionError,
    SessionExistsError,
    SessionIOError,
    SessionNotFoundError,
    SessionTaskError,
)
from ..model import Revision
from ..store import Expect, OnError, SessionStore
from ..stores.base import pack
from ..stores.finishing import to_its_end
from .difference import first_difference
from .outcome import CopyFailure, CopyOutcome, CopyProgress, CopySummary
from .turns import Turn, in_turn
from .wanted import Wanted, Where

__all__ = ["OnConflict", "copy_sessions"]

_ATTEMPTS: Final = 10
"""How often to try a session that somebody else changes in the target."""

_NEVER_SKIPPED: Final = (MissingDependencyError, SessionExistsError, SessionTaskError)

OnConflict = Literal["raise", "skip", "replace"]
"""What to do with a session that the target has already, and that differs there."""


async def copy_sessions(
    source: SessionStore,
    target: SessionStore,
    *,
    agent_id: str | None = None,
    active_after: datetime | None = None,
    session_ids: Iterable[str] | None = None,
    where: Where | None = None,
    on_conflict: OnConflict = "raise",
    on_error: OnError = "raise",
    verify: bool = True,
    concurrency: int = 4,
    progress: Callable[[CopyProgress], object] | None = None,
) -> CopySummary:
    """Have in `target` what `source` holds, session by session; the source is only read.

    Loop records are not decoded, and keep their texts to the byte; the header is written anew.
    Times, metadata and unknown keys are kept. What belongs to a store is not taken along:
    revisions, `saved_at`, leases.

    Each session is saved whole or not at all. After an error, a cancellation or a crash call it
    again: a session that the target has already is read in both stores, and left alone when
    it is the same. Sessions are saved one after another, the least recently saved first, so that
    the target lists them in the source's order.

    Both stores may be in use. What is copied of a session is one state that the source had after
    the call began. A session that is saved in the source later than it was read, or that was
    made after the call began, is left to the next call, with `on_conflict="replace"`. A
    session that somebody changes in the target is never overwritten unseen.

    In memory are all session ids, and at most `concurrency` sessions with what the target has of
    them.

    Args:
        source: Where the sessions are.
        target: Where they shall be.
        agent_id: Only this agent's, in the state that is copied too.
        active_after: Only those whose `last_active_at` is later; an aware time.
        session_ids: Only these, or this one.
        where: Only those for whose card it returns True, as they are listed; a plain or an async
            function. With `session_ids` it is asked of no others.
        on_conflict: What to do with a session that differs in the target.
        on_error: Whether to raise, or to go on and report, when one session cannot be copied: it is
            damaged in the source or in the target, was asked for by its id and is not there, is
            held by another for too long, or is refused by the target. With a filter, too, every
            damaged session (of `session_ids`, if given) is then reported, as it may be one of
            those asked for. A store that fails or is closed, and a target that cannot save, are
            raised in any case.
        verify: Read each saved session back, and compare it text for text with what was read from
            the source (value for value, where the target does not keep texts). One that somebody
            else changed in the target by then is left at that; one that is gone is an error, as
            nobody can tell a target that forgot it from somebody who deleted it.
        concurrency: How many sessions are read, compared and verified at a time.
        progress: Called after each session; a plain function.

    Returns:
        How many sessions were copied, replaced, the same already, skipped, gone and failed.

    Raises:
        SessionExistsError: `on_conflict="raise"`, and a session differs in the target.
        SessionNotFoundError: The source has no session with one of `session_ids`.
        SessionCorruptError: A session is damaged, or was read back otherwise than it was saved, or
            not found again.
        SessionConflictError: Somebody else changed a session in the target again and again.
        As `load` of the source and `save` of the target besides; what `where` and `progress` raise
        is passed on.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency must be at least 1: {concurrency}")
    if on_conflict not in get_args(OnConflict):  # a mistaken one must not overwrite anything
        raise ValueError(f"on_conflict is one of {get_args(OnConflict)}: {on_conflict!r}")
    if on_error not in get_args(OnError):
        raise ValueError(f"on_error is one of {get_args(OnError)}: {on_error!r}")
    wanted = Wanted(source, agent_id, active_after, where, on_error)
    if isinstance(session_ids, str):
        session_ids = [session_ids]
    found, missing = await wanted.ids(None if session_ids is None else set(session_ids))
    copying = _Copying(source, target, wanted, on_conflict, on_error, verify, progress)
    return await copying.run(found, missing, concurrency)


class _Copying:
    """One call of `copy_sessions`, once it is known what to copy."""

    def __init__(
        self,
        source: SessionStore,
        target: SessionStore,
        wanted: Wanted,
        on_conflict: OnConflict,
        on_error: OnError,
        verify: bool,
        progress: Callable[[CopyProgress], object] | None,
    ) -> None:
        self._source = source
        self._target = target
        self._wanted = wanted
        self._on_conflict: OnConflict = on_conflict
        self._on_error: OnError = on_error
        self._verify = verify
        self._progress = progress
        self._counts: Counter[str] = Counter()
        self._failures: list[CopyFailure] = []
        self._total = 0
        self._not_saved: SessionIOError | None = None

    async def run(self, found: list[str], missing: list[str], concurrency: int) -> CopySummary:
        """Copy the sessions `found`, in that order; report those that are `missing`."""
        self._total = len(found) + len(missing)
        for session_id in missing:
            error = SessionNotFoundError(f"session {session_id!r} not found", session_id=session_id)
            if self._on_error != "skip":
                raise error
            self._tell(session_id, CopyOutcome.FAILED, error)
        turns = in_turn(found)
        at_once = max(1, min(concurrency, len(found)))  # many would be waited for in vain
        await _together(self._copy_each(turns) for _ in range(at_once))
        return CopySummary(**self._counts, failures=self._failures)

    async def _copy_each(self, turns: Iterator[tuple[str, Turn]]) -> None:
        for session_id, turn in turns:
            try:
                outcome = await self._copy(session_id, turn)
                failure = None
            except SessionError as error:
                if not await self._may_skip(session_id, error):
                    raise
                # Without its traceback, which would keep the session in memory.
                outcome, failure = CopyOutcome.FAILED, copy(error)
            await turn.leave()
            self._tell(session_id, outcome, failure)

    def _tell(self, session_id: str, outcome: CopyOutcome, error: SessionError | None) -> None:
        self._counts[outcome.value] += 1
        if error is not None:
            self._failures.append(CopyFailure(session_id, error))
        if self._progress is not None:
            report = CopyProgress(
                session_id=session_id,
                outcome=outcome,
                error=error,
                done=self._counts.total(),
                total=self._total,
                **self._counts,
            )
            self._progress(report)

    async def _may_skip(self, session_id: str, error: SessionError) -> bool:
        """Return whether it is this session that failed, and not a store."""
        if self._on_error != "skip" or isinstance(error, _NEVER_SKIPPED):
            return False
        if error is self._not_saved:
            return False  # a full disk answers, too
        if isinstance(error, SessionIOError):
            try:
                await self._source.exists(session_id)
                await self._target.exists(session_id)
            except SessionIOError:
                return False
        return True

    async def _copy(self, session_id: str, turn: Turn) -> CopyOutcome:
        session = await self._source.find(session_id)
        if session is None or not self._wanted.has_still(session):
            return CopyOutcome.GONE
        # A new session to the target: what the source's revision stands for is not there.
        session = replace(session, revision=None, loops=session.loops.copy())
        parcel = await pack(session)
        attempt = 0
        while True:
            attempt += 1
            there = await self._target.find(session_id)
            if there is not None:
                difference = first_difference(parcel, await pack(there))
                if not difference:
                    return CopyOutcome.EQUAL
                if self._on_conflict == "skip":
                    return CopyOutcome.SKIPPED
                if self._on_conflict == "raise":
                    raise SessionExistsError(
                        f"session {session_id!r} is in the target already, and differs: "
                        + difference,
                        session_id=session_id,
                    )
            expect = Expect.ABSENT if there is None else there.revision
            assert expect is not None
            await turn.come()
            try:
                saved = await self._target.save(session, expect=expect)
            except (SessionExistsError, SessionConflictError):
                if attempt == _ATTEMPTS:
                    raise
                continue  # somebody else changed it meanwhile: see how it is now
            except SessionIOError as error:
                self._not_saved = error
                raise
            await turn.leave()
            if self._verify:
                await self._read_back(parcel, saved)
            return CopyOutcome.COPIED if there is None else CopyOutcome.REPLACED

    async def _read_back(self, parcel: Parcel, saved: Revision) -> None:
        session_id = parcel.session_id
        there = await self._target.find(session_id)
        if there is not None and there.revision != saved:
            return  # somebody changed it since: what was saved cannot be seen any more
        difference = "it is gone" if there is None else first_difference(parcel, await pack(there))
        if difference:
            raise SessionCorruptError(
                f"the copy of session {session_id!r} is not what was saved: {difference}",
                session_id=session_id,
                reason=difference,
            )


async def _together(jobs: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run `jobs` until all are done or one fails. None runs on when this ends."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        error = await to_its_end(_first_error(tasks))
    if error is not None:
        raise error


async def _first_error(tasks: list[asyncio.Task[None]]) -> BaseException | None:
    await asyncio.wait(tasks)
    errors = [task.exception() for task in tasks if not task.cancelled()]
    return next(filter(None, errors), None)
