"""Listing a directory of session files, however many there are. Everything here blocks."""

from __future__ import annotations

import logging
import os
import stat
import time
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Final

import msgspec

from ...errors import SessionIOError
from ...ids import id_from_name, name_from_id
from ...info import SessionInfo
from ..flock import Contended, acquire, release
from . import disk, document
from .agents import AgentIndex, Moment
from .failures import translate
from .layout import LOCK, SUFFIX, TAIL, TEMPORARY, Paths, id_from_temporary
from .reader import SessionReader
from .state import Unsettled

__all__ = [
    "ids_in_order",
    "ids_newest_first",
    "names_for_agent",
    "names_of_all",
    "placed_of_agent",
    "read_cards",
]

_AT_ONCE: Final = 4096
"""Entries that one call into C handles: with many more it would hold up the event loop."""

_TICK: Final = 50_000_000
"""Nanoseconds within which a file system may give two changes one time stamp."""

_LATEST: Final = 10**28
"""Nanoseconds; no file system has a time stamp so late, or so early before 1970."""

_DIGITS: Final = 29
_log = logging.getLogger(__name__)


def ids_newest_first(reader: SessionReader) -> list[str]:
    """Return the ids of all sessions, the most recently saved first, ties by id.

    Raises:
        SessionIOError: The directory cannot be read.
    """
    prefix = os.path.join(reader.path, "")
    found: list[str] = []
    try:
        names, tails = _names(reader.path)
        for name in names:
            try:
                status = os.lstat(f"{prefix}{name}{SUFFIX}")
            except FileNotFoundError:
                continue  # deleted: only its lock file is left, or it went just now
            session_id = id_from_name(name)
            if session_id is not None and stat.S_ISREG(status.st_mode):
                saved = status.st_mtime_ns
                if name in tails:
                    with suppress(FileNotFoundError):
                        saved = max(saved, os.lstat(f"{prefix}{name}{TAIL}").st_mtime_ns)
                found.append(_placed(saved, session_id))
    except OSError as error:
        raise translate(error) from error
    return ids_in_order(found)


def names_of_all(reader: SessionReader) -> list[str]:
    """Return the names of all sessions, and of some that were deleted, in any order.

    Raises:
        SessionIOError: The directory cannot be read.
    """
    try:
        return _names(reader.path)[0]
    except OSError as error:
        raise translate(error) from error


def names_for_agent(
    reader: SessionReader, index: AgentIndex, agent_id: str
) -> tuple[Sequence[str], Moment | None]:
    """Return the names of sessions that may be the agent's: all, unless `index` knows better.

    And the moment for which `index` may keep what turns out to be the agent's.

    Raises:
        SessionIOError: The directory cannot be read.
    """
    try:
        moment = index.moment()
    except FileNotFoundError:
        return [], None
    except OSError as error:
        raise translate(error) from error
    known = index.ids(moment, agent_id) if moment is not None else None
    if known is None:
        return names_of_all(reader), moment
    return [name_from_id(session_id) for session_id in known], None


def placed_of_agent(reader: SessionReader, names: Iterable[str], agent_id: str) -> list[str]:
    """Return those that may be the agent's, for `ids_in_order`.

    What cannot be read may be this agent's, and comes first.
    """
    prefix = os.path.join(reader.path, "")
    try:
        agent = msgspec.json.encode(agent_id)
    except UnicodeEncodeError:
        return []  # a lone surrogate: no session can be that agent's
    found: list[str] = []
    for name in names:
        # The file is looked at properly if its first bytes do not rule it out: most do.
        path = f"{prefix}{name}{SUFFIX}"
        try:
            fd = os.open(path, os.O_RDONLY | disk.SAFE)
            try:
                if document.names_other(os.read(fd, 512), agent):
                    continue
            finally:
                os.close(fd)
        except FileNotFoundError:
            continue
        except OSError:
            pass  # what is wrong with it is said by the reader
        session_id = id_from_name(name)
        if session_id is None:
            continue
        try:
            info = reader.card(session_id)
        except (Unsettled, SessionIOError):
            if os.path.isfile(path) and not os.path.islink(path):
                found.append(_placed(_LATEST, session_id))
            continue
        if info is not None and info.agent_id == agent_id and info.saved_at is not None:
            found.append(_placed(info.saved_at.nanoseconds, session_id))
    return found


