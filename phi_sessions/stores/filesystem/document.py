"""The one JSON value that a session is in a file, as phi-core reads it.

Written here, it is compact, with the head and then each record on a line of its own:

```
{"session_id":"s-1","agent_id":"a-1",...,"revision":"89abcdef01234567","loops":[
{"loop_id":...},
{"loop_id":...}
]}
```

A line break inside a JSON text can only be white space, so that such a file is cut into its
parts without parsing it, and a short prefix holds all that a listing needs. Every other layout
(phi-core's, `indent=2`, another program's) is read as well; its revision is a digest of its bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from ...codec import MAX_DEPTH, repeats_a_key
from ...depth import exceeds_depth
from ...model import Revision

__all__ = [
    "Document",
    "OwnHead",
    "ends_well",
    "join",
    "join_indented",
    "may_be_own",
    "name_one_agent",
    "names_other",
    "names_session",
    "own_head",
    "split",
]

_START: Final = b'{"session_id":'
_STRING: Final = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_FIRST_KEYS: Final = re.compile(
    rb'\{\s*"session_id":\s*%s,\s*"agent_id":\s*(%s)' % (_STRING, _STRING), re.ASCII
)
"""As they are written here, and as phi-core lays them out."""

_AFTER_AGENT: Final = b'","created_at":'
_LOOPS: Final = b'"loops":[\n'
_BETWEEN: Final = b",\n"
_CLOSE: Final = b"\n]}"
_CHUNK: Final = 1024 * 1024
_REVISION: Final = re.compile(rb',"revision":"([0-9a-fu][0-9a-f]{15})",')
_REVISION_BYTES: Final = len(b',"revision":"0123456789abcdef",')
_SUPERSEDES: Final = re.compile(rb',"supersedes":"([0-9a-fu][0-9a-f]{15})"')
_SUPERSEDES_BYTES: Final = len(b',"supersedes":"0123456789abcdef"')


class OwnHead(NamedTuple):
    """The head of a file in the layout above, and where its records begin."""

    head: bytes
    revision: Revision
    supersedes: Revision | None
    records_at: int


class Document(NamedTuple):
    """A file's parts; nothing but the top level was looked at."""

    head: bytes
    records: Iterable[bytes]
    revision: Revision
    supersedes: Revision | None


def join(
    head: bytes, revision: Revision, supersedes: Revision | None, records: Iterable[bytes]
) -> list[bytes]:
    """Return the file's bytes in the layout above: one piece, or several of about `_CHUNK` bytes.

    `supersedes` is the last state of a tail that this file takes in, if there is one.
    Pieces, because one large copy would hold the interpreter, and with it the event loop.
    """
    before = b"" if supersedes is None else b',"supersedes":"%s"' % supersedes.encode()
    opening = b'%s%s,"revision":"%s",%s' % (head[:-1], before, revision.encode(), _LOOPS)
    chunks: list[bytes] = []
    parts, size = [opening], len(opening)
    between = b""
    for record in records:
        if size > _CHUNK:
            chunks.append(b"".join(parts))
            parts, size = [], 0
        parts += between, record
        size += len(record)
        between = _BETWEEN
    parts.append(_CLOSE)
    chunks.append(b"".join(parts))
    return chunks


def join_indented(
    head: bytes, supersedes: Revision | None, records: Iterable[bytes], indent: int
) -> tuple[bytes, Revision]:
    """Return the file's bytes laid out for people, as phi-core does, and their revision."""
    before = b"" if supersedes is None else b',"supersedes":"%s"' % supersedes.encode()
    compact = b'%s%s,"loops":[%s]}' % (head[:-1], before, b",".join(records))
    data = msgspec.json.format(compact, indent=indent)
    return data, _digest(data)


def own_head(prefix: bytes) -> OwnHead | None:
    """Return the head of a file that begins with `prefix`, or None if it is laid out otherwise."""
    loops_at = prefix.find(_LOOPS)
    match = _REVISION.match(prefix, loops_at - _REVISION_BYTES) if loops_at > 0 else None
    if match is None or match.end() != loops_at or not prefix.startswith(_START):
        return None
    end = match.start()
    before = _SUPERSEDES.fullmatch(prefix, max(end - _SUPERSEDES_BYTES, 0), end)
    supersedes = Revision(before[1].decode()) if before else None
    head = prefix[: before.start() if before else end] + b"}"
    return OwnHead(head, Revision(match[1].decode()), supersedes, loops_at + len(_LOOPS))


def ends_well(tail: bytes) -> bool:
    """Return whether a file in the layout above that ends with `tail` is all there."""
    return tail.endswith(_CLOSE)


def may_be_own(prefix: bytes) -> bool:
    """Return whether a longer prefix than this one could hold a head in the layout above."""
    return prefix.startswith(_START) and _LOOPS not in prefix


def names_session(head: bytes, session_id: str) -> bool:
    """Return whether a head begins with this session's id, as a head written here does."""
    return head.startswith(b"%s%s," % (_START, msgspec.json.encode(session_id)))


def names_other(prefix: bytes, agent: bytes) -> bool:
    """Return whether a file's first bytes name another agent than `agent`, a JSON text.

    False when they name that one, and when they do not tell.
    """
    match = _FIRST_KEYS.match(prefix)
    if match is None or match[1] == agent:
        return False
    if b"\\" not in match[1] and b"\\" not in agent:
        return True
    try:  # one text can be escaped in several ways
        return bool(msgspec.json.decode(match[1]) != msgspec.json.decode(agent))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False


def name_one_agent(head: bytes, other: bytes) -> bool:
    """Return whether two heads of one session, as our own files have them, name the same agent."""
    end = head.find(_AFTER_AGENT)  # in a string, each quote has a backslash
    return end > 0 and other.startswith(head[: end + len(_AFTER_AGENT)])


def split(data: bytes) -> Document:
    """Cut a file into its parts.

    Raises:
        msgspec.MsgspecError: It is not a JSON object with an array `loops`, or names a key twice.
        UnicodeDecodeError: It is not UTF-8.
    """
    own = own_head(data)
    if own is None or not ends_well(data):
        return _split_any(data)
    return Document(own.head, _lines(data, own.records_at), own.revision, own.supersedes)


def _lines(data: bytes, start: int) -> Iterator[bytes]:
    last = len(data) - len(_CLOSE)
    while start < last:
        end = data.find(_BETWEEN, start, last)
        if end < 0:
            end = last
        yield data[start:end]
        start = end + len(_BETWEEN)


def _split_any(data: bytes) -> Document:
    data.decode()
    if exceeds_depth(data, MAX_DEPTH):
        raise msgspec.DecodeError(f"nested deeper than {MAX_DEPTH} levels")
    text = msgspec.json.format(data, indent=-1)
    values = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    if repeats_a_key(text):
        raise msgspec.DecodeError("a key occurs twice")
    if "loops" not in values:
        raise msgspec.ValidationError("Object missing required field `loops`")
    loops = msgspec.json.decode(values.pop("loops"), type=list[msgspec.Raw])
    values.pop("revision", None)  # of a state that another program has changed since
    before = values.pop("supersedes", None)
    supersedes = None if before is None else Revision(bytes(memoryview(before)).decode().strip('"'))
    head = msgspec.json.encode(values)
    return Document(
        head, [bytes(memoryview(record)) for record in loops], _digest(data), supersedes
    )


def _digest(data: bytes) -> Revision:
    return Revision("content-" + hashlib.blake2b(data, digest_size=16).hexdigest())
