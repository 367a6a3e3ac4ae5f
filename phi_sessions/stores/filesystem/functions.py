"""phi-core's older synchronous functions, on the locked and atomic path of the store.

They block, and are for scripts and tools; in an event loop use `FileSystemSessionStore`. Files
are laid out with two spaces, as phi-core writes them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from ... import codec
from ...codec import Parcel
from ...errors import SessionNotFoundError
from ...model import Session
from ...store import Expect
from ..base import Outcome, unpack
from . import scan
from .directory import SessionDirectory
from .flush import alone
from .layout import Paths
from .retry import Retry, TryAgain
from .store import DEFAULT_MAX_BYTES

__all__ = [
    "delete_session",
    "list_session_ids",
    "load_session",
    "load_sessions_for_agent",
    "save_session",
]

P = ParamSpec("P")
T = TypeVar("T")

_Dir = str | os.PathLike[str]


def save_session(session: Session, dir: _Dir) -> Path:
    """Store `session` in `dir`, which is made if need be, and return the path of its file.

    Like phi-core's function it replaces whatever sound session is there; `session.revision` is
    the new one afterwards.

    Raises:
        SessionError: As `SessionStore.save`.
    """
    paths = Paths(_path(dir), session.session_id)
    head, records = codec.encode_head(session), list(codec.encode_records(session))
    parcel = Parcel(session.session_id, session.agent_id, head, records)
    outcome = Outcome()
    try:
        save = _directory(dir).save
        _patiently(session.session_id, lambda: alone(save(parcel, Expect.UNCHANGED, outcome)))
    finally:
        if outcome.revision is not None:
            session.revision = outcome.revision
    return Path(paths.session)


def load_session(session_id: str, dir: _Dir) -> Session:
    """Return the session that is stored in `dir`.

    Raises:
        SessionError: As `SessionStore.load`.
    """
    stored = _patiently(session_id, _directory(dir).load, session_id)
    if stored is None:
        raise SessionNotFoundError(f"session {session_id!r} not found", session_id=session_id)
    return unpack(stored)


def list_session_ids(dir: _Dir) -> list[str]:
    """Return the ids in `dir`, the most recently saved first; none if there is no such directory.

    Raises:
        SessionIOError: The directory cannot be read.
    """
    return scan.ids_newest_first(_directory(dir))


def load_sessions_for_agent(agent_id: str, dir: _Dir) -> list[Session]:
    """Return the sessions of one agent, the most recently saved first.

    Raises:
        SessionError: As `SessionStore.list_for_agent`.
    """
    directory = _directory(dir)
    placed = scan.placed_of_agent(directory, scan.names_of_all(directory), agent_id)
    ids = scan.ids_in_order(placed)
    found = (_patiently(session_id, directory.load, session_id) for session_id in ids)
    return [unpack(s) for s in found if s is not None and s.header.agent_id == agent_id]


def delete_session(session_id: str, dir: _Dir) -> None:
    """Remove the session from `dir`.

    Raises:
        SessionError: As `SessionStore.delete`.
    """
    delete = _directory(dir).delete
    if not _patiently(session_id, lambda: alone(delete(session_id, Expect.ANYTHING))):
        raise SessionNotFoundError(f"session {session_id!r} not found", session_id=session_id)


def _directory(dir: _Dir) -> SessionDirectory:
    return SessionDirectory(
        _path(dir), fsync=True, mode=0o600, indent=2, max_bytes=DEFAULT_MAX_BYTES
    )


def _path(dir: _Dir) -> str:
    return os.fspath(Path(dir))  # as for the store: an empty one is the current directory


def _patiently(session_id: str, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    retry = Retry(session_id, timeout=5.0, interval=0.05)
    while True:
        try:
            return job(*args, **kwargs)
        except TryAgain as reason:
            time.sleep(retry.pause_after(reason))
