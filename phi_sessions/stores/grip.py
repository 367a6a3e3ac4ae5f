"""Holding a lease by a locked file, which also tells who holds it. Everything here blocks.

The file is made once and never removed. What it says counts only while it is locked, and the
kernel unlocks it when the holder dies.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

import msgspec

from ..lease import Lease
from ..record import dec_hook, enc_hook
from .flock import acquire, release
from .regular import close_quietly, open_regular

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

    def take(self, path: str, lease: Lease, make_parent: Callable[[], None]) -> None:
        """Take the lease by the file `path`, whose directory is made if need be.

        Raises:
            Contended: Another holds it.
            OSError: It cannot be taken.
        """
        try:
            fd = acquire(path)
        except FileNotFoundError:
            make_parent()
            fd = acquire(path)
        try:
            os.ftruncate(fd, 0)
            os.write(fd, msgspec.json.encode(lease, enc_hook=enc_hook))
        except BaseException:
            release(fd)
            raise
        self._fd = fd

    def let_go(self) -> None:
        """Give the lease back."""
        if self._fd is not None:
            release(self._fd)
            self._fd = None


def holder_of(path: str) -> Lease | None:
    """Return what the holder wrote, or None if it has not got round to it."""
    try:
        fd, _ = open_regular(path, os.O_RDONLY)
    except OSError:
        return None  # whoever asks is told that it is held, if not by whom
    try:
        return msgspec.json.decode(os.read(fd, _MOST), type=Lease, dec_hook=dec_hook)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    finally:
        close_quietly(fd)
