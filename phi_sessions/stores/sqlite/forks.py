"""No connection is open across a fork.

SQLite's locks belong to a process, and it takes those of a forked child's parent for the child's
own: with a connection open across a fork, the child's new connections would hold no lock at all,
and closing the old one there may remove what others write ("How To Corrupt An SQLite Database
File", 2.6). So a fork waits until no connection is in use, and has those closed that are not;
parent and child open new ones when they need them.
"""

from __future__ import annotations

import os
import threading
from typing import Final, Protocol
from weakref import WeakSet

__all__ = ["begin_use", "close_before_forks", "end_use"]


class _Closable(Protocol):
    def close_idle(self) -> None:
        """Close the connections that nobody uses."""


class _Gate:
    """Counts the uses of this process, and lets forks pass between them."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.changed = threading.Condition(threading.Lock())
        self.uses = 0
        self.forks = 0


_gate: Final = _Gate()
_all: Final[WeakSet[_Closable]] = WeakSet()


def close_before_forks(thing: _Closable) -> None:
    """Have `thing.close_idle()` called before each fork from now on, while nothing is in use."""
    _all.add(thing)


def begin_use() -> None:
    """Return when no fork is under way; forks wait until `end_use`."""
    with _gate.changed:
        while _gate.forks:
            _gate.changed.wait()
        _gate.uses += 1


def end_use() -> None:
    """Note that a use is over."""
    with _gate.changed:
        _gate.uses -= 1
        if _gate.forks and not _gate.uses:
            _gate.changed.notify_all()


def _before() -> None:
    _gate.changed.acquire()
    _gate.forks += 1
    while _gate.uses:
        _gate.changed.wait()
    for thing in list(_all):
        thing.close_idle()


def _after_in_parent() -> None:
    _gate.forks -= 1
    _gate.changed.notify_all()
    _gate.changed.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_gate.renew
    )
