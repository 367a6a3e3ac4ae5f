"""How deeply a JSON text is nested, told without parsing it.

Every JSON parser recurses. A text of 100,000 brackets overflows the stack of a small thread, so
the depth is known before a parser sees the text. Nothing here recurses or builds objects: the
text is cut down to its brackets by the C loops of `bytes`, and pairs are taken away from within.
"""

from __future__ import annotations

from typing import Final

__all__ = ["exceeds_depth"]

_SMALL: Final = 16384
"""Below this many bytes a text often has so few brackets that counting them is enough."""

_PARENTHESES: Final = bytes.maketrans(b"[]{}", b"()()")
_ALL_BUT_OPENING: Final = bytes(set(range(256)) - set(b"[{"))
_ALL_BUT_BRACKETS_AND_QUOTES: Final = bytes(set(range(256)) - set(b'[]{}"'))


def exceeds_depth(text: bytes, limit: int) -> bool:
    """Return whether objects and arrays are nested more than `limit` levels deep.

    The text need not be valid JSON: brackets that are never closed count as nested.
    """
    if len(text) < _SMALL and len(text.translate(None, _ALL_BUT_OPENING)) <= limit:
        return False
    text = _without_escapes(text).translate(_PARENTHESES, _ALL_BUT_BRACKETS_AND_QUOTES)
    # Two quotes with nothing between them: dropping them leaves inside and outside as they were.
    text = text.replace(b'""', b"")
    if b'"' in text:
        text = b"".join(text.split(b'"')[::2])
    too_deep = b"(" * (limit + 1)
    for _ in range(limit):
        if too_deep in text:
            return True  # a hostile text would keep the loop below busy for long
        text = text.replace(b"()", b"")
        if not text:
            return False
    return b"()" in text or text.count(b"(") > limit


def _without_escapes(text: bytes) -> bytes:
    first, *rest = text.split(b"\\")
    parts = [first]
    literal = False
    for part in rest:
        if literal:
            parts.append(part)
            literal = False
        elif part:
            parts.append(part[1:])
        else:
            literal = True  # an escaped backslash: what follows it is not escaped
    return b"".join(parts)
