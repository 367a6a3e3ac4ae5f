"""Noticing calls that block, made on the thread of an event loop."""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any, Final

__all__ = ["blocking_calls_noted"]

_BLOCKING: Final = {
    "time": {"sleep"},
    "io": {"open", "open_code"},
    "fcntl": {"flock", "lockf"},
    "socket": {"getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr"},
    "sqlite3": {"connect"},
    "posix": {
        # Not stat and its kind: drivers look whether there are certificates and password files.
        *("open", "listdir", "scandir", "statvfs"),
        *("mkdir", "rmdir", "rename", "replace", "link", "symlink", "unlink", "remove", "utime"),
        *("chmod", "chown", "truncate", "ftruncate", "fsync", "fdatasync", "sync", "lockf"),
        *("pread", "pwrite", "preadv", "pwritev", "sendfile", "copy_file_range"),
        *("posix_fallocate", "system", "waitpid", "wait4"),
    },
}
_ALIASES: Final = {"_io": "io", "nt": "posix", "_sqlite3": "sqlite3", "_socket": "socket"}
_METHODS: Final = {
    "sqlite3": {
        *("execute", "executemany", "executescript", "commit", "rollback", "backup"),
        *("fetchone", "fetchmany", "fetchall"),
    },
    "socket": {"connect", "accept", "recv", "recv_into", "recvfrom", "send", "sendall", "sendto"},
    "io": {"read", "readline", "readlines", "readinto", "write", "flush", "truncate"},
}
_FILES: Final = (io.FileIO, io.BufferedReader, io.BufferedWriter, io.BufferedRandom)
_NOT_THE_STORES: Final = {"importlib._bootstrap", "linecache", "traceback", "warnings"}
"""Modules that look at files for reasons of their own, whoever calls them."""


@contextmanager
def blocking_calls_noted() -> Generator[list[str]]:
    """Note each call of this thread that may block it, and who made it.

    It sees the C functions that Python's own modules are made of, by whatever name they were
    imported: files, locks on files, sleep, sqlite3, sockets that block, look-ups of names. What a
    driver does in its own C code it does not see; see `loop_watch` for that.
    """
    noted: list[str] = []

    def note(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and _blocks(called) and _is_of_a_store(frame):
            stack = traceback.format_list(traceback.extract_stack(frame, limit=4))
            noted.append(f"{_name(called)}, called at\n{''.join(stack).rstrip()}")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield noted
    finally:
        sys.setprofile(before)


def _blocks(called: Any) -> bool:
    owner = getattr(called, "__self__", None)
    name = str(getattr(called, "__name__", ""))
    if owner is None or isinstance(owner, ModuleType):
        return name in _BLOCKING.get(_module(called), ())
    module = _module(type(owner))
    if name not in _METHODS.get(module, ()):
        return False
    if module == "socket":
        return bool(owner.gettimeout() != 0)
    return module != "io" or isinstance(owner, _FILES)


def _module(named: Any) -> str:
    module = str(getattr(named, "__module__", ""))
    return _ALIASES.get(module, module)


def _is_of_a_store(frame: FrameType) -> bool:
    if frame.f_globals.get("__name__", "").startswith(__package__ or ""):
        return False
    caller: FrameType | None = frame
    while caller is not None:
        if caller.f_globals.get("__name__") in _NOT_THE_STORES:
            return False
        caller = caller.f_back
    return True


def _name(called: Any) -> str:
    owner = getattr(called, "__self__", None)
    if owner is None or isinstance(owner, ModuleType):
        return f"{_module(called)}.{called.__name__}"
    return f"{_module(type(owner))}: {called.__qualname__}"
