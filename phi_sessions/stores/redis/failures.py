"""The driver's errors in the words of this package."""

from __future__ import annotations

import errno
import re
from importlib import import_module
from importlib.util import find_spec
from typing import Final

from ...dependency import requires
from ...errors import SessionCorruptError, SessionError, SessionIOError

with requires("redis"):
    from redis import exceptions

    _MODULES = [exceptions]
    if find_spec("redis.auth"):  # of those who sign in with tokens; not in every version
        _MODULES.append(import_module("redis.auth.err"))

__all__ = ["DRIVER_ERRORS", "is_closed", "may_have_run", "translate"]

DRIVER_ERRORS: Final[tuple[type[Exception], ...]] = (
    *(
        kind
        for module in _MODULES
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ),
    OSError,  # asyncio's time-outs among them
)
"""All that the driver raises: some of it has no base class of its own."""

_CODES: Final = {
    "OOM": errno.ENOMEM,
    "READONLY": errno.EROFS,
    "NOPERM": errno.EACCES,
    "NOAUTH": errno.EACCES,
    "WRONGPASS": errno.EACCES,
    "BUSY": errno.EBUSY,
    "LOADING": errno.EAGAIN,
    "TRYAGAIN": errno.EAGAIN,
    "CLUSTERDOWN": errno.EAGAIN,
    "MASTERDOWN": errno.EAGAIN,
    "MISCONF": errno.EIO,
    "NOREPLICAS": errno.EIO,
}
_KINDS: Final = {
    exceptions.OutOfMemoryError: "OOM",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.AuthenticationError: "NOAUTH",
    exceptions.AuthorizationError: "NOAUTH",
    exceptions.BusyLoadingError: "LOADING",
    exceptions.MaxConnectionsError: "TRYAGAIN",
    exceptions.TryAgainError: "TRYAGAIN",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.ClusterError: "TRYAGAIN",
}
# What a script's command was refused with stands inside the error of the script.
_CODE: Final = re.compile(rf"(?:^|[ -])({'|'.join(_CODES)})\b")
_DENIED: Final = re.compile(
    r"unauthenticated|user executing the script can't|ACL failure|no permissions", re.IGNORECASE
)
# "Error 111 connecting to", "[Errno 111] Connect call failed", "reading from host : (104, "
_ERRNO: Final = re.compile(r"(?:^Error |\[Errno |: \()(\d+)\b")

_NOT_SENT: Final = (
    exceptions.AuthenticationError,
    exceptions.AuthorizationError,
    exceptions.MaxConnectionsError,
)
_NO_CONNECTION: Final = re.compile(
    r"connecting to|max number of clients reached|No connection available|Too many connections"
)
# Streams that are None, a transport of Python 3.12 or later whose parts are, and one of uvloop's.
_CLOSED: Final = re.compile(r"'NoneType' object|the handler is closed")


def is_closed(error: Exception) -> bool:
    """Whether this was raised because a connection is closed, which the driver did not notice."""
    return _CLOSED.search(str(error)) is not None


def may_have_run(error: Exception, tries_again: bool) -> bool:
    """Whether the server may have done what it was asked for although this was raised.

    Args:
        error: What was raised.
        tries_again: Whether it may be what only the last of several attempts met.
    """
    if isinstance(error, _NOT_SENT):
        return False
    if not tries_again and (
        isinstance(error, exceptions.BusyLoadingError) or _NO_CONNECTION.search(str(error))
    ):
        return False
    return isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError | OSError)


def translate(error: Exception, address: str, session_id: str | None) -> SessionError:
    """Return what the caller hears of an error of the driver."""
    text = str(error) or type(error).__name__
    if isinstance(error, TimeoutError):
        text = "no answer came in time"
    if "WRONGTYPE" in text:
        return SessionCorruptError(
            f"{address}: {text}", session_id=session_id, path=address, reason=text
        )
    message = f"{address}: {text}"
    return SessionIOError(message, session_id=session_id, errno=_number(error), filename=address)


def _number(error: Exception) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if isinstance(error, exceptions.TimeoutError | TimeoutError):
        return errno.ETIMEDOUT
    for kind, code in _KINDS.items():
        if isinstance(error, kind):
            return _CODES[code]
    if "Too many connections" in str(error):  # as older versions of the driver say it
        return errno.EAGAIN
    if found := _CODE.search(str(error)):
        return _CODES[found[1]]
    if _DENIED.search(str(error)):
        return errno.EACCES
    found = _ERRNO.search(str(error))
    return int(found[1]) if found else None
