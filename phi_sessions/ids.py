"""Session ids and the names that stand for them on disk and in URLs.

A *plain* id is its own name, as in phi-core. Every other id is written as `%` followed by its
percent-encoded UTF-8. The mapping is injective and reversible, and no name holds a separator,
starts with a dot, or means something to a file system.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from .errors import InvalidSessionIdError

__all__ = ["MAX_NAME_BYTES", "id_from_name", "name_from_id"]

MAX_NAME_BYTES: Final = 200
"""A name's length in bytes. With `.json.tmp.{pid}.{digits}` behind it, it fits in 255."""

_ASCII: Final = re.compile(r"[A-Za-z0-9_@+=-](?:[A-Za-z0-9_@+= .-]*[A-Za-z0-9_@+=-])?")
_USUAL: Final = re.compile(r"[A-Za-z0-9_@+=-]{5,}")  # too long for a device's name
_PUNCTUATION: Final = frozenset("_-@+= .")
_DEVICE: Final = re.compile(
    r"(?:con|prn|aux|nul|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])", re.IGNORECASE
)
# Categories are read from Unicode 3.2, which every Python carries: a newer table would call more
# characters letters, and two Python versions would then look for one id under two names.
_category: Final = unicodedata.ucd_3_2_0.category


def name_from_id(session_id: str) -> str:
    """Return the name of `session_id`.

    Raises:
        InvalidSessionIdError: The id is not a string, is empty, holds a surrogate, or its name
            would be longer than `MAX_NAME_BYTES`.
    """
    if not isinstance(session_id, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidSessionIdError(f"a session id is a string, not {type(session_id).__name__}")
    return _name_from_id(session_id)


@lru_cache(4096)
def _name_from_id(session_id: str) -> str:
    if not session_id:
        raise InvalidSessionIdError("a session id cannot be empty", session_id=session_id)
    try:
        encoded = session_id.encode()
    except UnicodeEncodeError as error:
        raise InvalidSessionIdError(
            f"a session id cannot hold a surrogate: {session_id!a}", session_id=session_id
        ) from error
    if _is_plain(session_id):
        name, size = session_id, len(encoded)
    else:
        name = "%" + quote_from_bytes(encoded, safe="_-@+=").replace("~", "%7E").replace(".", "%2E")
        size = len(name)
    if size > MAX_NAME_BYTES:
        raise InvalidSessionIdError(
            f"a session id takes at most {MAX_NAME_BYTES} bytes encoded, this one takes {size}",
            session_id=session_id,
        )
    return name


def id_from_name(name: str) -> str | None:
    """Return the id whose name is `name`, or None when no id has that name."""
    if len(name) <= MAX_NAME_BYTES and _is_plain(name):
        return name if name.isascii() or len(name.encode()) <= MAX_NAME_BYTES else None
    if not name.startswith("%"):
        return None
    try:
        session_id = unquote_to_bytes(name[1:]).decode()
        return session_id if name_from_id(session_id) == name else None
    except (UnicodeError, InvalidSessionIdError):
        return None


def _is_plain(text: str) -> bool:
    if _USUAL.fullmatch(text):
        return True
    if text.isascii():
        if not _ASCII.fullmatch(text):
            return False
    elif not _is_plain_unicode(text):
        return False
    stem = text.partition(".")[0].rstrip(" ")
    return not 3 <= len(stem) <= 4 or not _DEVICE.fullmatch(stem)


def _is_plain_unicode(text: str) -> bool:
    return (
        text[0] not in ". "
        and text[-1] not in ". "
        and all(c in _PUNCTUATION or _category(c)[0] in "LMN" for c in text)
        and unicodedata.is_normalized("NFC", text)
    )
