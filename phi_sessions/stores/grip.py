"""Locks that are held from one job to the next, and leases, which are files that are locked so.

A lease's file also tells who holds it. It is made once and never removed. What it says counts only
while it is locked, and the kernel unlocks it when the holder dies. All but `given_back` blocks.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from ..errors import SessionTaskError
from ..lease import Lease
from ..record import dec_hook, enc_hook
from .finishing import to_its_end
from .flock import acquire, release
from .regular import close_quietly, open_regular
from .workers import Workers

__all__ = ["Grip", "given_back", "holder_of"]

_MOST: Final = 65536


class Grip:
    """Where a lock that was acquired is kept, even if its caller is gone by then."""

    __slots__ = ("_fd", "_is_over", "_mutex")

    def __init__(self) -> None:
        self._fd: int | None = None
        self._is_over = False
        self._mutex = threading.Lock()

    @property
    def is_firm(self) -> bool:
        """Whether the lock is held."""
        return self._fd is not None

    def keep(self, fd: int) -> None:
        """Hold a lock that was acquired; after `let_go` it is given back at once."""
        with self._mutex:
            if not self._is_over:
                self._fd = fd
                return
        release(fd)

    def hand_over(self) -> int | None:
        """Return the lock to one who will release it; None if it is not held."""
        with self._mutex:
            fd, self._fd = self._fd, None
        return fd

    def let_go(self) -> None:
        """Give the lock back, and hold none from now on."""
        self._is_over = True
        if (fd := self.hand_over()) is not None:
            release(fd)

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
        self.keep(fd)


@asynccontextmanager
async def given_back(workers: Workers) -> AsyncGenerator[Grip]:
    """Give a grip, and let go of what it holds in the end, on one of the store's threads."""
    grip = Grip()
    try:
        yield grip
    except GeneratorExit:  # its event loop is gone: nobody is left to wait for a thread
        grip.let_go()
        raise
    finally:
        if grip.is_firm:
            await to_its_end(_let_go(workers, grip))


async def _let_go(workers: Workers, grip: Grip) -> None:
    try:
        await workers.run(grip.let_go)
    except SessionTaskError:
        pass  # the store was closed before, and has no thread left
    finally:
        grip.let_go()  # if no thread has: none was left, or the event loop ends before one is free


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
