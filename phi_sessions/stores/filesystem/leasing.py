"""Leases: a sidecar of their own, flocked while the holder lives. Everything here blocks."""

from __future__ import annotations

from functools import partial

from ...lease import Lease
from .. import grip
from ..grip import Grip
from . import disk
from .failures import translating
from .layout import Paths

__all__ = ["holder_of", "take"]


def take(directory: str, held: Grip, lease: Lease) -> None:
    """Take the lease; the directory is made if need be.

    Raises:
        Contended: Another holds it.
        SessionIOError: It cannot be taken.
    """
    make = partial(disk.make_directories, directory, durable=True)
    with translating(lease.session_id):
        held.take(Paths(directory, lease.session_id).lease, lease, make)


def holder_of(directory: str, session_id: str) -> Lease | None:
    """Return what the holder of a lease says, or None if that is not known."""
    return grip.holder_of(Paths(directory, session_id).lease)
