"""The system's errors as this package's."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from ...errors import SaveOutcomeUnknownError, SessionIOError
from .publish import NotDurable

__all__ = ["translate", "translating"]


@contextmanager
def translating(session_id: str) -> Generator[None]:
    """Raise this package's errors for the system's."""
    try:
        yield
    except OSError as error:
        raise translate(error, session_id) from error


def translate(error: OSError, session_id: str | None = None) -> SessionIOError:
    """Return this package's error for the system's."""
    filename = None if error.filename is None else str(error.filename)
    what = f"{filename or 'session storage'}: {error.strerror or error}"
    kind: type[SessionIOError] = SessionIOError
    if isinstance(error, NotDurable):
        kind = SaveOutcomeUnknownError
        what += "; the change can be seen, but may not survive a power cut"
    return kind(what, session_id=session_id, errno=error.errno, filename=filename)
