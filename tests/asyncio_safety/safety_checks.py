"""What the tests of this folder look at from outside: locks, files, threads, suspensions."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from phi_sessions import FileSystemSessionStore, LoopRecord, Session

T = TypeVar("T")

_JOBS = f"{os.sep}stores{os.sep}filesystem{os.sep}"

_HOLDER = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(fd, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def version(n: int, session_id: str = "s-1", *, size: int = 1, agent_id: str = "a") -> Session:
    """Return a session whose every part says `n`, with `size` loops of about a kilobyte."""
    loops = [
        LoopRecord(f"{session_id}.{k}", session_id, agent_id, metadata={"n": n, "fill": "x" * 900})
        for k in range(size)
    ]
    return Session(session_id, agent_id, metadata={"n": n}, loops=loops)


def number(session: Session) -> int:
    """Return the `n` of a session after making sure that it is all of one piece."""
    n = session.metadata["n"]
    assert all(record.metadata["n"] == n for record in session.loops)
    return int(n)


def lock_path(store: FileSystemSessionStore, session_id: str = "s-1") -> Path:
    return store.dir / f"{session_id}.json.lock"


def lock_is_free(path: Path) -> bool:
    """Whether somebody else could take the lock now."""
    if not path.exists():
        return True
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def in_flight(directory: Path) -> list[str]:
    """Return the names of the temporary files."""
    return [name for name in os.listdir(directory) if ".tmp." in name] if directory.exists() else []


def busy(store: FileSystemSessionStore) -> list[str]:
    """Return what the store's threads are doing just now, beyond waiting for work."""
    frames, doing = sys._current_frames(), []
    for thread in store._workers._threads:
        frame = frames.get(thread.ident or 0)
        while frame is not None:
            where = frame.f_code.co_filename
            if _JOBS in where and not where.endswith("committer.py"):  # which waits for work, too
                doing.append(f"{thread.name}: {frame.f_code.co_name}")
            frame = frame.f_back
    return doing


def assert_quiet(store: FileSystemSessionStore) -> None:
    """Nothing of any call runs any more, and no trace of one is left."""
    assert busy(store) == []
    assert in_flight(store.dir) == []
    held = [path.name for path in store.dir.glob("*.lock") if not lock_is_free(path)]
    assert held == []
    assert store._turnstile._queues == {}


@contextmanager
def held_by_descriptor(path: Path) -> Iterator[Callable[[], None]]:
    """Hold a lock through a descriptor of our own; give a function that lets go early."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield lambda: fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


@contextmanager
def held_by_process(path: Path) -> Iterator[Callable[[], None]]:
    """Hold a lock in another process; give a function that ends it early."""
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None

    def end() -> None:
        if holder.poll() is None:
            holder.kill()
            holder.wait(10)

    try:
        assert holder.stdout.readline() == "held\n"
        yield end
    finally:
        end()
        holder.stdin.close()
        holder.stdout.close()
