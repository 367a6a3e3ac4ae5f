r"""The file beside a session that appends go to: what its bytes mean.

Each line is one JSON object, its checksum and its length in bytes, so that the last line can be
found and checked from the end:

```
{"extends":"89abcdef01234567"}\t{crc32:08x}\t{length:08x}
{"revision":"76543210fedcba98","loops":[{"loop_id":...}]}\t...
{"revision":"0123456789abcdef","head":{...},"loops":[...]}\t...
```

The first names the revision of the session file that the tail extends. Every other is one append,
or one save that changed little: the revision that it made, the head if that changed, and records to
add or, where the session has their `loop_id`, to put in place. A line is only written behind a
line that was checked, so that only the last can be torn.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from ...codec import StoredRecord, check_record, decode_head
from ...model import Revision

__all__ = [
    "TRAILER",
    "Step",
    "Tail",
    "first_line",
    "line_length",
    "parse",
    "revision_of",
    "step_line",
]

TRAILER: Final = len(b"\t0123abcd\t0123abcd\n")
_START: Final = b'{"revision":"'
_BETWEEN: Final = b", "
"""As long as what is between two records of a session file, so that what fits here fits there."""


class Step(NamedTuple):
    """One append: the state that it made, and how."""

    revision: Revision
    head: bytes | None
    records: list[StoredRecord]


class Tail(NamedTuple):
    """A tail as far as it is whole."""

    extends: Revision
    steps: list[Step]
    size: int
    """Bytes of its whole lines."""

    mtime_ns: int = 0

    @property
    def has_steps(self) -> bool:
        """Whether it leads anywhere."""
        return bool(self.steps)

    @property
    def revision(self) -> Revision:
        """The last state that it leads to."""
        return self.steps[-1].revision if self.steps else self.extends


class _First(msgspec.Struct):
    extends: str


class _Step(msgspec.Struct):
    revision: str
    loops: list[msgspec.Raw]
    head: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def first_line(extends: Revision) -> bytes:
    """Return the line that begins a tail."""
    return _line(b'{"extends":"%s"}' % extends.encode())


def step_line(revision: Revision, head: bytes | None, records: Iterable[bytes]) -> bytes:
    """Return the line of one append."""
    changed = b"" if head is None else b'"head":%s,' % head
    return _line(
        b'%s%s",%s"loops":[%s]}' % (_START, revision.encode(), changed, _BETWEEN.join(records))
    )


def line_length(end: bytes) -> int | None:
    """Return how long the last line is, told by the bytes a tail ends with; None if it is torn."""
    trailer = end[-TRAILER:]
    if len(trailer) < TRAILER or trailer[-1:] != b"\n":
        return None
    try:
        return int(trailer[10:18], 16) + TRAILER
    except ValueError:
        return None


def revision_of(line: bytes) -> Revision | None:
    """Return the revision that a line made or, if it is the first, extends; None if it is torn."""
    payload = _payload(line)
    if payload is None:
        return None
    try:
        if payload.startswith(_START):
            return Revision(msgspec.json.decode(payload, type=_Step).revision)
        return Revision(msgspec.json.decode(payload, type=_First).extends)
    except msgspec.MsgspecError:
        return None


def parse(data: bytes) -> Tail | None:
    """Read a tail as far as it is whole; None if not even its first line is.

    Raises:
        msgspec.MsgspecError: A line is whole, but is not what was written here.
        SessionCorruptError: A head or a record is not one.
        UnicodeDecodeError: A line is not UTF-8.
    """
    first, *lines = data.split(b"\n")
    payload = _payload(first + b"\n") if lines else None
    if payload is None:
        if any(_ends_whole(line + b"\n") for line in (first, *lines)[:-1]):
            raise msgspec.DecodeError("the first line of the tail is damaged")
        return None
    tail = Tail(Revision(msgspec.json.decode(payload, type=_First).extends), [], len(first) + 1)
    size = tail.size
    for number, line in enumerate(lines[:-1], 2):  # behind the last break: nothing, or a torn line
        payload = _payload(line + b"\n")
        if payload is None:
            if number < len(lines) or lines[-1] or _ends_whole(line + b"\n"):
                raise msgspec.DecodeError(f"line {number} of the tail is damaged")
            break
        step = msgspec.json.decode(payload, type=_Step)
        texts = [bytes(memoryview(text)) for text in step.loops]
        records = [StoredRecord(check_record(text), text) for text in texts]
        head = None if step.head is msgspec.UNSET else bytes(memoryview(step.head))
        if head is not None:
            decode_head(head)
        tail.steps.append(Step(Revision(step.revision), head, records))
        size += len(line) + 1
    return tail._replace(size=size)


def _line(payload: bytes) -> bytes:
    return b"%s\t%08x\t%08x\n" % (payload, crc32(payload), len(payload))


def _ends_whole(text: bytes) -> bool:
    """Whether the end of `text` is a line, told by its length: then what is before it is damage."""
    length = line_length(text)
    return length is not None and length <= len(text) and _payload(text[-length:]) is not None


def _payload(line: bytes) -> bytes | None:
    payload = line[:-TRAILER]
    return payload if _line(payload) == line else None
