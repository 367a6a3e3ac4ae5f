"""The next state of a session, worked out from the present one. Nothing here does I/O.

The records that were added last stay in the manifest until they take `INLINE` bytes. Then they
become a part. Parts have levels, as in a log-structured merge tree: `FAN` of one level are folded
into one of the next, and a part takes in all lower ones before it. So levels never rise along the
list, there are fewer than `FAN` parts of each, a manifest names a few dozen parts at the most, and
a record is written again once for each level while its session grows eightfold.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from ... import codec
from ...codec import Parcel, StoredRecord
from ..base import new_revision
from .layout import agent_folder, marker_key, new_token, part_key
from .manifest import (
    Manifest,
    Part,
    Tombstone,
    encode_manifest,
    encode_part,
    encode_tombstone,
    merge,
    size_of,
)

__all__ = [
    "FAN",
    "INLINE",
    "Draft",
    "ReadParts",
    "draft_append",
    "draft_removal",
    "draft_save",
    "fold_from",
    "level_of",
]

INLINE: Final = 32 * 1024
"""Bytes of records that a manifest holds itself: each append sends as many again at the most."""

FAN: Final = 8
"""Parts of one level that become one of the next."""

ReadParts = Callable[[list[Part]], Awaitable[list[list[StoredRecord]]]]
"""Reads the records of parts of the session that is worked on."""


class Draft(NamedTuple):
    """What is to be written.

    Attributes:
        state: What the session will be.
        data: The bytes that are to stand at its key.
        new: Objects that have to be there first.
        old: Keys that nothing names any more once it is done.
    """

    state: Manifest | Tombstone
    data: bytes
    new: dict[str, bytes]
    old: list[str]

    @property
    def token(self) -> str:
        """What tells this state from all others."""
        return self.state.past[0]


class _Clock:
    """The host's clock, of which no two states of this process get the same time."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._last = 0

    def next(self, after: int) -> int:
        with self._mutex:
            self._last = max(time.time_ns(), self._last + 1, after + 1)
            return self._last


_clock = _Clock()


async def draft_save(parcel: Parcel, found: Manifest | Tombstone | None, read: ReadParts) -> Draft:
    """Return the state that `parcel` is; where it came from `found`, only what changed is new."""
    draft = _Drafting(parcel.session_id, found)
    if isinstance(found, Manifest):
        origin = parcel.origin
        changed = codec.changes(parcel) if origin and origin.revision == found.revision else None
        if changed is not None and not _is_mostly_garbage(found, parcel.records):
            await draft.add(changed[1], read)
            return draft.finish(parcel.head, parcel.agent_id)
    draft.replace(parcel.records)
    return draft.finish(parcel.head, parcel.agent_id)


async def draft_append(
    session_id: str, records: list[StoredRecord], found: Manifest, read: ReadParts
) -> Draft:
    """Return the state in which `records` were added to `found`."""
    draft = _Drafting(session_id, found)
    await draft.add(records, read)
    return draft.finish(found.head)


def draft_removal(session_id: str, found: Manifest) -> Draft:
    """Return the state in which the session is deleted."""
    tombstone = Tombstone(new_token(), found.past)
    parts = [part_key(session_id, part.token) for part in found.parts]
    return Draft(tombstone, encode_tombstone(tombstone), {}, [*parts, found.marker])


class _Drafting:
    """A manifest in the making."""

    def __init__(self, session_id: str, found: Manifest | Tombstone | None) -> None:
        self._session_id = session_id
        self._before = found.past if found is not None else []
        self._found = found if isinstance(found, Manifest) else None
        self._parts = self._found.parts if self._found is not None else []
        self._records = self._found.records if self._found is not None else []
        self._new: dict[str, bytes] = {}
        self._old: list[str] = []

    def replace(self, records: list[StoredRecord]) -> None:
        """Have `records` in the place of all that was there."""
        self._drop(self._parts)
        self._parts, self._records = [], records
        if size_of(records) > INLINE:
            self._put_aside(records, level_of(size_of(records)))

    async def add(self, records: list[StoredRecord], read: ReadParts) -> None:
        """Add `records`, or put them in the place of those with their `loop_id`."""
        self._records = merge([self._records, records])
        size = size_of(self._records)
        if size > INLINE:
            start, level = fold_from(self._parts, level_of(size))
            steps = await read(self._parts[start:])
            self._drop(self._parts[start:])
            self._parts = self._parts[:start]
            self._put_aside(merge([*steps, self._records]), level)

    def finish(self, head: bytes, agent_id: str | None = None) -> Draft:
        """Return the draft; without an agent it stays the one that it was."""
        found = self._found
        marker = found.marker if found is not None else ""
        if agent_id is not None and not marker.startswith(agent_folder(agent_id)):
            if marker:
                self._old.append(marker)
            marker = marker_key(agent_id, self._session_id, new_token())
            self._new[marker] = self._session_id.encode()
        manifest = Manifest(
            revision=new_revision(),
            saved_at=_clock.next(found.saved_at if found is not None else 0),
            marker=marker,
            head=head,
            parts=self._parts,
            records=self._records,
            before=self._before,
        )
        return Draft(manifest, encode_manifest(manifest), self._new, self._old)

    def _put_aside(self, records: list[StoredRecord], level: int) -> None:
        data = encode_part(self._session_id, records)
        part = Part(new_token(), level, len(records), len(data))
        self._new[part_key(self._session_id, part.token)] = data
        self._parts, self._records = [*self._parts, part], []

    def _drop(self, parts: list[Part]) -> None:
        self._old += [part_key(self._session_id, part.token) for part in parts]


def level_of(size: int) -> int:
    """Return the level of a part of `size` bytes."""
    level, limit = 0, 2 * INLINE
    while size > limit:
        level, limit = level + 1, limit * FAN
    return level


def fold_from(parts: list[Part], level: int) -> tuple[int, int]:
    """Return from where on parts are folded into a new one of `level`, and the level it gets."""
    start = len(parts)
    while start and parts[start - 1].level < level:
        start -= 1
    while True:
        same = start
        while same and parts[same - 1].level == level:
            same -= 1
        if start - same < FAN - 1:
            return start, level
        start, level = same, level + 1


def _is_mostly_garbage(found: Manifest, records: list[StoredRecord]) -> bool:
    """Whether more than half of what is stored was replaced by what was stored later."""
    stored = sum(part.size for part in found.parts) + size_of(found.records)
    return stored > 2 * size_of(records) + INLINE
