"""Counting, failing and killing at the file operations that Python code makes, one by one."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Callable
from typing import Any, Self

from portalocker.portalocker import FlockLocker

_NAMES = [
    *("open", "close", "read", "readv", "pread", "write", "writev", "pwrite", "lseek"),
    *("fsync", "fdatasync", "sync", "utime", "truncate", "ftruncate", "chmod", "fchmod"),
    *("stat", "lstat", "fstat", "scandir", "listdir", "access", "readlink"),
    *("replace", "rename", "unlink", "remove", "link", "symlink", "mkdir", "rmdir", "makedirs"),
]
_MOST = 500

Real = Callable[[], Any]
Action = Callable[[int, str, Real, tuple[Any, ...]], Any]
"""What to do instead of operation number n: its name, the real thing, its arguments."""


class Runaway(BaseException):
    """So many operations that the code under test would never end."""


class Operations:
    """Context in which `action` stands before each file operation of the threads under watch.

    Args:
        action: What happens at an operation.
        worker_threads: Watch every thread but this one, instead of this one.
    """

    def __init__(self, action: Action, *, worker_threads: bool = False) -> None:
        self.names: list[str] = []
        self._action = action
        self._worker_threads = worker_threads
        self._home = threading.get_ident()
        self._mutex = threading.Lock()
        self._real: dict[str, Any] = {}

    def __enter__(self) -> Self:
        for name in _NAMES:
            self._real[name] = getattr(os, name)
            setattr(os, name, self._wrapped(name, self._real[name]))
        # portalocker keeps its own reference to the function.
        FlockLocker._locker = staticmethod(self._wrapped("lock", fcntl.flock))
        return self

    def __exit__(self, *exc: object) -> None:
        for name, real in self._real.items():
            setattr(os, name, real)
        FlockLocker._locker = fcntl.flock

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*args: Any, **kwargs: Any) -> Any:
            if (threading.get_ident() == self._home) is self._worker_threads:
                return real(*args, **kwargs)
            called = name
            if name == "lock" and args[1] & fcntl.LOCK_UN:
                called = "unlock"
            with self._mutex:
                number = len(self.names)
                self.names.append(called)
            if number > _MOST:
                raise Runaway(f"{number} operations, the last are {self.names[-5:]}")
            return self._action(number, called, lambda: real(*args, **kwargs), args)

        return operation


def only_count(number: int, name: str, real: Real, args: tuple[Any, ...]) -> Any:
    """Do what was asked for."""
    return real()


def kill_at(target: int, moment: str) -> Action:
    """Kill the process at operation `target`: "before" or "after" it, or "half" through a write."""

    def action(number: int, name: str, real: Real, args: tuple[Any, ...]) -> Any:
        if number != target:
            return real()
        try:
            if moment == "after":
                real()
            elif moment == "half":
                data = bytes(args[1])
                _write(args[0], data[: len(data) // 2])
        finally:  # also when there is no such file
            os.kill(os.getpid(), signal.SIGKILL)

    return action


_write = os.write


def fail_at(
    target: int, make_error: Callable[[], BaseException], *, for_good: bool = False
) -> Action:
    """Raise at operation `target`, and with `for_good` at every one that follows.

    A close that fails has closed the descriptor all the same, as on Linux.
    """

    def action(number: int, name: str, real: Real, args: tuple[Any, ...]) -> Any:
        if number != target and not (for_good and number > target):
            return real()
        if name == "close":
            real()
        raise make_error()

    return action
