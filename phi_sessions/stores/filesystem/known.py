"""What a writer left behind, so that its next change need not read it again."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import Final, NamedTuple

from ..forking import renew_in_child
from .layout import Paths
from .state import Stamp, State

__all__ = ["Known", "KnownStates"]

_MOST: Final = 4096

_FINE: Final = 1_000_000
"""Nanoseconds; a time in whole ones may be rounded, and that of the next file, too."""


class Known(NamedTuple):
    """A state, and the files that hold it."""

    state: State
    tail: Stamp | None

    def is_current(self, paths: Paths) -> bool:
        """Return whether the files are those still; to be asked while the lock is held.

        Every change of either makes another inode, size or time: our own writers stamp a session
        file to the nanosecond, and a tail only grows.
        """
        return self.state.stamp == _stamp(paths.session) and self.tail == _stamp(paths.tail)


class KnownStates:
    """The states that were written last, of a bounded number of sessions."""

    def __init__(self) -> None:
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """Remember nothing."""
        self._mutex = threading.Lock()
        self._known: OrderedDict[str, Known] = OrderedDict()

    def keep(self, session_id: str, known: Known) -> None:
        """Remember what was written, in the place of what was written last the longest ago.

        Unless the file system rounds times: a later file may get the same inode, size and time.
        """
        if not known.state.stamp.mtime_ns % _FINE:
            return
        with self._mutex:
            self._known[session_id] = known
            if len(self._known) > _MOST:
                self._known.popitem(last=False)

    def take(self, session_id: str) -> Known | None:
        """Return what is known of a session, and forget it."""
        with self._mutex:
            return self._known.pop(session_id, None)


def _stamp(path: str) -> Stamp | None:
    try:
        return Stamp.of(os.lstat(path))
    except FileNotFoundError:
        return None
