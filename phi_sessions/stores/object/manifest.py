"""What the objects hold: a manifest for each session, parts, tombstones. Nothing here does I/O.

A *manifest* tells what a session is now. Its first line is an envelope (revision, time, parts),
its second the head, and each further line a loop record: the latest ones, as long as they are
few. Older records are in *parts*, immutable objects with random names, each a line for each
record. Parts and, last, the manifest's own records are steps: the first is a list, each further
one adds records to it or puts them in the place of those with their `loop_id`.

A *tombstone* stands in a manifest's place once the session was deleted. It is always
`TOMBSTONE_SIZE` bytes long, which no manifest is: a listing tells it without reading it.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from typing import Final, NamedTuple

import msgspec

from ... import codec
from ...codec import StoredRecord
from ...errors import SessionCorruptError
from ...model import Revision

__all__ = [
    "TOMBSTONE_SIZE",
    "Fate",
    "Front",
    "Manifest",
    "Part",
    "Tombstone",
    "checked_record",
    "damaged",
    "decode_front",
    "decode_manifest",
    "decode_part",
    "decode_tombstone",
    "encode_manifest",
    "encode_part",
    "encode_tombstone",
    "fate",
    "merge",
    "size_of",
]

TOMBSTONE_SIZE: Final = 704
_FORMAT: Final = 1
_REMEMBERED: Final = 32
"""Revisions before the present one that a manifest names: a writer that lost the answer to its
request finds out that it was made, even if others have written since."""


class Part(NamedTuple):
    """Where older records are.

    Attributes:
        token: Its random name.
        level: The higher, the more was folded into it.
        records: How many it holds.
        size: Its bytes.
    """

    token: str
    level: int
    records: int
    size: int


class _Envelope(msgspec.Struct, frozen=True):
    format: int
    revision: str
    saved_at: int
    marker: str
    head: int
    records: int
    parts: list[Part]
    before: list[str]


class Front(NamedTuple):
    """What a listing needs of a manifest.

    Attributes:
        marker: The key of the session's entry in its agent's index.
        saved_at: By the clock of the host that wrote it, in nanoseconds.
        size: Bytes of the manifest and its parts.
    """

    revision: Revision
    saved_at: int
    marker: str
    parts: list[Part]
    head: bytes
    size: int


class Manifest(NamedTuple):
    """A session as it is stored; `records` is the last step.

    Attributes:
        before: The revisions before this one, the latest first.
    """

    revision: Revision
    saved_at: int
    marker: str
    head: bytes
    parts: list[Part]
    records: list[StoredRecord]
    before: list[str]

    @property
    def past(self) -> list[str]:
        """What the next state's `before` is."""
        return [self.revision, *self.before][:_REMEMBERED]


class Tombstone(NamedTuple):
    """What is left of a deleted session.

    Attributes:
        token: Random, so that no two are alike.
        before: The revisions before, the last first.
        is_leaving: Whether somebody is about to remove the tombstone itself.
    """

    token: str
    before: list[str]
    is_leaving: bool = False

    @property
    def past(self) -> list[str]:
        """What the next state's `before` is."""
        return [self.token, *self.before][:_REMEMBERED]


class _Grave(msgspec.Struct, frozen=True):
    deleted: str
    leaving: bool
    before: list[str]


class Fate(Enum):
    """What became of a write whose answer was lost, as far as the stored state tells."""

    STANDS = auto()
    """It was made, and is what stands there."""

    REPLACED = auto()
    """It was made, and others have written since."""

    NOT_MADE = auto()
    UNKNOWN = auto()


def fate(state: Manifest | Tombstone | None, ours: str, base: str | None) -> Fate:
    """Return whether the state `ours` was written over the state `base` (None: over nothing)."""
    if state is None:
        return Fate.NOT_MADE if base is None else Fate.UNKNOWN
    if ours in state.past:
        return Fate.STANDS if ours == state.past[0] else Fate.REPLACED
    if base is None:
        return Fate.NOT_MADE if len(state.past) < _REMEMBERED else Fate.UNKNOWN
    return Fate.NOT_MADE if base in state.past else Fate.UNKNOWN


def merge(steps: Iterable[list[StoredRecord]]) -> list[StoredRecord]:
    """Return the first step with the further ones added to it as `codec.put_records` does."""
    steps = iter(steps)
    result = list(next(steps, ()))
    places = {record.loop_id: place for place, record in enumerate(result)}
    for step in steps:
        for record in step:
            place = places.setdefault(record.loop_id, len(result))
            result[place : place + 1] = [record]
    return result


def size_of(records: Iterable[StoredRecord]) -> int:
    """Return how many bytes the records take."""
    return sum(len(record.text) + 1 for record in records)


