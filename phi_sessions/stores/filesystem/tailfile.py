"""The tail of a session on the disk: reading it, adding a line, taking it away.

Everything here blocks. What changes a tail is only called while the session's lock is held.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from typing import NamedTuple

from ...errors import SessionCorruptError
from ...model import Revision
from . import disk
from .flush import Writing, flush_data, flush_directory
from .layout import Paths
from .publish import NotDurable
from .tail import TRAILER, Tail, first_line, line_length, parse, revision_of

__all__ = [
    "Ending",
    "add_line",
    "clear",
    "cut",
    "read_ending",
    "read_tail",
    "remove",
    "set_aside",
    "start",
]

_FIRST = 128
_log = logging.getLogger(__name__)


class Ending(NamedTuple):
    """What the two ends of a tail tell, however long it is."""

    extends: Revision
    revision: Revision
    size: int
    """Bytes of whole lines."""

    has_steps: bool
    is_torn: bool


def read_tail(paths: Paths, max_bytes: int) -> Tail | None:
    """Return the tail as far as it is whole, or None if there is none.

    Raises:
        OSError: It cannot be read.
        SessionCorruptError, msgspec.MsgspecError, UnicodeDecodeError: It is damaged, or too large.
    """
    try:
        fd, status = disk.open_regular(paths.tail, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        _require_size(status.st_size, max_bytes)
        tail = parse(disk.read_whole(fd, status.st_size))
    finally:
        disk.close_quietly(fd)
    return None if tail is None else tail._replace(mtime_ns=status.st_mtime_ns)


def read_ending(paths: Paths, max_bytes: int) -> Ending | None:
    """Return where the tail ends, or None if there is none. Without a first line it ends at 0.

    Raises:
        OSError: It cannot be read.
        SessionCorruptError, msgspec.MsgspecError: A line before the last is damaged, or it is too
            large.
    """
    try:
        fd, status = disk.open_regular(paths.tail, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        size = status.st_size
        _require_size(size, max_bytes)
        first, found, _ = os.read(fd, _FIRST).partition(b"\n")
        if not size:
            return Ending(Revision(""), Revision(""), 0, has_steps=False, is_torn=False)
        extends = revision_of(first + found)
        os.lseek(fd, max(size - TRAILER, 0), os.SEEK_SET)
        length = line_length(os.read(fd, TRAILER))
        if length is not None and length <= size:
            os.lseek(fd, size - length, os.SEEK_SET)
            revision = revision_of(disk.read_whole(fd, length))
            if revision is not None and extends is not None:
                has_steps = size > len(first) + 1
                return Ending(extends, revision, size, has_steps, is_torn=False)
        os.lseek(fd, 0, os.SEEK_SET)
        tail = parse(disk.read_whole(fd, size))
    finally:
        disk.close_quietly(fd)
    if tail is None:
        return Ending(Revision(""), Revision(""), 0, has_steps=False, is_torn=True)
    return Ending(tail.extends, tail.revision, tail.size, bool(tail.steps), is_torn=True)


def _require_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        reason = f"{size:,} bytes, max_bytes is {max_bytes:,}"
        raise SessionCorruptError(reason, reason=reason)


def start(
    paths: Paths,
    extends: Revision,
    line: bytes,
    *,
    mode: int,
    durable: bool,
    on_visible: Callable[[], None],
) -> Writing[os.stat_result | None]:
    """Begin a tail with its first line and `line`.

    The tail is known to the directory's disk before `line` is written: whoever adds to a tail
    that has lines relies on it. Returns the tail's status then, see `disk.status_of`.

    Raises:
        NotDurable: It can be seen, but did not reach the disk.
        OSError: It was not begun.
    """
    fd = os.open(paths.tail, os.O_WRONLY | os.O_CREAT | os.O_EXCL | disk.SAFE, mode)
    try:
        first = first_line(extends)
        try:
            disk.write_whole(fd, first)
            if durable:
                yield from flush_data(fd, 0)
                yield from flush_directory(paths.directory)
            disk.write_whole(fd, line)
        except BaseException:
            remove(paths)
            raise
        return (yield from _bring(fd, paths.tail, len(first), durable, on_visible))
    finally:
        disk.close_quietly(fd)


def add_line(
    paths: Paths, ending: Ending, line: bytes, *, durable: bool, on_visible: Callable[[], None]
) -> Writing[os.stat_result | None]:
    """Add `line` behind the last whole line; a torn one is set aside first.

    Returns the tail's status then, see `disk.status_of`.

    Raises:
        NotDurable: It can be seen, but did not reach the disk.
        OSError: It was not added.
    """
    if ending.is_torn:
        cut(paths, ending.size)
    if durable and not ending.has_steps:
        # Who began it may have died before the disk knew of it.
        yield from flush_directory(paths.directory)
    fd, status = disk.open_regular(paths.tail, os.O_WRONLY | os.O_APPEND)
    try:
        if status.st_size != ending.size:
            raise OSError(errno.EIO, "changed while it was locked", paths.tail)
        try:
            disk.write_whole(fd, line)
        except BaseException:
            # Nobody was told of it: what was written of it goes, or is found torn.
            os.ftruncate(fd, ending.size)
            disk.stamp(fd, paths.tail, status.st_mtime_ns)  # nothing was saved by it
            raise
        return (yield from _bring(fd, paths.tail, ending.size, durable, on_visible))
    finally:
        disk.close_quietly(fd)


def set_aside(paths: Paths) -> None:
    """Give a tail that belongs to no session file a name of its own."""
    aside = paths.aside()
    disk.replace(paths.tail, aside)
    _log.warning(
        "%s belongs to no stored state of its session, and is kept as %s", paths.tail, aside
    )


def clear(paths: Paths, ending: Ending, *, durable: bool) -> Writing[None]:
    """Take away a tail that a crash left behind: nothing in it counts.

    Raises:
        OSError: It is still there.
    """
    if ending.is_torn:
        set_aside(paths)
        return
    if durable:
        # The session file that took it in may not have reached the disk.
        yield from flush_directory(paths.directory)
    remove(paths)


def remove(paths: Paths) -> None:
    """Remove a tail that the session file took in; left behind it would do no harm."""
    _unlink(paths.tail)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        _log.info("could not remove %s: %s", path, error)


def _bring(
    fd: int, path: str, start: int, durable: bool, on_visible: Callable[[], None]
) -> Writing[os.stat_result | None]:
    """Bring a line that was written from `start` on to the disk."""
    on_visible()
    if durable:
        try:
            yield from flush_data(fd, start)
        except OSError as error:
            raise NotDurable(error.errno, error.strerror, path) from error
    return disk.status_of(fd)


def cut(paths: Paths, size: int) -> None:
    """Set aside what is behind the first `size` bytes, and end the tail there."""
    fd, status = disk.open_regular(paths.tail, os.O_RDWR)
    try:
        os.lseek(fd, size, os.SEEK_SET)
        torn = disk.read_whole(fd, status.st_size - size)
        aside = paths.aside()
        copy = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | disk.SAFE, 0o600)
        try:
            disk.write_whole(copy, torn)
        except BaseException:
            _unlink(aside)  # the torn line is where it was
            raise
        finally:
            os.close(copy)
        os.ftruncate(fd, size)
        disk.stamp(fd, paths.tail, status.st_mtime_ns)  # nothing was saved by it
        _log.warning("%s ended with a torn line, which is kept as %s", paths.tail, aside)
    finally:
        disk.close_quietly(fd)
