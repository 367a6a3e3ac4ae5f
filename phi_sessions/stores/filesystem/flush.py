"""What a writer waits for: bytes that must reach the disk before it goes on.

A writer is a generator. It yields each `Flush` that it needs and is resumed when that is done, or
is thrown the error. So whoever runs it decides whether it waits alone or together with others.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from typing import NamedTuple, TypeVar

from . import disk

__all__ = ["Flush", "Writing", "alone", "flush_data", "flush_directory", "flush_file"]

T = TypeVar("T")


class Flush(NamedTuple):
    """One file, or one directory's entries, that must reach the disk."""

    fd: int
    sync: Callable[[int], None]
    start: int = 0
    """From which byte of a file there is something to write."""

    directory: str | None = None
    """Which directory's entries; one flush of them serves all who ask for it at that time."""

    def begin(self) -> None:
        """Have the kernel begin with it, without waiting, where that makes the wait shorter."""
        if self.directory is None:
            with suppress(OSError):  # the wait itself tells what is wrong
                disk.begin_writing(self.fd, self.start)

    def attempt(self) -> BaseException | None:
        """Bring it to the disk; return what went wrong, for the writer to be thrown."""
        try:
            self.sync(self.fd)
        except BaseException as error:  # noqa: BLE001 - the writer is told
            return error
        return None


Writing = Generator[Flush, None, T]


def flush_file(fd: int) -> Writing[None]:
    """Wait for a file."""
    yield Flush(fd, disk.sync_file)


def flush_data(fd: int, start: int) -> Writing[None]:
    """Wait for a file's bytes from `start`, and of its attributes for what reading them takes."""
    yield Flush(fd, disk.sync_data, start)


def flush_directory(path: str) -> Writing[None]:
    """Wait for the entries of the directory `path`."""
    fd = disk.open_directory(path)
    try:
        yield Flush(fd, disk.sync_directory, directory=path)
    finally:
        disk.close_directory(fd)


def alone(writing: Writing[T]) -> T:
    """Run a writer that shares its waits with nobody."""
    error: BaseException | None = None
    try:
        while True:
            try:
                flush = next(writing) if error is None else writing.throw(error)
            except StopIteration as end:
                result: T = end.value
                return result
            error = flush.attempt()
    finally:
        writing.close()  # an interrupted one lets go of its lock at once
        del error
