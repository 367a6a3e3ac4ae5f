"""What `update` and `append` do to a session object."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from copy import copy
from inspect import isawaitable

from .loops import Loops
from .model import LoopRecord, Session

__all__ = ["Change", "WatchedChange", "changed", "put_loops", "with_own_list"]

Change = Callable[[Session], "Session | Awaitable[Session | None] | None"]
"""Edits a session in place, or returns the session to store; plain or async."""


class WatchedChange:
    """A change, and whether it is async, which shows when it is called and is so for good."""

    def __init__(self, change: Change) -> None:
        self._change = change
        self.is_async = False

    def __call__(self, session: Session) -> Session | Awaitable[Session | None] | None:
        given = self._change(session)
        self.is_async = self.is_async or isawaitable(given)
        return given


async def changed(change: Change, session: Session, session_id: str) -> Session:
    """Return the session that `change` makes of `session`.

    Raises:
        TypeError: It gave something else.
        ValueError: It is not `session_id`.
    """
    given = change(session)
    if isawaitable(given):
        given = await given
    made = session if given is None else given
    if not isinstance(made, Session):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(
            f"the change of {session_id!r} gave {type(made).__name__}, not a session or None"
        )
    if made.session_id != session_id:
        raise ValueError(f"the change of {session_id!r} gave {made.session_id!r}")
    return made


def put_loops(session: Session, loops: Iterable[LoopRecord]) -> None:
    """Add `loops` to the session, or put them in the place of those with the same `loop_id`."""
    records = list(loops)
    names = {record.loop_id for record in records}
    ids = session.loops.ids()
    if len(names) == len(records) and names.isdisjoint(ids):  # as most often
        session.loops.extend(records)
        return
    places = {loop_id: place for place, loop_id in enumerate(ids)}
    for record in records:
        place = places.setdefault(record.loop_id, len(session.loops))
        session.loops[place : place + 1] = [record]


def with_own_list(session: Session) -> Session:
    """Return a copy that shares the records, but not the list of them."""
    copied = copy(session)
    copied.loops = Loops[LoopRecord](session.loops)
    return copied
