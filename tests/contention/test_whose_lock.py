"""Which locks of other programs exclude ours, and which ours excludes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from lock_holders import holding, is_locked, needs_flock_program, python_lockf

from phi_sessions import FileSystemSessionStore, Session
from phi_sessions.stores.flock import acquire, release

_SAVE = """
import sys
from phi_sessions import Session, save_session
print("ready", flush=True)
sys.stdin.readline()
save_session(Session("s", "agent"), sys.argv[1])
"""


async def test_an_fcntl_record_lock_is_taken_no_notice_of(tmp_path: Path) -> None:
    async with FileSystemSessionStore(tmp_path, lock_timeout=0) as store:
        session = Session("s", "agent")
        await store.save(session)
        with holding(python_lockf(tmp_path / "s.json.lock", 60)) as holder:
            await store.save(session)
            await store.delete("s")
            assert holder.poll() is None


def test_the_flock_program_is_kept_out_while_the_lock_is_held(tmp_path: Path) -> None:
    needs_flock_program()
    lock = tmp_path / "s.json.lock"
    held = acquire(str(lock))
    try:
        assert is_locked(lock)
    finally:
        release(held)
    assert not is_locked(lock)
    assert lock.stat().st_size == 0
    assert lock.stat().st_mode & 0o777 == 0o600


def test_the_flock_program_is_kept_out_from_before_the_write_until_after_the_rename(
    tmp_path: Path, strace: str
) -> None:
    needs_flock_program()
    (tmp_path / "s.json.lock").touch()
    # Each of these takes 0.3 s, time enough to see that the lock is held.
    delays = [f"--inject={call}:delay_enter=300000" for call in ("fsync", "rename")]
    command = [
        strace,
        "--quiet=all",
        "-f",
        "-o",
        str(tmp_path / "trace"),
        "-e",
        "trace=fsync,rename",
    ]
    child = subprocess.Popen(
        [*command, *delays, sys.executable, "-c", _SAVE, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert not is_locked(tmp_path / "s.json.lock")
        child.stdin.write("go\n")
        child.stdin.flush()
        held_before = held_after = False
        while child.poll() is None:
            saved = (tmp_path / "s.json").exists()
            if is_locked(tmp_path / "s.json.lock"):
                held_after |= saved  # the directory is being synced
                held_before |= not saved
        assert child.returncode == 0
        assert held_before
        assert held_after
    finally:
        child.kill()
        child.communicate()
    assert not is_locked(tmp_path / "s.json.lock")
    assert (tmp_path / "s.json").exists()


@pytest.fixture
def strace() -> str:
    from shutil import which

    path = which("strace")
    if path is None:
        pytest.skip("strace is not installed")
    return path
