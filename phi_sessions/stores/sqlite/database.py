"""One database file, and the connections to it. Everything here blocks."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import NamedTuple

from ...errors import SessionError, SessionTaskError
from . import place
from .driver import sqlite3
from .failures import DRIVER_ERRORS, Contended, is_contention, translate
from .forks import begin_use, close_before_forks, end_use
from .schema import Absent, set_up

__all__ = ["Database"]

_log = logging.getLogger(__name__)


class _Link(NamedTuple):
    connection: sqlite3.Connection
    age: int


class Database:
    """A database file, and connections to it that are handed out one by one.

    Args:
        path: The file; absolute, as it is opened again and again.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._closed = False
        self._is_rooted = False
        self._file: place.FileId | None = None
        self._age = 0  # connections of another age are not used again
        self._to_write: list[_Link] = []
        self._to_read: list[_Link] = []
        self._mutex = threading.Lock()
        self._lent: list[_Link] = []
        close_before_forks(self)

    @contextmanager
    def lend(self, *, to_write: bool = False) -> Generator[sqlite3.Connection]:
        """Lend a connection; what it began and did not commit is rolled back.

        Args:
            to_write: Make what is missing, and lend the connection that writes.

        Raises:
            Absent: There is no database, and none is made for readers.
            Contended: Another holds the database, or one that was in its place is in use still.
            SessionIOError: It cannot be opened, or what is done with the connection fails.
            SessionTaskError: The database is closed.
        """
        idle = self._to_write if to_write else self._to_read
        file = self._look(to_write=to_write)
        link: _Link | None = None
        begin_use()
        try:
            link = self._lend(idle, file, to_write=to_write)
            yield link.connection
        except DRIVER_ERRORS as error:
            if is_contention(error):
                raise Contended from error
            self.distrust()
            raise translate(error, self.path) from error
        finally:
            try:
                self._give_back(link, idle)
            finally:
                end_use()

    def distrust(self) -> None:
        """Use no connection again that was opened before: who knows what it holds."""
        self._age += 1

    def take_log_in(self) -> None:
        """Bring what is in the write-ahead log into the database, so that the log begins anew.

        The caller has the connection that writes, and the write lock. SQLite would do this by
        itself, without the lock: until 3.51.3 a commit at the wrong moment then makes it forget
        commits (its "WAL-Reset Bug").
        """
        idle = self._to_read
        link: _Link | None = None
        try:
            link = self._lend(idle, self._file, to_write=False)
            link.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except (*DRIVER_ERRORS, SessionError) as error:
            _log.warning("%s: the log could not be taken in: %s", self.path, error)
        finally:
            self._give_back(link, idle)

    def log_size(self) -> int:
        """Return the size of the log's file, which does not shrink when the log begins anew.

        Raises:
            SessionIOError: It cannot be told.
        """
        try:
            # SQLite puts it beside the file itself, by whatever link that was named.
            return os.stat(f"{os.path.realpath(self.path)}-wal").st_size
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise place.io_error(error) from error

    def close(self) -> None:
        """Close all connections; later calls are refused. Closing twice is harmless."""
        self._closed = True
        begin_use()
        try:
            self.close_idle()
        finally:
            end_use()

    def close_idle(self) -> None:
        """Close the connections that nobody uses."""
        for idle in (self._to_write, self._to_read):
            while (link := _pop(idle)) is not None:
                _close(link)

    def _look(self, *, to_write: bool) -> place.FileId:
        """Return which file there is: what took its place is opened anew."""
        try:
            if to_write and not self._is_rooted:
                place.make(self.path)
                self._is_rooted = True
            try:
                return place.file_id(self.path)
            except FileNotFoundError:
                if not to_write:
                    raise Absent from None
                place.make(self.path)
                return place.file_id(self.path)
        except OSError as error:
            raise place.io_error(error) from error

    def _lend(self, idle: list[_Link], file: place.FileId | None, *, to_write: bool) -> _Link:
        with self._mutex:
            if file != self._file:
                # Closed later, they would take the locks on the new file's index with them, which
                # may well be the old one's.
                self.distrust()
                self.close_idle()
                if self._lent:
                    raise Contended
                self._file = file
            link = self._take(idle) or self._open(to_write=to_write)
            self._lent.append(link)
            return link

    def _take(self, idle: list[_Link]) -> _Link | None:
        """Return a connection that is open and of use, if there is one."""
        if self._closed:
            raise SessionTaskError("the store is closed")
        while (link := _pop(idle)) is not None and link.age != self._age:
            _close(link)
        return link

    def _open(self, *, to_write: bool) -> _Link:
        age = self._age
        # The driver's own wait for a lock would hold up this thread.
        connection = sqlite3.connect(
            place.uri(self.path), uri=True, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            connection.text_factory = bytes
            set_up(connection, self.path, to_write=to_write)
        except BaseException:
            connection.close()
            raise
        return _Link(connection, age)

    def _give_back(self, link: _Link | None, idle: list[_Link]) -> None:
        if link is None:
            return
        try:
            self._take_back(link, idle)
        finally:
            with self._mutex:
                self._lent.remove(link)

    def _take_back(self, link: _Link, idle: list[_Link]) -> None:
        if not _roll_back(link.connection) or link.age != self._age:
            _close(link)
            return
        idle.append(link)
        if self._closed:  # meanwhile, perhaps
            self.close_idle()

    def __del__(self) -> None:
        self.close_idle()


def _pop(idle: list[_Link]) -> _Link | None:
    try:
        return idle.pop()
    except IndexError:
        return None


def _roll_back(connection: sqlite3.Connection) -> bool:
    """Leave the transaction, if there is one; False when the connection is of no more use."""
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except DRIVER_ERRORS as error:
        _log.warning("could not roll back: %s", error)
        return False
    return True


def _close(link: _Link) -> None:
    try:
        link.connection.close()
    except DRIVER_ERRORS as error:
        _log.warning("could not close a connection: %s", error)
