"""Looking a directory over, and mending what a crash or another program left. Everything blocks.

Nothing that holds a session's data is deleted: it is given a name of its own.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from enum import StrEnum
from typing import NamedTuple

import msgspec

from ...errors import SessionCorruptError, SessionIOError
from ...ids import id_from_name
from ...store import Expect
from ..flock import acquire, held
from . import disk, tailfile
from .directory import SessionDirectory
from .failures import translate
from .flush import alone
from .layout import SUFFIX, TAIL, Paths, id_from_temporary, is_aside
from .state import Bond, Unsettled

__all__ = [
    "Finding",
    "FindingKind",
    "look_closer",
    "needs_a_look",
    "set_damaged_aside",
    "survey",
    "unreadable",
]


class FindingKind(StrEnum):
    """What may be wrong in a directory."""

    LEFTOVER = "leftover"
    """A file in flight whose writer died. Mended: removed."""

    TORN_TAIL = "torn tail"
    """A tail whose last line was not finished; nobody was told that it was. Mended: the line is
    set aside."""

    ORPHAN_TAIL = "orphan tail"
    """A tail whose session file another program rewrote or removed. Mended: set aside."""

    DAMAGED = "damaged"
    """A session file that cannot be read, or that holds another session. Mended: set aside."""

    SET_ASIDE = "set aside"
    """A file that was set aside earlier: yours to look at and to remove."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that `check` found.

    Attributes:
        kind: What it is.
        path: The file.
        session_id: The session that the file belongs to.
        detail: More, in words.
        mended: Whether it was put right.
    """

    kind: FindingKind
    path: str
    session_id: str | None
    detail: str = ""
    mended: bool = False


class Survey(NamedTuple):
    """What a directory holds, by the names alone."""

    session_ids: list[str]
    suspects: set[str]
    """Ids that a file in flight, or a tail without a session file, was found for."""

    set_aside: list[Finding]


def survey(path: str) -> Survey:
    """Read the directory; one that is missing is empty.

    Raises:
        SessionIOError: It cannot be read.
    """
    try:
        files = os.listdir(path)
    except FileNotFoundError:
        return Survey([], set(), [])
    except OSError as error:
        raise translate(error) from error
    ids: list[str] = []
    suspects: set[str] = set()
    aside: list[Finding] = []
    for file in files:
        if file.endswith(SUFFIX):
            if session_id := id_from_name(file[: -len(SUFFIX)]):
                ids.append(session_id)
        elif file.endswith(TAIL):
            if session_id := id_from_name(file[: -len(TAIL)]):
                suspects.add(session_id)
        elif session_id := id_from_temporary(file):
            suspects.add(session_id)
        elif is_aside(file):
            where = os.path.join(path, file)
            aside.append(Finding(kind=FindingKind.SET_ASIDE, path=where, session_id=None))
    return Survey(ids, suspects, aside)


def needs_a_look(directory: SessionDirectory, ids: Iterable[str]) -> list[str]:
    """Return those of `ids` that cannot be loaded just so."""
    suspects: list[str] = []
    for session_id in ids:
        try:
            directory.load(session_id)
        except (Unsettled, SessionIOError):
            suspects.append(session_id)
    return suspects


def look_closer(
    directory: SessionDirectory, session_id: str, repair: bool, findings: list[Finding]
) -> None:
    """Find what is wrong with one session, save damage, which is raised, and add it to `findings`.

    With `repair` it is mended before it is told.

    Raises:
        Contended, Unsettled: Try again.
        SessionIOError: It cannot be looked at.
    """
    paths = Paths(directory.path, session_id)

    def found(kind: FindingKind, path: str, detail: str) -> None:
        if any((each.kind, each.path) == (kind, path) for each in findings):
            return  # by an attempt before this one
        findings.append(
            Finding(kind=kind, path=path, session_id=session_id, detail=detail, mended=repair)
        )

    try:
        with _undisturbed(paths, repair):
            for path in _in_flight(paths, session_id):
                size = f"{os.lstat(path).st_size:,} bytes"
                if repair:
                    os.unlink(path)
                found(FindingKind.LEFTOVER, path, size)
            state = directory.state(paths, session_id, Expect.UNCHANGED)
            if state is None:
                if disk.exists(paths.tail):
                    if repair:
                        tailfile.set_aside(paths)
                    found(FindingKind.ORPHAN_TAIL, paths.tail, "its session file is gone")
                return
            if state.bond is Bond.ORPHAN:
                if repair:
                    tailfile.set_aside(paths)
                found(FindingKind.ORPHAN_TAIL, paths.tail, "its session file was rewritten")
            elif state.ending is not None:
                if repair and state.bond is Bond.TAKEN_IN:
                    alone(tailfile.clear(paths, state.ending, durable=True))
                elif repair and state.ending.is_torn:
                    tailfile.cut(paths, state.ending.size)
                if state.ending.is_torn:
                    whole = f"whole up to byte {state.ending.size:,}"
                    found(FindingKind.TORN_TAIL, paths.tail, whole)
    except OSError as error:
        raise translate(error, session_id) from error


def set_damaged_aside(
    directory: SessionDirectory, error: SessionCorruptError, repair: bool
) -> Finding:
    """Give a damaged file, and the tail that extends it, names of their own.

    Raises:
        Contended: Try again.
        SessionIOError: It cannot be renamed.
    """
    session_id, path = error.session_id or "", error.path or ""
    paths = Paths(directory.path, session_id)
    mended = False
    try:
        with _undisturbed(paths, repair):
            try:
                directory.read(paths, session_id)
            except Unsettled:
                if repair:
                    disk.replace(path, paths.aside())
                    mended = True
                    if path == paths.session and disk.exists(paths.tail):
                        tailfile.set_aside(paths)
    except OSError as failure:
        raise translate(failure, session_id) from failure
    return Finding(
        kind=FindingKind.DAMAGED,
        path=path,
        session_id=session_id,
        detail=error.reason,
        mended=mended,
    )


def unreadable(directory: SessionDirectory, session_id: str, error: SessionIOError) -> Finding:
    """Return that a session's file cannot be read at all."""
    path = error.filename or Paths(directory.path, session_id).session
    return Finding(kind=FindingKind.DAMAGED, path=path, session_id=session_id, detail=str(error))


@contextmanager
def _undisturbed(paths: Paths, repair: bool) -> Generator[None]:
    """Hold the session's lock, unless nobody can: nobody writes to a file system that is read-only.

    Raises:
        Contended: Another holds it.
        OSError: It cannot be locked.
    """
    try:
        lock = acquire(paths.lock)
    except OSError as error:
        if repair or error.errno != errno.EROFS:
            raise
        yield
    else:
        with held(lock):
            yield


def _in_flight(paths: Paths, session_id: str) -> list[str]:
    # Not all that begin with the session's name and `.tmp.`: an id may hold that, too.
    start = os.path.basename(paths.session) + ".tmp."
    return [
        os.path.join(paths.directory, name)
        for name in os.listdir(paths.directory)
        if name.startswith(start) and id_from_temporary(name) == session_id
    ]
