"""What a forked child must begin anew: its parent's threads and waiters are not there."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["renew_in_child"]


class _Renewable(Protocol):
    def renew(self) -> None:
        """Forget the parent's threads, locks and waiters."""


_all: WeakSet[_Renewable] = WeakSet()


def renew_in_child(thing: _Renewable) -> None:
    """Have `thing.renew()` called in each child that is forked from now on."""
    _all.add(thing)


def _renew_all() -> None:
    for thing in _all:
        thing.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
