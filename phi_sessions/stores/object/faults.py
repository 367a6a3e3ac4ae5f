"""What obstore's errors mean, told in one place.

obstore raises few kinds of errors; what happened stands in their text, which is what object_store
(Rust) prints of them: the status of the answer, or the number of the system's error.
"""

from __future__ import annotations

import errno
import re
from enum import Enum, auto
from typing import Final

from ...dependency import requires
from ...errors import SessionIOError

with requires("object"):
    from obstore.exceptions import (
        AlreadyExistsError,
        BaseError,
        InvalidPathError,
        NotSupportedError,
        PermissionDeniedError,
        PreconditionError,
        UnauthenticatedError,
        UnknownConfigurationKeyError,
    )

__all__ = [
    "DRIVER_ERRORS",
    "Fault",
    "fault_of",
    "is_out_of_range",
    "translate",
    "was_sent_once",
]

DRIVER_ERRORS: Final = (BaseError, OSError, NotImplementedError, ValueError)
"""All that obstore raises: its own tree, and Python's for what is missing, late or malformed."""


class Fault(Enum):
    """What a failed request leaves behind."""

    ABSENT = auto()
    """The object is not there."""

    REFUSED = auto()
    """The condition did not hold, for this request or for its repetition."""

    NOT_SENT = auto()
    """Nobody answers at the address."""

    NOT_MADE = auto()
    """The request was turned down, or cannot be made at all."""

    BUSY = auto()
    """The request was turned down for now."""

    FAILED = auto()
    """The server failed in the middle of it: whether it was made is not known."""

    LOST = auto()
    """No answer came: whether it was made is not known, and it may be made yet."""


_STATUS: Final = re.compile(r"non-2xx status code: (\d{3})")
_SYSTEM_ERROR: Final = re.compile(r"\bOs \{\s*code: (\d+)")
_CONNECTING: Final = re.compile(r"\bkind: Connect\b")
_TIMED_OUT: Final = re.compile(r"\bkind: Timeout\b")
_SENT_AGAIN: Final = re.compile(r"\bretries: [1-9]")
_QUERY: Final = re.compile(r"\?\S+")
_RANGE: Final = re.compile(r"\bInvalidGetRange\b|\bInvalidRange\b|StartTooLarge")
_DENIED: Final = "code: AccessDenied"
_NO_BUCKET: Final = re.compile(r"NoSuchBucket|ContainerNotFound|bucket does not exist")
_DEBUG: Final = "\n\nDebug source:"
_LONGEST: Final = 400


def fault_of(error: Exception) -> Fault:
    """Return what `error` leaves behind."""
    text = str(error)
    match error:
        case FileNotFoundError():
            return Fault.NOT_MADE if _NO_BUCKET.search(text) else Fault.ABSENT
        case PreconditionError() | AlreadyExistsError():
            return Fault.REFUSED
        case (
            PermissionDeniedError()
            | UnauthenticatedError()
            | InvalidPathError()
            | NotSupportedError()
            | UnknownConfigurationKeyError()
            | NotImplementedError()
            | ValueError()
        ):
            return Fault.NOT_MADE
        case TimeoutError():
            return Fault.LOST
        case _:
            return _fault_told(text)


def _fault_told(text: str) -> Fault:
    status = _status(text)
    if status is None:
        if _CONNECTING.search(text):
            return Fault.NOT_SENT
        return Fault.NOT_MADE if _DENIED in text else Fault.LOST
    if status in (409, 412):
        return Fault.REFUSED
    if status in (429, 503):
        return Fault.BUSY
    return Fault.FAILED if status >= 500 and status != 501 else Fault.NOT_MADE


def is_out_of_range(error: Exception) -> bool:
    """Whether a part of an object was asked for that it has not got: it is empty."""
    text = str(error)
    return _status(text) == 416 or _RANGE.search(text) is not None


def was_sent_once(error: Exception) -> bool:
    """Whether obstore did not, by itself, send the request again after a failure."""
    return _SENT_AGAIN.search(str(error)) is None


def translate(error: Exception, place: str, session_id: str | None = None) -> SessionIOError:
    """Return the documented error for what obstore raised."""
    number = _errno(error)
    text = str(error).partition(_DEBUG)[0]
    what = " ".join(_QUERY.sub("", text).split())[:_LONGEST]  # a query may hold a signature
    if isinstance(error, TimeoutError) and not what:
        what = "no answer in time"
    return SessionIOError(f"{place}: {what}", session_id=session_id, errno=number, filename=place)


def _errno(error: Exception) -> int | None:
    text = str(error)
    if isinstance(error, TimeoutError) or _TIMED_OUT.search(text):
        return errno.ETIMEDOUT
    denied = isinstance(error, PermissionDeniedError | UnauthenticatedError) or _DENIED in text
    if denied or _status(text) in (401, 403):
        return errno.EACCES
    if isinstance(error, FileNotFoundError) or _status(text) == 404:
        return errno.ENOENT
    found = _SYSTEM_ERROR.search(text)
    return int(found[1]) if found else None


def _status(text: str) -> int | None:
    found = _STATUS.search(text)
    return int(found[1]) if found else None
