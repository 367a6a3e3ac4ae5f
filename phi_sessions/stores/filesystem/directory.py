"""A directory of session files: what happens in one hop, from the lock to the unlock.

Everything here blocks and runs in one thread from start to end; nothing waits. What may succeed
a little later raises `Contended` or `Unsettled`, and `retry` says when to try again.
"""

from __future__ import annotations

import os

from ...codec import Parcel
from ...errors import SessionEncodeError
from ...model import Revision
from ...store import Expect, Expectation
from ..base import Outcome, new_revision, require
from . import disk, document
from .layout import Paths
from .lock import acquire, release
from .publish import publish, withdraw
from .reader import SessionReader, translate

__all__ = ["SessionDirectory"]


class SessionDirectory(SessionReader):
    """The sessions in one directory. Arguments are those of `FileSystemSessionStore`."""

    def __init__(
        self, path: str, *, fsync: bool, mode: int, indent: int | None, max_bytes: int
    ) -> None:
        super().__init__(path, max_bytes)
        self._fsync = fsync
        self._mode = mode
        self._indent = indent
        self._is_rooted = False

    def save(self, parcel: Parcel, expect: Expectation, outcome: Outcome) -> None:
        """Store `parcel` whole, or leave what was there untouched.

        Raises:
            Contended, Unsettled: Try again.
            SessionError: As `SessionStore.save`.
        """
        session_id = parcel.session_id
        paths = Paths(self.path, session_id)
        chunks, revision = self._encode(parcel)

        def visible() -> None:
            outcome.revision = revision

        try:
            lock = self._acquire(paths)
            try:
                found = self.revision(paths, session_id, expect)
                require(expect, found, session_id)
                publish(
                    paths.session,
                    paths.temporary(),
                    chunks,
                    mode=self._mode,
                    durable=self._fsync,
                    on_visible=visible,
                )
            finally:
                release(lock)
        except OSError as error:
            raise translate(error, session_id) from error

    def delete(self, session_id: str, expect: Expectation) -> bool:
        """Remove the session; False when there was none.

        Raises:
            Contended, Unsettled: Try again.
            SessionError: As `SessionStore.delete`.
        """
        paths = Paths(self.path, session_id)
        try:
            try:
                os.lstat(paths.session)
            except FileNotFoundError:
                return False  # and no lock file is made for it
            lock = acquire(paths.lock)
            try:
                found = self.revision(paths, session_id, Expect.UNCHANGED)
                if found is not None:
                    require(expect, found, session_id)
                    withdraw(paths.session, durable=self._fsync)
                return found is not None
            finally:
                release(lock)
        except OSError as error:
            raise translate(error, session_id) from error

    def _encode(self, parcel: Parcel) -> tuple[list[bytes], Revision]:
        texts = [record.text for record in parcel.records]
        if self._indent is None:
            revision = new_revision()
            chunks = document.join(parcel.head, revision, texts)
        else:
            data, revision = document.join_indented(parcel.head, texts, self._indent)
            chunks = [data]
        size = sum(map(len, chunks))
        if size > self.max_bytes:
            raise SessionEncodeError(
                f"session {parcel.session_id!r} takes {size:,} bytes, "
                f"max_bytes is {self.max_bytes:,}",
                session_id=parcel.session_id,
            )
        return chunks, revision

    def _acquire(self, paths: Paths) -> int:
        # Once, also when the directory is there: who made it may have died before its parent knew.
        if not self._is_rooted:
            disk.make_directories(self.path, durable=self._fsync)
            self._is_rooted = True
        try:
            return acquire(paths.lock)
        except FileNotFoundError:
            disk.make_directories(self.path, durable=self._fsync)
            return acquire(paths.lock)
