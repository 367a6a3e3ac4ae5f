"""Leases: a file for each session, locked for as long as its holder lives. Everything here blocks.

A row could not tell whether its holder is alive. The kernel can: it unlocks the file when the
holder dies.
"""

from __future__ import annotations

import hashlib
import os
from functools import partial

from ...lease import Lease
from .. import grip
from ..grip import Grip
from . import place

__all__ = ["holder_of", "take"]


def take(database: str, held: Grip, lease: Lease) -> None:
    """Take the lease; the directory is made if need be.

    Raises:
        Contended: Another holds it.
        SessionIOError: It cannot be taken.
    """
    try:
        path = _path(database, lease.session_id)
        held.take(path, lease, partial(place.make_directories, os.path.dirname(path)))
    except OSError as error:
        raise place.io_error(error) from error


def holder_of(database: str, session_id: str) -> Lease | None:
    """Return what the holder of a lease says, or None if that is not known."""
    return grip.holder_of(_path(database, session_id))


def _path(database: str, session_id: str) -> str:
    """Return where a session's lease is kept: one place, by whatever link the file was named.

    The name is a digest, so that no two ids share one on a file system that folds case.
    """
    digest = hashlib.blake2b(session_id.encode(), digest_size=16).hexdigest()
    return os.path.join(f"{os.path.realpath(database)}-leases", f"{digest}.lease")
