"""Sessions that tell which version they are, and what is to be seen of them on the disk."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from phi_sessions import (
    LoopRecord,
    Session,
    SessionNotFoundError,
    list_session_ids,
    load_session,
    save_session,
)

ID = "s"
Contents = tuple[object, ...]


def version(number: int, *, session_id: str = ID, size: int = 4000) -> Session:
    """Return version `number` of a session, about `size` bytes large."""
    session = Session(session_id, f"agent-{number}")
    session.metadata = {"version": number}
    for place in range(4):
        loop = LoopRecord(f"loop-{place}", session_id, session.agent_id)
        text = f"version {number} " * (size // 48)
        loop.messages = [{"role": "user", "content": [{"type": "text", "text": text}]}]
        session.loops.append(loop)
    return session


def contents(session: Session) -> Contents:
    """Return all that tells one version from another, to the last record."""
    loops = [(loop.loop_id, loop.agent_id, loop.messages) for loop in session.loops]
    return session.session_id, session.agent_id, session.metadata, loops


def stored(directory: Path, session_id: str = ID) -> Contents | None:
    """Return what is stored, read to the last record, or None."""
    try:
        return contents(load_session(session_id, directory))
    except SessionNotFoundError:
        return None


def say(found: Contents | None) -> str:
    """Name a state in an error message."""
    return "nothing" if found is None else f"{found[1]}"


def in_flight(directory: Path) -> list[str]:
    """Return the names of temporary files."""
    return [n for n in os.listdir(directory) if ".tmp" in n] if directory.is_dir() else []


def lock_is_free(directory: Path, session_id: str = ID) -> bool:
    """Return whether nobody holds the session's lock; True when there is no lock file yet."""
    try:
        fd = os.open(directory / f"{session_id}.json.lock", os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def wrong_after_a_crash(directory: Path, expected: Contents | None) -> list[str]:
    """Return what is wrong with the directory of a writer that is gone; empty when all is well."""
    wrong: list[str] = []
    found = stored(directory)
    if found != expected:
        wrong.append(f"{say(found)} is stored, expected {say(expected)}")
    if not lock_is_free(directory):
        wrong.append("the lock is held")
        return wrong
    begun = time.monotonic()
    following = version(9)
    save_session(following, directory)
    took = time.monotonic() - begun
    if took > 1:
        wrong.append(f"the next save took {took:.2f} s")
    if stored(directory) != contents(following):
        wrong.append("the next save is not what is stored")
    if list_session_ids(directory) != [ID]:
        wrong.append("the listing is wrong")
    if left := set(os.listdir(directory)) - {f"{ID}.json", f"{ID}.json.lock"}:
        wrong.append(f"a listing left {left}")
    return wrong
