"""Everything that can go wrong, in one tree.

```
SessionError                     .session_id, picklable, raised `from` its cause
├── InvalidSessionIdError        also ValueError      the id can never name a session
├── SessionNotFoundError         also LookupError     nothing is stored under the id
├── SessionExistsError                                expected to be absent
├── SessionConflictError                              stale revision: .expected, .found
├── SessionLockedError           also TimeoutError    another holds it: .waited, .holder
├── SessionEncodeError           also ValueError      could not be read again; nothing was written
├── SessionCorruptError          also ValueError      what is stored is damaged: .path, .reason
├── SessionIOError               also OSError         keeps errno and filename
│   └── SaveOutcomeUnknownError                       made or not, durable or not: not known
├── SessionTaskError             also RuntimeError    the store is closed, or its workers cannot run
└── MissingDependencyError       also ImportError     names the extra to install
```
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "InvalidSessionIdError",
    "MissingDependencyError",
    "SaveOutcomeUnknownError",
    "SessionConflictError",
    "SessionCorruptError",
    "SessionEncodeError",
    "SessionError",
    "SessionExistsError",
    "SessionIOError",
    "SessionLockedError",
    "SessionNotFoundError",
    "SessionTaskError",
]


class SessionError(Exception):
    """The root of the tree.

    Attributes:
        session_id: The session that the error is about, or None when it is about the store.
    """

    _state: tuple[str, ...] = ("session_id",)

    def __init__(self, message: str = "", *, session_id: str | None = None) -> None:
        super().__init__(message)
        self.session_id = session_id

    def __str__(self) -> str:
        # OSError and ImportError, which some of the classes also are, would print otherwise.
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: getattr(self, name) for name in self._state}
        if notes := getattr(self, "__notes__", None):
            state["__notes__"] = notes
        return _rebuild, (type(self), self.args, state)


def _rebuild(cls: type[SessionError], args: tuple[Any, ...], state: dict[str, Any]) -> SessionError:
    error = cls(*args)
    for name, value in state.items():
        setattr(error, name, value)
    return error


class InvalidSessionIdError(SessionError, ValueError):
    """The id can never name a session: empty, too long, or not Unicode text."""


class SessionNotFoundError(SessionError, LookupError):
    """Nothing is stored under the id."""


class SessionExistsError(SessionError):
    """The session was expected to be absent, and is there."""


class SessionConflictError(SessionError):
    """Somebody saved, appended to or deleted the session meanwhile; nothing was changed.

    Attributes:
        expected: The revision that the caller holds.
        found: The revision that is stored, or None when the session is gone.
    """

    _state = ("session_id", "expected", "found")

    def __init__(
        self,
        message: str = "",
        *,
        session_id: str | None = None,
        expected: str | None = None,
        found: str | None = None,
    ) -> None:
        super().__init__(message, session_id=session_id)
        self.expected = expected
        self.found = found


class SessionLockedError(SessionError, TimeoutError):
    """Somebody else held the session for the whole time that the caller would wait.

    Attributes:
        waited: Seconds spent waiting.
        holder: Who holds it, where the store can know, else None.
    """

    _state = ("session_id", "waited", "holder")

    def __init__(
        self,
        message: str = "",
        *,
        session_id: str | None = None,
        waited: float = 0.0,
        holder: Any = None,
    ) -> None:
        super().__init__(message, session_id=session_id)
        self.waited = waited
        self.holder = holder


class SessionEncodeError(SessionError, ValueError):
    """The session holds something that could not be read again; nothing was written."""


class SessionCorruptError(SessionError, ValueError):
    """What is stored is damaged. It was left as it is.

    Attributes:
        path: The damaged file, where there is one, else None.
        reason: What is wrong with it, in words.
    """

    _state = ("session_id", "path", "reason")

    def __init__(
        self,
        message: str = "",
        *,
        session_id: str | None = None,
        path: str | None = None,
        reason: str = "",
    ) -> None:
        super().__init__(message, session_id=session_id)
        self.path = path
        self.reason = reason


class SessionIOError(SessionError, OSError):
    """The storage failed.

    Attributes:
        errno: The system's error number, or None.
        filename: The file that it happened to, or None.
    """

    _state = ("session_id", "errno", "filename")

    def __init__(
        self,
        message: str = "",
        *,
        session_id: str | None = None,
        errno: int | None = None,
        filename: str | None = None,
    ) -> None:
        super().__init__(message, session_id=session_id)
        self.errno = errno
        self.filename = filename


class SaveOutcomeUnknownError(SessionIOError):
    """The change was made, or may have been, but whether it will last is not known.

    The step that makes it survive a power cut failed, or a server's answer was lost and could not
    be asked for again. Save again, or load and compare: after a success the outcome is known.
    """


class SessionTaskError(SessionError, RuntimeError):
    """The work could not be run: the store is closed, or no thread can be started."""


class MissingDependencyError(SessionError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""
