"""What is stored of a session, as those who change it need to know it: a file and its tail."""

from __future__ import annotations

import os
from enum import Enum
from typing import NamedTuple

from ...errors import SessionCorruptError
from ...model import Revision
from .tail import Tail
from .tailfile import Ending

__all__ = ["Bond", "Stamp", "State", "Unsettled", "bond_of", "state_of"]


class Stamp(NamedTuple):
    """What changes when a file changes."""

    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Return the stamp of a file with this status."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


class Unsettled(Exception):
    """A file looks damaged; it is, unless somebody is writing into it just now.

    phi-core's older functions write in place. The file is damaged if it still has the same
    `stamp` a moment later.
    """

    def __init__(self, error: SessionCorruptError, stamp: Stamp) -> None:
        super().__init__(str(error))
        self.error = error
        self.stamp = stamp


class Bond(Enum):
    """How a tail stands to the session file beside it."""

    NONE = "none"
    """There is no tail, or one with nothing in it."""

    LIVE = "live"
    """It extends the session file."""

    TAKEN_IN = "taken in"
    """The session file holds it already; it was left behind by a crash."""

    ORPHAN = "orphan"
    """Another program, which knows no tails, rewrote or removed the session file under it."""


class State(NamedTuple):
    """What is stored, as a writer needs to know it."""

    revision: Revision
    snapshot: Revision
    ending: Ending | None
    bond: Bond
    is_own: bool
    """Whether the session file is laid out as ours are."""

    stamp: Stamp
    """The session file."""


def bond_of(revision: Revision, supersedes: Revision | None, tail: Ending | Tail | None) -> Bond:
    """Return how `tail` stands to a session file of `revision`, which had taken in `supersedes`."""
    if tail is None:
        return Bond.NONE
    if tail.extends == revision:
        return Bond.LIVE
    if not tail.has_steps or tail.revision in (revision, supersedes):
        return Bond.TAKEN_IN
    return Bond.ORPHAN


def state_of(
    snapshot: Revision,
    supersedes: Revision | None,
    ending: Ending | None,
    is_own: bool,
    stamp: Stamp,
) -> State:
    """Return what a session file and the end of its tail say together."""
    bond = bond_of(snapshot, supersedes, ending)
    latest = ending.revision if ending is not None and bond is Bond.LIVE else snapshot
    return State(latest, snapshot, ending, bond, is_own, stamp)
