"""Which files may be an agent's, known for as long as the directory stays what it was.

Whatever makes, replaces or removes a session file changes the directory's time stamps. What is
appended to a tail does not, and gives the session to no other agent. So an unchanged directory
need not be read again: of the agent's files, and of no others, each is looked at anew.

Only a program that writes into a session file in place, as phi-core's older functions do, and
gives it to another agent on top, goes unseen until a file comes, goes or is replaced.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Final, NamedTuple

from ..forking import renew_in_child

__all__ = ["AgentIndex", "Moment"]

_QUIET: Final = 3_000_000_000
"""Nanoseconds without a change; some file systems give all changes of two seconds one stamp."""

_MOST: Final = 4096


class Moment(NamedTuple):
    """A state of a directory; another state is another moment."""

    device: int
    inode: int
    mtime_ns: int
    ctime_ns: int


class AgentIndex:
    """What listings by agent found in one directory, at one moment."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """Remember nothing."""
        self._mutex = threading.Lock()
        self._moment: Moment | None = None
        self._ids: dict[str, tuple[str, ...]] = {}

    def moment(self) -> Moment | None:
        """Return the present moment; None where it may be told from a later one by nothing.

        Raises:
            OSError: The directory cannot be looked at.
        """
        if sys.platform == "win32":  # a directory's times may be written down late there
            return None
        begun = time.time_ns()
        found = os.stat(self._path)
        if max(found.st_mtime_ns, found.st_ctime_ns) > begun - _QUIET:
            return None
        return Moment(found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)

    def ids(self, moment: Moment, agent_id: str) -> tuple[str, ...] | None:
        """Return the ids of what may be the agent's sessions, if that is known."""
        with self._mutex:
            return self._ids.get(agent_id) if moment == self._moment else None

    def keep(self, moment: Moment, agent_id: str, ids: tuple[str, ...]) -> None:
        """Remember what a listing found that began at `moment`."""
        with self._mutex:
            if moment != self._moment or len(self._ids) >= _MOST:
                self._moment, self._ids = moment, {}
            self._ids[agent_id] = ids
