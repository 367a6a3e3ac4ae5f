"""What a power cut may leave of a trace of system calls, by the promises of POSIX alone.

The data of a file are safe when an fsync of it has ended after they were written. A change of a
directory's entry (create, rename, unlink, mkdir) is safe when an fsync of that directory has ended
after it. Before that each of the entry's states since the last fsync may be what is found.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterable
from pathlib import Path

from crash_trace import Call

ABSENT = "absent"
TORN = "torn"

_READING = {
    *("read", "pread64", "lseek", "close", "flock", "access", "faccessat2", "getdents64", "fcntl"),
    *("newfstatat", "fstat", "stat", "lstat", "statx", "readlink", "utimensat", "ioctl"),
}


class Disk:
    """The files and directories below `top`; what is there before the trace is safe.

    Args:
        top: Only what happens below counts.
        existing: Paths of files that are there, and what to call what they hold.
    """

    def __init__(self, top: Path, existing: dict[Path, str] | None = None) -> None:
        self._top = str(top)
        self._states: dict[str, list[str | None]] = {}
        self._safe: set[str] = set()
        self._made = 0
        for path, content in (existing or {}).items():
            self._states[str(path)] = [content]
            self._safe.add(content)

    def holds(self, path: Path) -> str | None:
        """Return what readers find at `path` before the power is cut."""
        return self._states.get(str(path), [None])[-1]

    def may_leave(self, path: Path) -> set[str]:
        """Return what may be found at `path` after a power cut now."""
        outcomes: set[str] = set()
        parent = os.path.dirname(path)
        while parent.startswith(self._top):
            if None in self._states.get(parent, []):
                outcomes.add(ABSENT)
            parent = os.path.dirname(parent)
        for content in self._states.get(str(path), [None]):
            if content is None:
                outcomes.add(ABSENT)
                continue
            outcomes.add(content)
            if content not in self._safe:
                outcomes.add(TORN)
        return outcomes

    def replay(self, calls: Iterable[Call]) -> None:
        """Do to the model what the calls did to the disk."""
        for call in calls:
            self.do(call)

    def do(self, call: Call) -> None:
        """Do to the model what a call did to the disk.

        Raises:
            AssertionError: The model does not know what it does.
        """
        if call.failed or not call.concerns(Path(self._top)):
            return
        paths = call.paths
        match call.name:
            case "openat" | "open":
                path = paths[0]
                if "O_CREAT" in call.arguments and self._states.get(path, [None])[-1] is None:
                    self._made += 1
                    self._change(path, f"file {self._made}")
            case "mkdir" | "mkdirat":
                self._change(paths[0], "directory")
                self._safe.add("directory")
            case "write" | "pwrite64" | "writev" | "ftruncate":
                self._safe.discard(self._open_file(paths[0]))
            case "fsync" | "fdatasync":
                content = self._states.get(paths[0], [None])[-1]
                if paths[0] == self._top or content in (None, "directory"):
                    self._sync_entries(paths[0])
                else:
                    self._safe.add(self._open_file(paths[0]))
            case "rename" | "renameat" | "renameat2":
                source, target = paths
                self._change(target, self._open_file(source))
                self._change(source, None)
            case "unlink" | "unlinkat" | "rmdir":
                self._change(paths[0], None)
            case name:
                assert name in _READING, f"the model does not know {call}"

    def _change(self, path: str, content: str | None) -> None:
        self._states.setdefault(path, [None]).append(content)

    def _open_file(self, path: str) -> str:
        content = self._states[path][-1]
        assert content is not None, path
        return content

    def _sync_entries(self, directory: str) -> None:
        entry = re.compile(re.escape(directory) + "/[^/]+")
        for path, states in self._states.items():
            if entry.fullmatch(path):
                del states[:-1]
