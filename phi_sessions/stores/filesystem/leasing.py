"""Leases: a sidecar of their own, flocked for as long as the holder lives. Everything here blocks.

The file tells who holds it. It is made once and never removed; what it says counts only while it
is locked, and the kernel unlocks it when the holder dies.
"""

from __future__ import annotations

import os

import msgspec

from ...lease import Lease
from ...record import dec_hook, enc_hook
from . import disk
from .layout import Paths
from .lock import acquire, release
from .reader import translate

__all__ = ["Grip", "holder_of"]

_MOST = 65536


class Grip:
    """Where a taken lease is kept, even if its caller is gone by then."""

    __slots__ = ("_fd",)

    def __init__(self) -> None:
        self._fd: int | None = None

    @property
    def is_firm(self) -> bool:
        """Whether the lease is held."""
        return self._fd is not None

    def take(self, directory: str, lease: Lease) -> None:
        """Take the lease; the directory is made if need be.

        Raises:
            Contended: Another holds it.
            SessionIOError: It cannot be taken.
        """
        path = Paths(directory, lease.session_id).lease
        try:
            try:
                fd = acquire(path)
            except FileNotFoundError:
                disk.make_directories(directory, durable=True)
                fd = acquire(path)
            try:
                os.ftruncate(fd, 0)
                disk.write_whole(fd, msgspec.json.encode(lease, enc_hook=enc_hook))
            except BaseException:
                release(fd)
                raise
        except OSError as error:
            raise translate(error, lease.session_id) from error
        self._fd = fd

    def let_go(self) -> None:
        """Give the lease back."""
        if self._fd is not None:
            release(self._fd)
            self._fd = None


def holder_of(directory: str, session_id: str) -> Lease | None:
    """Return what the holder wrote, or None if it has not got round to it."""
    try:
        fd, _ = disk.open_regular(Paths(directory, session_id).lease, os.O_RDONLY)
    except OSError:
        return None  # whoever asks is told that it is held, if not by whom
    try:
        return msgspec.json.decode(os.read(fd, _MOST), type=Lease, dec_hook=dec_hook)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    finally:
        disk.close_quietly(fd)