def encode_manifest(manifest: Manifest) -> bytes:
    """Return a manifest's bytes."""
    envelope = _Envelope(
        format=_FORMAT,
        revision=manifest.revision,
        saved_at=manifest.saved_at,
        marker=manifest.marker,
        head=len(manifest.head),
        records=len(manifest.records),
        parts=manifest.parts,
        before=manifest.before,
    )
    texts = [record.text for record in manifest.records]
    lines = [msgspec.json.encode(envelope), manifest.head, *texts, b""]
    if sum(map(len, lines)) + len(lines) - 1 == TOMBSTONE_SIZE:
        lines[0] += b" "
    return b"\n".join(lines)


def decode_manifest(data: bytes, session_id: str, path: str) -> Manifest | Tombstone:
    """Read what stands at a session's key.

    Raises:
        SessionCorruptError: It is neither a manifest nor a tombstone.
    """
    if (tombstone := decode_tombstone(data)) is not None:
        return tombstone
    envelope, start = _envelope(data, session_id, path)
    end = start + envelope.head
    lines = data[end:].split(b"\n")
    if len(lines) != envelope.records + 2 or lines[0] or lines[-1]:
        raise damaged("it does not hold as many records as it says", session_id, path)
    return Manifest(
        revision=Revision(envelope.revision),
        saved_at=envelope.saved_at,
        marker=envelope.marker,
        head=data[start:end],
        parts=envelope.parts,
        records=[checked_record(text, session_id, path) for text in lines[1:-1]],
        before=envelope.before,
    )


def decode_front(data: bytes, size: int, session_id: str, path: str) -> Front | None:
    """Read the front of a manifest of `size` bytes; None if `data` ends too soon to tell.

    Raises:
        SessionCorruptError: It is not a manifest.
    """
    is_whole = len(data) == size
    if not is_whole and b"\n" not in data:
        return None
    envelope, start = _envelope(data, session_id, path)
    end = start + envelope.head
    if len(data) <= end:
        if not is_whole:
            return None
        raise damaged("it ends before its head does", session_id, path)
    return Front(
        revision=Revision(envelope.revision),
        saved_at=envelope.saved_at,
        marker=envelope.marker,
        parts=envelope.parts,
        head=data[start:end],
        size=size + sum(part.size for part in envelope.parts),
    )


def _envelope(data: bytes, session_id: str, path: str) -> tuple[_Envelope, int]:
    line, _, _ = data.partition(b"\n")
    try:
        envelope = _read_envelope(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise damaged(f"its first line: {error}", session_id, path) from error
    if envelope.format != _FORMAT:
        raise damaged(f"its format is {envelope.format}, not {_FORMAT}", session_id, path)
    return envelope, len(line) + 1


def encode_part(session_id: str, records: list[StoredRecord]) -> bytes:
    """Return the bytes of a part."""
    title = msgspec.json.encode({"session_id": session_id, "records": len(records)})
    return b"\n".join([title, *(record.text for record in records), b""])


def decode_part(data: bytes, part: Part, session_id: str, path: str) -> list[bytes]:
    """Return the texts of a part; that each is a record is for the caller to check.

    Raises:
        SessionCorruptError: It is not that part.
    """
    title, *texts = data.split(b"\n")
    named = msgspec.json.encode({"session_id": session_id, "records": part.records})
    if len(data) != part.size or title != named or len(texts) != part.records + 1 or texts[-1]:
        raise damaged("it is not the part that the session names", session_id, path)
    return texts[:-1]


def encode_tombstone(tombstone: Tombstone) -> bytes:
    """Return the bytes of a tombstone."""
    grave = _Grave(tombstone.token, tombstone.is_leaving, tombstone.before[: _REMEMBERED - 1])
    return msgspec.json.encode(grave).ljust(TOMBSTONE_SIZE - 1) + b"\n"


def decode_tombstone(data: bytes) -> Tombstone | None:
    """Read a tombstone; None if it is none."""
    if len(data) != TOMBSTONE_SIZE:
        return None
    try:
        grave = _read_grave(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return Tombstone(grave.deleted, grave.before, grave.leaving)


def checked_record(text: bytes, session_id: str, path: str) -> StoredRecord:
    """Return a record whose text can be decoded.

    Raises:
        SessionCorruptError: It cannot.
    """
    try:
        return StoredRecord(codec.check_record(text), text)
    except SessionCorruptError as error:
        raise damaged(error.reason, session_id, path) from error


def damaged(reason: str, session_id: str, path: str) -> SessionCorruptError:
    """Return the error that says what is wrong with an object."""
    return SessionCorruptError(
        f"session {session_id!r} is damaged: {path}: {reason}",
        session_id=session_id,
        path=path,
        reason=reason,
    )


_read_envelope: Final = msgspec.json.Decoder(_Envelope).decode
_read_grave: Final = msgspec.json.Decoder(_Grave).decode
