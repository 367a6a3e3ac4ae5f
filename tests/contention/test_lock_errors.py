"""A lock that cannot be had for another reason than a holder is an error, at once."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest

_CHILD = """
import asyncio, json, sys, time
from phi_sessions import *
from phi_sessions.stores.flock import _portalocker

async def main(dir):
    seen = []
    async with FileSystemSessionStore(dir) as store:
        await store.load("s")  # threads run, and nothing is left to import
        _portalocker()
        calls = {
            "save": lambda: store.save(Session("s", "agent")),
            "delete": lambda: store.delete("s"),
            "save_session": lambda: asyncio.to_thread(save_session, Session("s", "agent"), dir),
            "delete_session": lambda: asyncio.to_thread(delete_session, "s", dir),
        }
        for name, call in calls.items():
            begun = time.monotonic()
            try:
                await call()
                kind, number = "nothing", 0
            except Exception as error:
                kind, number = type(error).__name__, getattr(error, "errno", None)
            seen.append([name, kind, number, time.monotonic() - begun])
        await store.load("s")
    print(json.dumps(seen))

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("call", ["flock", "openat"])
@pytest.mark.parametrize("name", ["ENOLCK", "EACCES", "EROFS", "EBADF", "EIO", "EMFILE"])
def test_it_is_raised_at_once_and_never_waited_on(tmp_path: Path, name: str, call: str) -> None:
    strace = which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    from phi_sessions import Session, save_session

    path = save_session(Session("s", "agent"), tmp_path)
    lock = tmp_path / "s.json.lock"
    before = path.read_bytes(), path.stat().st_ino
    done = subprocess.run(
        [strace, "-f", "-o", str(tmp_path / "trace"), "-P", str(lock), f"--trace={call}",
         f"--inject={call}:error={name}", sys.executable, "-c", _CHILD, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert "(INJECTED)" in (tmp_path / "trace").read_text()
    assert [(who, kind, number) for who, kind, number, _ in seen] == [
        (who, "SessionIOError", getattr(errno, name))
        for who in ("save", "delete", "save_session", "delete_session")
    ]
    assert max(took for *_, took in seen) < 1.0
    assert (path.read_bytes(), path.stat().st_ino) == before
