"""A check: a small function whose docstring is the promise that it holds the store to."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from ..lease import SupportsLease
from ..promise import Promise
from ..store import SessionStore
from .trial import Trial

__all__ = ["Check", "check"]

Run = Callable[[Trial], Awaitable[None]]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One promise and how it is checked.

    Attributes:
        name: The function's name.
        theme: The module that it stands in.
        promise: One sentence: the function's docstring.
        run: The function.
        needs: What the store has to promise.
        reopens: Whether the store is closed and opened again.
        leases: Whether the store has to have leases.
        processes: Whether child processes take part.
    """

    name: str
    theme: str
    promise: str
    run: Run
    needs: frozenset[Promise]
    reopens: bool
    leases: bool
    processes: bool

    def reason_to_skip(
        self, store: SessionStore, *, processes: bool, can_reopen: bool
    ) -> str | None:
        """Return why the check is not made on this store, or None."""
        needs = self.needs
        if self.reopens and not can_reopen:
            needs |= {Promise.RESTART}
        if lacking := sorted(needs & store.lacks):
            return f"the store does not promise {', '.join(repr(str(p)) for p in lacking)}"
        if self.leases and not isinstance(store, SupportsLease):
            return "the store has no leases"
        if self.processes and not processes:
            return "no child processes were wanted"
        return None


class _Named(Protocol):
    __name__: str
    __module__: str


def check(
    *,
    needs: set[Promise] | None = None,
    reopens: bool = False,
    leases: bool = False,
    processes: bool = False,
) -> Callable[[Run], Check]:
    """Make a check of a function; the arguments are `Check`'s attributes."""

    def made(run: Run) -> Check:
        named: _Named = run  # pyright: ignore[reportAssignmentType]
        return Check(
            name=named.__name__,
            theme=named.__module__.rpartition(".")[2],
            promise=" ".join((inspect.getdoc(run) or "").split()),
            run=run,
            needs=frozenset(needs or ()),
            reopens=reopens,
            leases=leases,
            processes=processes,
        )

    return made
