"""Connections that a forked child must keep its hands off.

A child has copies of its parent's sockets. Were they closed the usual way, when they are collected
at the latest, the server would be told that its client leaves; were they kept open, a lease would
outlive a parent that dies, for as long as the child lives. So the child puts something harmless in
their place and keeps the objects.
"""

from __future__ import annotations

import os
import threading
from typing import Any
from weakref import WeakSet

from .driver import Connection

__all__ = ["keep_from_children"]

_mutex = threading.Lock()
_open: WeakSet[Connection] = WeakSet()
_held: list[Connection] = []


def keep_from_children(connection: Connection) -> None:
    """Have a child that is forked from now on let go of `connection`, unnoticed by the server."""
    with _mutex:
        _open.add(connection)


def _before() -> None:
    _mutex.acquire()
    _held.extend(_open)  # so that the child collects none before it has looked at it


def _in_parent() -> None:
    _held.clear()
    _mutex.release()


def _in_child() -> None:
    _open.clear()
    _mutex.release()
    nothing = os.open(os.devnull, os.O_RDWR)
    for connection in _held:
        inner: Any = connection
        if not connection.is_closed():
            os.dup2(nothing, inner._transport.get_extra_info("socket").fileno())  # noqa: SLF001
            inner._aborted = True  # noqa: SLF001 - asyncpg has no word for it
    os.close(nothing)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
