"""Leases: a file for each session, locked for as long as its holder lives. Everything here blocks.

A row could not tell whether its holder is alive. The kernel can: it unlocks the file when the
holder dies. The file is never removed, and what it says counts only while it is locked.
"""

from __future__ import annotations

import hashlib
import os
from typing import Final

import msgspec

from ...lease import Lease
from ...record import dec_hook, enc_hook
from . import flock, place
from .failures import Contended

__all__ = ["Grip", "holder_of"]

_MOST: Final = 65536


class Grip:
    """Where a taken lease is kept, even if its caller is gone by then."""

    __slots__ = ("_fd",)

    def __init__(self) -> None:
        self._fd: int | None = None

    @property
    def is_firm(self) -> bool:
        """Whether the lease is held."""
        return self._fd is not None

    def take(self, database: str, lease: Lease) -> None:
        """Take the lease; the directory is made if need be.

        Raises:
            Contended: Another holds it.
            SessionIOError: It cannot be taken.
        """
        try:
            path = _path(database, lease.session_id)
            try:
                fd = flock.acquire(path)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
                fd = flock.acquire(path)
            try:
                os.ftruncate(fd, 0)
                os.write(fd, msgspec.json.encode(lease, enc_hook=enc_hook))
            except BaseException:
                flock.release(fd)
                raise
        except flock.Held as error:
            raise Contended from error
        except OSError as error:
            raise place.io_error(error) from error
        self._fd = fd

    def let_go(self) -> None:
        """Give the lease back."""
        if self._fd is not None:
            flock.release(self._fd)
            self._fd = None


def holder_of(database: str, session_id: str) -> Lease | None:
    """Return what the holder wrote, or None if it has not got round to it."""
    try:
        with open(_path(database, session_id), "rb") as file:
            return msgspec.json.decode(file.read(_MOST), type=Lease, dec_hook=dec_hook)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None  # whoever asks is told that it is held, if not by whom


def _path(database: str, session_id: str) -> str:
    """Return where a session's lease is kept: one place, by whatever link the file was named.

    The name is a digest, so that no two ids share one on a file system that folds case.
    """
    digest = hashlib.blake2b(session_id.encode(), digest_size=16).hexdigest()
    return os.path.join(f"{os.path.realpath(database)}-leases", f"{digest}.lease")