def ids_in_order(placed: list[str]) -> list[str]:
    """Return the ids of what `placed_of_agent` gave, the most recently saved first, ties by id."""
    return [entry[_DIGITS:] for entry in _sorted(placed)]


def read_cards(
    reader: SessionReader, ids: Iterable[str]
) -> list[tuple[str, SessionInfo | Exception | None]]:
    """Return the card of each session, or why it cannot be read; None where it is gone."""
    cards: list[tuple[str, SessionInfo | Exception | None]] = []
    for session_id in ids:
        try:
            cards.append((session_id, reader.card(session_id)))
        except (Unsettled, SessionIOError) as error:
            cards.append((session_id, error))
    return cards


def _names(directory: str) -> tuple[list[str], set[str]]:
    """Return the names that sessions in `directory` may have, and which of them may have a tail.

    Those of deleted sessions are among them.
    Files in flight of dead writers are removed.
    """
    files = _read(directory)
    names = [file[: -len(SUFFIX)] for file in files if file.endswith(SUFFIX)]
    # An entry that was passed over is met by its lock file, which stays where it is.
    locked = {file[: -len(LOCK)] for file in files if file.endswith(LOCK)}
    for some in _parts(names):
        locked.difference_update(some)
    names.extend(locked)
    _sweep(directory, [file for file in files if TEMPORARY in file])
    return names, {file[: -len(TAIL)] for file in files if file.endswith(TAIL)}


def _read(directory: str) -> Iterable[str]:
    try:
        begun = time.time_ns()
        files = os.listdir(directory)
        # tmpfs and btrfs pass over an entry that is being replaced while they are read. By the
        # second reading, whoever replaced one in the first has made its lock file.
        if os.stat(directory).st_mtime_ns > begun - _TICK:
            found: set[str] = set()
            for some in chain(_parts(files), _parts(os.listdir(directory))):
                found.update(some)
            return found
    except FileNotFoundError:
        return []
    return files


def _parts(names: list[str]) -> Iterator[list[str]]:
    return (names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE))


def _placed(saved: int, session_id: str) -> str:
    """Return a text that sorts the most recently saved first, and then by id.

    The garbage collector takes no notice of texts; 100,000 pairs would have it hold up the loop.
    """
    return f"{_LATEST - saved:0{_DIGITS}}{session_id}"


def _sorted(entries: list[str]) -> list[str]:
    # One sort of 100,000 entries would take a tenth of a second. So they are dealt out by size, and
    # sorted in parts.
    parts = len(entries) // _AT_ONCE
    if parts < 2:
        return sorted(entries)
    sample = sorted(entries[:: len(entries) // 1024])
    borders = [sample[len(sample) * part // parts] for part in range(1, parts)]
    dealt: list[list[str]] = [[] for _ in range(parts)]
    for entry in entries:
        dealt[bisect(borders, entry)].append(entry)
    return [entry for part in dealt for entry in sorted(part)]


def _sweep(directory: str, files: list[str]) -> None:
    """Remove those `files` that are in flight and whose writers are dead.

    They are looked at only while holding the lock that a living writer would hold; without it
    one save in sixty was broken. What cannot be removed is left for the next time.
    """
    in_flight: defaultdict[str, list[str]] = defaultdict(list)
    for file in files:
        owner = id_from_temporary(file)
        if owner is not None:
            in_flight[owner].append(os.path.join(directory, file))
    for session_id, paths in in_flight.items():
        try:
            lock = acquire(Paths(directory, session_id).lock)
        except Contended:
            continue  # its writer may well be alive
        except OSError as error:
            _log.info("leftovers of session %r stay: %s", session_id, error)
            continue
        try:
            for path in paths:
                _remove(path)
        finally:
            release(lock)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError as error:
        _log.info("%s stays: %s", path, error)
