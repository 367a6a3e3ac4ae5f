"""Other programs that hold a session's lock for a while."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_PYTHON = """
import fcntl, os, sys, time
path, call, seconds = sys.argv[1], getattr(fcntl, sys.argv[2]), float(sys.argv[3])
fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
call(fd, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(seconds)
"""


def needs_flock_program() -> None:
    """Skip the test where util-linux is missing."""
    if shutil.which("flock") is None:
        pytest.skip("the flock program of util-linux is not installed")


def flock_program(path: Path, seconds: float) -> list[str]:
    """Return a command that holds flock(2) by util-linux."""
    inner = f"echo held && exec sleep {seconds}"
    return ["flock", "--exclusive", "--no-fork", str(path), "sh", "-c", inner]


def python_flock(path: Path, seconds: float) -> list[str]:
    """Return a command that holds flock(2) by Python."""
    return [sys.executable, "-c", _PYTHON, str(path), "flock", str(seconds)]


def python_lockf(path: Path, seconds: float) -> list[str]:
    """Return a command that holds an fcntl(2) record lock, which flock(2) takes no notice of."""
    return [sys.executable, "-c", _PYTHON, str(path), "lockf", str(seconds)]


@contextmanager
def holding(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Yield the process when it holds the lock; it is killed at the end of the block."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    watchdog = threading.Timer(30, process.kill)
    watchdog.daemon = True
    watchdog.start()
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


def is_locked(path: Path) -> bool:
    """Return whether the flock program is refused the lock at this moment."""
    done = subprocess.run(
        ["flock", "--exclusive", "--nonblock", str(path), "true"], timeout=10, check=False
    )
    assert done.returncode in (0, 1)
    return done.returncode == 1
