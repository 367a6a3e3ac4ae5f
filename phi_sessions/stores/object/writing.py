"""Changing a session: drafts are made until one of them takes the place of what it was made from.

Objects that a draft names are put first, then the draft itself takes the session's key, on
condition; what it names no more is removed last. So a reader finds the old or the new state, and
whoever dies in between leaves garbage at the most.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

from ...errors import (
    SessionConflictError,
    SessionCorruptError,
    SessionExistsError,
    SessionIOError,
    SessionLockedError,
    SessionNotFoundError,
)
from ..base import Outcome
from ..finishing import to_its_end
from .bucket import Bucket, Refused
from .client import Got
from .crowd import for_each
from .drafts import Draft
from .layout import session_key
from .manifest import Fate, Manifest, Tombstone
from .memo import Memo
from .reading import Found, Moved, Reader

__all__ = ["FRESH", "LEAVING", "Plan", "Writer"]

FRESH: Final = 900
"""Seconds within which a draft follows the objects that it names: later on `sweep` may have taken
them for garbage."""

LEAVING: Final = 3600
"""Seconds after which a tombstone that somebody was about to remove is taken over."""

_LONGEST_PAUSE: Final = 0.25
_EAGER: Final = 2

Plan = Callable[[Found], Awaitable[Draft | None]]
"""Makes a draft of what was found; None if there is nothing to do."""

_TOLD_BY_THE_STATE: Final = (
    SessionConflictError,
    SessionCorruptError,
    SessionExistsError,
    SessionNotFoundError,
)


class Writer:
    """Changes sessions.

    Args:
        patience: Seconds to try for while others are faster.
    """

    def __init__(self, bucket: Bucket, reader: Reader, memo: Memo, patience: float) -> None:
        self._bucket = bucket
        self._reader = reader
        self._memo = memo
        self._patience = patience

    async def change(
        self, session_id: str, plan: Plan, outcome: Outcome, *, guess: Found | None = None
    ) -> bool:
        """Make the change that `plan` drafts; return whether there was one to make.

        Args:
            session_id: The session.
            plan: May be called several times, with a guess before anything certain.
            outcome: Gets the revision as soon as the change can be seen.
            guess: What is tried if nothing is known of the session.

        Raises:
            SessionLockedError: Others were faster for too long.
            SaveOutcomeUnknownError: The change may have been made.
            SessionIOError: It was not made.
            As `plan` besides.
        """
        begun = time.monotonic()
        known = self._memo.get(session_id) or guess
        is_certain = False
        attempts = 0
        while True:
            if known is None:
                known, is_certain = await self._look(session_id, begun), True
            found, known = known, None
            try:
                draft = await plan(found)
                if draft is not None:
                    await to_its_end(self._make(session_id, found, draft, outcome))
                    return True
                if is_certain:
                    return False
            except Moved:
                known, is_certain = await self._reader.look_again(session_id, found), True
            except Refused as refused:
                known, is_certain = self._reader.tell(session_id, refused.found), True
                attempts += 1
            except _TOLD_BY_THE_STATE:
                if is_certain:
                    raise
            if time.monotonic() - begun >= self._patience:
                raise self._locked(session_id, begun)
            if attempts > _EAGER or _is_leaving(known):
                pause = min(0.01 * 2**attempts, _LONGEST_PAUSE)
                await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - not a secret
                known = None

    async def _look(self, session_id: str, begun: float) -> Found:
        """Return what stands there; wait while it is about to be removed."""
        pause = 0.01
        while True:
            found = await self._reader.look(session_id)
            if not _is_leaving(found) or await self._bucket.now() - found.modified > LEAVING:
                return found
            if time.monotonic() - begun >= self._patience:
                raise self._locked(session_id, begun)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _make(self, session_id: str, found: Found, draft: Draft, outcome: Outcome) -> None:
        def fate(got: Got | None) -> Fate:
            return self._reader.fate(session_id, got, draft.token, found)

        self._memo.forget(session_id)
        await self._bucket.require_conditions()
        try:
            not_after = time.time() + FRESH if draft.new else math.inf
            await for_each(draft.new.items(), lambda item: self._bucket.put(*item))
            version = await self._bucket.put_if(
                session_key(session_id), draft.data, found.version, fate, not_after=not_after
            )
        except Refused:
            await self._discard(list(draft.new))
            raise
        if isinstance(draft.state, Manifest):
            outcome.revision = draft.state.revision
        if version is not None:
            self._memo.put(session_id, Found(draft.state, version))
        await self._discard(draft.old)

    async def _discard(self, keys: Sequence[str]) -> None:
        with suppress(SessionIOError):  # nothing names them: `sweep` finds what is left
            await self._bucket.delete(keys)

    def _locked(self, session_id: str, begun: float) -> SessionLockedError:
        waited = time.monotonic() - begun
        return SessionLockedError(
            f"session {session_id!r} was changed by others again and again",
            session_id=session_id,
            waited=waited,
        )


def _is_leaving(found: Found | None) -> bool:
    return found is not None and isinstance(found.state, Tombstone) and found.state.is_leaving
