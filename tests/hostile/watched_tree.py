"""What a directory tree holds, so that a test can say that nothing in it changed."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

Entry = tuple[int, int, int, str]


def entry_of(path: Path) -> Entry:
    """Return the mode, inode, time of change and content of what is at `path` itself."""
    status = path.lstat()
    content = ""
    if stat.S_ISREG(status.st_mode):
        content = hashlib.blake2b(path.read_bytes()).hexdigest()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    return status.st_mode, status.st_ino, status.st_mtime_ns, content


def tree_of(root: Path, *, without: Path | None = None) -> dict[str, Entry]:
    """Return everything below `root`, `root` itself included, except `without`.

    Of `without` itself only counts that it is there.
    """
    found = {".": entry_of(root)}
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = Path(directory, name)
            entry = entry_of(path)
            if path == without:
                names[:] = [other for other in names if other != name]
                entry = (0, 0, 0, "")
            found[str(path.relative_to(root))] = entry
    return found
