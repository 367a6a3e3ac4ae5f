"""Sessions whose every part says which version they are, and the file seen from outside."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from phi_sessions import LoopRecord, Session

PROGRAMS = Path(__file__).with_name("sqlite_programs.py")
TIMEOUT = 60


def version(n: int, session_id: str = "s-1", *, size: int = 1, agent_id: str = "a") -> Session:
    """Return a session of `size` loops of about a kilobyte, all of which say `n`."""
    loops = [
        LoopRecord(f"{session_id}.{k}", session_id, agent_id, metadata={"n": n, "fill": "x" * 900})
        for k in range(size)
    ]
    return Session(session_id, agent_id, metadata={"n": n}, loops=loops)


def renumber(session: Session, n: int) -> None:
    """Have a session say `n`."""
    session.metadata["n"] = n
    for record in session.loops:
        record.metadata["n"] = n


def number(session: Session) -> int:
    """Return the `n` of a session after making sure that it is all of one piece."""
    n = session.metadata["n"]
    assert all(record.metadata["n"] == n for record in session.loops)
    return int(n)


def record(name: str, session_id: str = "s-1") -> LoopRecord:
    return LoopRecord(name, session_id, "a")


def environment() -> dict[str, str]:
    """Return the environment of a child that imports what this process can."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


def start(program: str, path: Path, *args: object) -> subprocess.Popen[str]:
    """Start a program of `sqlite_programs.py`."""
    return subprocess.Popen(
        [sys.executable, str(PROGRAMS), program, str(path), *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def end(process: subprocess.Popen[str]) -> None:
    """Kill a program if it runs still, and forget it."""
    process.kill()
    process.communicate(timeout=TIMEOUT)


@contextmanager
def running(*calls: tuple[Any, ...]) -> Iterator[list[subprocess.Popen[str]]]:
    """Yield programs that have said that they are ready, and end them."""
    processes = [start(*call) for call in calls]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield processes
    finally:
        for process in processes:
            end(process)


def go(process: subprocess.Popen[str]) -> None:
    """Tell a program that is ready to go on."""
    assert process.stdin is not None
    print("go", file=process.stdin, flush=True)


def run(program: str, path: Path, *args: object) -> str:
    """Run a program to its end and return what it printed."""
    done = subprocess.run(
        [sys.executable, str(PROGRAMS), program, str(path), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=environment(),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@contextmanager
def another(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield another program's connection to the database."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=0)
    try:
        yield connection
    finally:
        connection.close()


def rows(path: Path, statement: str, *values: object) -> list[Any]:
    """Return what another program reads in the database."""
    with another(path) as connection:
        return connection.execute(statement, values).fetchall()


def assert_sound(path: Path) -> None:
    """SQLite finds nothing wrong with the file, and each session has the records that it says."""
    with another(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
        orphans = "SELECT 1 FROM records WHERE session NOT IN (SELECT number FROM sessions)"
        assert connection.execute(orphans).fetchall() == []
        astray = "SELECT 1 FROM records WHERE place >> 32 != session"
        assert connection.execute(astray).fetchall() == []
        counted = (
            "SELECT session_id FROM sessions WHERE records !="
            " (SELECT count(*) FROM records WHERE session = number)"
        )
        assert connection.execute(counted).fetchall() == []
