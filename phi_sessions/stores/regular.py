"""Opening files of a directory that others may write to. Everything here blocks."""

from __future__ import annotations

import errno
import logging
import os
import stat
from typing import Final

__all__ = ["SAFE", "close_quietly", "open_regular"]

# A symbolic link would lead to another tenant's data, and opening a FIFO would wait for ever.
SAFE: Final = (
    getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
)
"""Flags for every `os.open` here."""

_log = logging.getLogger(__name__)


def open_regular(path: str, flags: int, mode: int = 0o600) -> tuple[int, os.stat_result]:
    """Open a regular file and return its descriptor and status.

    Raises:
        OSError: It cannot be opened, or is a link, directory, FIFO, socket or device.
    """
    fd = os.open(path, flags | SAFE, mode)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
    except BaseException:
        close_quietly(fd)
        raise
    return fd, status


def close_quietly(fd: int) -> None:
    """Close a descriptor that nothing was written through: a failure changes no outcome."""
    try:
        os.close(fd)
    except OSError as error:
        _log.warning("could not close descriptor %d: %s", fd, error)
