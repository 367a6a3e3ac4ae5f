"""Replacing and removing a file so that a crash leaves the old state or the new one."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence

from . import disk
from .flush import Flush, Writing, flush_file

__all__ = ["NotDurable", "publish", "withdraw"]

_log = logging.getLogger(__name__)


class NotDurable(OSError):
    """The change was made and can be seen, but the directory did not reach the disk."""


def publish(
    path: str,
    temporary: str,
    chunks: Sequence[bytes],
    *,
    mode: int,
    durable: bool,
    saved: int | None = None,
    on_visible: Callable[[], None],
) -> Writing[os.stat_result]:
    """Put `chunks`, joined, in the place of `path` by way of `temporary`, in the same directory.

    It gets the time `saved`, in nanoseconds since 1970; that of this moment by default.
    Calls `on_visible` as soon as readers see it. Returns what the new file is.

    Raises:
        NotDurable: It failed after that.
        OSError: It failed before; `path` is as it was, and `temporary` is gone.
    """
    # The directory is opened first: running out of descriptors cannot strike after the rename.
    directory = _open_parent(path, durable)
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | disk.SAFE, mode)
        try:
            status = yield from _fill(fd, temporary, chunks, durable, saved)
            disk.replace(temporary, path)
        except BaseException:
            _discard(temporary)
            raise
        on_visible()
        yield from _flush(directory, path)
    finally:
        _close(directory)
    return status


def withdraw(path: str, *, durable: bool) -> Writing[None]:
    """Remove `path`.

    Raises:
        NotDurable: It is removed, but a power cut may bring it back.
        OSError: It is not removed.
    """
    directory = _open_parent(path, durable)
    try:
        os.unlink(path)
        yield from _flush(directory, path)
    finally:
        _close(directory)


def _fill(
    fd: int, path: str, chunks: Sequence[bytes], durable: bool, saved: int | None
) -> Writing[os.stat_result]:
    try:
        for chunk in chunks:
            disk.write_whole(fd, chunk)
        disk.stamp(fd, path, time.time_ns() if saved is None else saved)
        if durable:
            yield from flush_file(fd)
        return os.fstat(fd)
    finally:
        os.close(fd)


def _discard(temporary: str) -> None:
    try:
        os.unlink(temporary)
    except OSError as error:
        # What made the caller fail is raised; the file is removed by a later listing.
        _log.warning("could not remove %s: %s", temporary, error)


def _open_parent(path: str, durable: bool) -> int | None:
    return disk.open_directory(os.path.dirname(path)) if durable else None


def _flush(directory: int | None, path: str) -> Writing[None]:
    if directory is not None:
        try:
            yield Flush(directory, disk.sync_directory, directory=os.path.dirname(path))
        except OSError as error:
            raise NotDurable(error.errno, error.strerror, path) from error


def _close(directory: int | None) -> None:
    if directory is not None:
        disk.close_directory(directory)
