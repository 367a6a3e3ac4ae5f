"""Listing a directory of session files, however many there are. Everything here blocks."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import islice
from typing import Final

from ...errors import SessionIOError
from .layout import LOCK, SUFFIX, Paths, id_from_lock, id_from_session, id_from_temporary
from .lock import Contended, acquire, release
from .reader import Head, SessionReader, Unsettled, translate

__all__ = ["ids_newest_first", "ids_of_agent", "ids_unordered", "read_heads"]

_SORTED_AT_ONCE: Final = 4096
_log = logging.getLogger(__name__)


def ids_newest_first(directory: SessionReader) -> list[str]:
    """Return the ids of all sessions, the most recently saved first, ties by id.

    Raises:
        SessionIOError: The directory cannot be read.
    """
    ids = ids_unordered(directory)
    # One sort of 100,000 entries would hold the interpreter, and with it the event loop, for a
    # tenth of a second: it is one call into C. So: short sorts, and a merge that can pause.
    runs: list[list[tuple[int, str]]] = []
    try:
        stamped = _stamped(directory.path, ids)
        while run := sorted(islice(stamped, _SORTED_AT_ONCE)):
            runs.append(run)
    except OSError as error:
        raise translate(error) from error
    return [session_id for _, session_id in merge(*runs)]


def ids_of_agent(
    directory: SessionReader, ids: Iterable[str], agent_id: str
) -> list[tuple[int, str]]:
    """Return those of `ids` that may be the agent's, each behind a key that sorts newest first.

    What cannot be read may be this agent's, and comes first.
    """
    found: list[tuple[int, str]] = []
    for session_id in ids:
        try:
            head = directory.head(session_id, agent_id=agent_id)
        except (Unsettled, SessionIOError):
            found.append((-(2**63), session_id))
            continue
        if head is not None and head.header.agent_id == agent_id:
            found.append((-head.stamp.mtime_ns, session_id))
    return found


def read_heads(
    directory: SessionReader, ids: Iterable[str]
) -> list[tuple[str, Head | Unsettled | SessionIOError | None]]:
    """Return what the beginning of each file tells, or why it does not; None where it is gone."""
    heads: list[tuple[str, Head | Unsettled | SessionIOError | None]] = []
    for session_id in ids:
        try:
            heads.append((session_id, directory.head(session_id)))
        except (Unsettled, SessionIOError) as error:
            heads.append((session_id, error))
    return heads


def ids_unordered(directory: SessionReader) -> list[str]:
    """Return the ids that the directory's names tell of, deleted sessions included.

    Files in flight of dead writers are removed by the way.

    Raises:
        SessionIOError: The directory cannot be read.
    """
    try:
        ids, in_flight = _read_names(directory.path)
    except OSError as error:
        raise translate(error) from error
    _sweep(directory.path, in_flight)
    return ids


def _read_names(directory: str) -> tuple[list[str], dict[str, list[str]]]:
    ids: set[str] = set()
    in_flight: dict[str, list[str]] = {}
    try:
        entries = os.scandir(directory)
    except FileNotFoundError:
        return [], {}
    with entries:
        for entry in entries:
            name = entry.name
            # tmpfs and btrfs pass over an entry that is being replaced while they are read. Lock
            # files stay where they are, so that each session is met under one name or the other.
            if name.endswith(SUFFIX):
                session_id = id_from_session(name)
            elif name.endswith(LOCK):
                session_id = id_from_lock(name)
            else:
                owner = id_from_temporary(name)
                if owner is not None:
                    in_flight.setdefault(owner, []).append(entry.path)
                continue
            if session_id is not None:
                ids.add(session_id)
    return list(ids), in_flight


def _stamped(directory: str, session_ids: Iterable[str]) -> Iterator[tuple[int, str]]:
    for session_id in session_ids:
        try:
            status = os.lstat(Paths(directory, session_id).session)
        except FileNotFoundError:
            continue  # deleted: only its lock file is left, or it went just now
        if stat.S_ISREG(status.st_mode):
            yield -status.st_mtime_ns, session_id


def _sweep(directory: str, in_flight: dict[str, list[str]]) -> None:
    """Remove files in flight whose writers are dead.

    They are looked at only while holding the lock that a living writer would hold; without it
    one save in sixty was broken. What cannot be removed is left for the next time.
    """
    for session_id, paths in in_flight.items():
        try:
            lock = acquire(Paths(directory, session_id).lock)
            try:
                for path in paths:
                    os.unlink(path)
            finally:
                release(lock)
        except Contended:
            continue  # its writer may well be alive
        except OSError as error:
            _log.info("leftovers of session %r stay: %s", session_id, error)
