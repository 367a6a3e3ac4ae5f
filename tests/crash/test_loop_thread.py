"""The event loop's thread makes no file system call under the store's directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from crash_trace import Call, needs_strace, parse

pytestmark = needs_strace

_EVERYTHING = """
import asyncio, sys
from datetime import UTC, datetime
from phi_sessions import (
    Expect, FileSystemSessionStore, LoopRecord, Session, SessionConflictError,
    SessionCorruptError, SessionNotFoundError,
)

def big(session_id):
    session = Session(session_id, "agent")
    for number in range(40):
        loop = LoopRecord(f"loop-{number}", session_id, "agent")
        text = "x" * 100_000
        loop.messages = [{"role": "user", "content": [{"type": "text", "text": text}]}]
        session.loops.append(loop)
    return session

async def main(directory):
    async with FileSystemSessionStore(directory) as store:
        session = Session("s", "agent")
        await store.save(session)
        await store.save(session)
        await store.save(big("big"))
        await asyncio.gather(*(store.save(Session("contended", "agent")) for _ in range(20)))
        (await store.load("big")).loops[0].messages
        await store.load("s")
        await store.find("absent")
        await store.exists("s")
        await store.list_ids()
        await store.list_for_agent("agent")
        [info async for info in store.infos(agent_id="agent")]
        try:
            await store.save(session, expect=Expect.ABSENT)
            raise AssertionError
        except Exception as error:
            assert "exists" in str(error), error
        saving = asyncio.create_task(store.save(session))
        await asyncio.sleep(0)
        saving.cancel()
        await asyncio.wait([saving])
        await store.delete("s")
        try:
            await store.delete("s")
            raise AssertionError
        except SessionNotFoundError:
            pass

asyncio.run(main(sys.argv[1]))
"""
_CARELESS = """
import asyncio, os, sys
from phi_sessions import FileSystemSessionStore, Session

async def main(directory):
    async with FileSystemSessionStore(directory) as store:
        await store.save(Session("s", "agent"))
        {careless}

asyncio.run(main(sys.argv[1]))
"""


def _traced(code: str, top: Path) -> tuple[list[Call], int]:
    """Return the system calls of a program, and the id of its main thread."""
    target = top / "trace.txt"
    command = ["strace", "-f", "-y", "-s", "300", "-e", "trace=%file,%desc", "-o", str(target)]
    done = subprocess.run(
        [*command, sys.executable, "-P", "-c", code, str(top / "sessions")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    calls = parse(target.read_text())
    return calls, calls[0].thread


def _about_files_of(calls: list[Call], directory: Path) -> list[Call]:
    """Return the calls that touch the directory; a program's arguments do not."""
    return [c for c in calls if c.concerns(directory) and c.name not in ("execve", "readlink")]


def test_the_loop_thread_makes_no_file_system_call(tmp_path: Path) -> None:
    calls, loop_thread = _traced(_EVERYTHING, tmp_path)
    touching = _about_files_of(calls, tmp_path / "sessions")
    made = {call.name for call in touching if call.thread != loop_thread}
    expected = {"openat", "flock", "write", "fsync", "rename", "unlink", "mkdir", "read"}
    assert expected | {"getdents64"} <= made
    assert [str(call) for call in touching if call.thread == loop_thread] == []


def test_the_first_lock_imports_portalocker_in_a_worker_thread(tmp_path: Path) -> None:
    calls, loop_thread = _traced(_EVERYTHING, tmp_path)
    reading = [
        call
        for call in calls
        if call.name == "openat" and any("/portalocker/" in p for p in call.paths)
    ]
    assert reading
    assert [str(call) for call in reading if call.thread == loop_thread] == []


def test_the_trace_reports_a_call_that_the_loop_thread_makes(tmp_path: Path) -> None:
    for number, careless in enumerate(["os.listdir(directory)", "os.stat(directory + '/s.json')"]):
        top = tmp_path / str(number)
        top.mkdir()
        calls, loop_thread = _traced(_CARELESS.format(careless=careless), top)
        touching = _about_files_of(calls, top / "sessions")
        assert [call for call in touching if call.thread == loop_thread]
