"""Lock files stay the files that they are: two holders can never hold two of one name."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

from conftest import scaled

from phi_sessions import (
    Expect,
    FileSystemSessionStore,
    Session,
    SessionNotFoundError,
    list_session_ids,
)

_ANOTHER_PROCESS = """
import sys
from phi_sessions import (
    Session, SessionNotFoundError, delete_session, list_session_ids, save_session
)

directory, rounds = sys.argv[1], int(sys.argv[2])
for number in range(rounds):
    session_id = f"s-{number % 10}"
    save_session(Session(session_id, "another"), directory)
    try:
        delete_session(session_id, directory)
    except SessionNotFoundError:
        pass
    list_session_ids(directory)
"""
_IDS = [f"s-{number}" for number in range(10)]


async def test_lock_files_keep_their_inode_through_saves_deletes_and_sweeps(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "sessions"
    chance = random.Random(20)
    async with FileSystemSessionStore(directory) as store:
        for session_id in _IDS:
            await store.save(Session(session_id, "agent"))
        # Held open, so that no inode number is given out a second time.
        held = {name: os.open(directory / f"{name}.json.lock", os.O_RDONLY) for name in _IDS}
        try:
            another = subprocess.Popen(
                [sys.executable, "-P", "-c", _ANOTHER_PROCESS, str(directory), str(scaled(200))]
            )
            try:
                planted = await _churn(store, directory, chance, scaled(3000))
                status = await asyncio.to_thread(another.wait, 60)
                assert status == 0, f"the other process ended with {status}"
            finally:
                another.kill()
                another.wait()
            assert planted > 0
            for name, fd in held.items():
                kept = os.fstat(fd)
                assert kept.st_nlink == 1, name
                assert os.stat(directory / f"{name}.json.lock").st_ino == kept.st_ino, name
        finally:
            for fd in held.values():
                os.close(fd)
    # Only now is no lock held, so that a listing passes over nothing.
    list_session_ids(directory)
    left = [name for name in os.listdir(directory) if ".tmp." in name]
    assert not left, f"a listing left {left}"


async def _churn(
    store: FileSystemSessionStore, directory: Path, chance: random.Random, rounds: int
) -> int:
    """Save, delete, list, and leave temporary files of dead writers; return how many."""
    left = 0

    async def one(number: int) -> None:
        session_id = chance.choice(_IDS)
        kind = chance.random()
        if kind < 0.6:
            await store.save(Session(session_id, "agent"), expect=Expect.ANYTHING)
        elif kind < 0.8:
            try:
                await store.delete(session_id)
            except SessionNotFoundError:
                return
        else:
            await store.list_ids()

    for start in range(0, rounds, 20):
        (directory / f"{chance.choice(_IDS)}.json.tmp.1.{start}").touch()
        left += 1
        await asyncio.gather(*(one(number) for number in range(start, start + 20)))
    return left
