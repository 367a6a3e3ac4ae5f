"""What stands in the bucket about a session, read and checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from ... import codec
from ...codec import StoredRecord
from ...errors import SessionCorruptError
from ...info import SessionInfo, card
from ...timestamp import Timestamp
from ..base import Stored
from ..pace import pace
from .bucket import Bucket
from .client import Got
from .crowd import for_each
from .layout import part_folder, part_key, session_key
from .manifest import (
    Fate,
    Front,
    Manifest,
    Part,
    Tombstone,
    checked_record,
    damaged,
    decode_front,
    decode_manifest,
    decode_part,
    decode_tombstone,
    fate,
    merge,
)

if TYPE_CHECKING:
    from obstore import UpdateVersion

__all__ = ["Card", "Found", "Moved", "Reader"]

T = TypeVar("T")

_FRONT: Final = 4096
"""Bytes of a manifest that nearly always hold its front."""


class Moved(Exception):
    """A part is gone: the session was changed since its manifest was read."""


class Found(NamedTuple):
    """What stands at a session's key.

    Attributes:
        state: What it says; None if nothing stands there, or if it is damaged.
        version: What a put names that is to replace just this.
        modified: When it was put, by the server's clock, in seconds.
        damage: What is wrong with it.
    """

    state: Manifest | Tombstone | None = None
    version: UpdateVersion | None = None
    modified: int = 0
    damage: SessionCorruptError | None = None

    @property
    def token(self) -> str | None:
        """What tells this state from all others."""
        return None if self.state is None else self.state.past[0]


class Card(NamedTuple):
    """What a listing needs of a session.

    Attributes:
        modified: When it was stored, by the server's clock, in seconds.
        front: The front of its manifest, unless that is damaged.
        damage: What is wrong with it.
    """

    session_id: str
    modified: int
    front: Front | None
    damage: SessionCorruptError | None = None

    @property
    def order(self) -> tuple[int, int, str]:
        """What puts the most recently saved first."""
        return -self.modified, -self.front.saved_at if self.front else 0, self.session_id

    @property
    def info(self) -> SessionInfo:
        """What the session's card says.

        Raises:
            SessionCorruptError: It is damaged.
        """
        if self.front is None:
            assert self.damage is not None
            raise self.damage
        front = self.front
        header = codec.decode_card(front.head)
        saved_at = Timestamp.from_nanoseconds(front.saved_at)
        return card(header, front.revision, saved_at, front.size)


class Reader:
    """Reads sessions from a bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def look(self, session_id: str) -> Found:
        """Return what stands at the session's key, sound or damaged."""
        return self.tell(session_id, await self._bucket.get(session_key(session_id)))

    async def look_again(self, session_id: str, before: Found) -> Found:
        """Return what stands there now that a part of what stood there is gone.

        Raises:
            SessionCorruptError: It is the same: the part is missing.
        """
        found = await self.look(session_id)
        if found.version == before.version:
            path = self._bucket.path(session_key(session_id))
            raise damaged("a part that it names is missing", session_id, path)
        return found

    def tell(self, session_id: str, got: Got | None) -> Found:
        """Return what the bytes at a session's key say."""
        if got is None:
            return Found()
        path = self._bucket.path(session_key(session_id))
        try:
            state = decode_manifest(got.data, session_id, path)
            if isinstance(state, Manifest):
                _require_id(
                    _told(codec.decode_card, state.head, session_id, path), session_id, path
                )
            return Found(state, got.version, got.modified)
        except SessionCorruptError as error:
            return Found(None, got.version, got.modified, error)

    def fate(self, session_id: str, got: Got | None, ours: str, base: Found) -> Fate:
        """Return what became of the state `ours` that was to take the place of `base`."""
        found = self.tell(session_id, got)
        if found.damage is not None:
            return Fate.UNKNOWN
        return fate(found.state, ours, base.token)

    async def exists(self, session_id: str) -> bool:
        """Return whether a session stands there, sound or damaged."""
        got = await self._bucket.get(session_key(session_id), first=_FRONT)
        return got is not None and decode_tombstone(got.data) is None

    async def stored(self, session_id: str, found: Found) -> Stored | None:
        """Return the session that was found; None if it is none, or deleted.

        Raises:
            Moved: It was changed meanwhile.
            SessionCorruptError: It is damaged.
        """
        if found.damage is not None:
            raise found.damage
        manifest = found.state
        if not isinstance(manifest, Manifest):
            return None
        path = self._bucket.path(session_key(session_id))
        header = _told(codec.decode_head, manifest.head, session_id, path)
        steps = await self.parts(session_id, manifest.parts)
        records = merge([*steps, manifest.records])
        return Stored(header, codec.Origin(manifest.revision, manifest.head, records))

    async def parts(self, session_id: str, parts: list[Part]) -> list[list[StoredRecord]]:
        """Return the records of each part.

        Raises:
            Moved: One is gone.
            SessionCorruptError: One is damaged.
        """
        texts = await for_each(parts, lambda part: self._texts(session_id, part))
        steps: list[list[StoredRecord]] = []
        await pace.begin()
        try:
            for part, lines in zip(parts, texts, strict=True):
                step: list[StoredRecord] = []
                path = self._bucket.path(part_key(session_id, part.token))
                for text in lines:
                    step.append(checked_record(text, session_id, path))
                    await pace.step()
                steps.append(step)
        finally:
            pace.end()
        return steps

    async def require_parts(self, session_id: str, parts: list[Part]) -> None:
        """Make sure that no part is missing, or cut, without reading any.

        Raises:
            Moved: One is gone.
            SessionCorruptError: One has not the size that it should have.
        """
        if not parts:
            return
        listed = await self._bucket.list_all(part_folder(session_id))
        sizes = {each.key: each.size for each in listed}
        for part in parts:
            key = part_key(session_id, part.token)
            if key not in sizes:
                raise Moved
            if sizes[key] != part.size:
                raise damaged(
                    "it is not the part that the session names", session_id, self._bucket.path(key)
                )

    async def _texts(self, session_id: str, part: Part) -> list[bytes]:
        key = part_key(session_id, part.token)
        got = await self._bucket.get(key)
        if got is None:
            raise Moved
        return decode_part(got.data, part, session_id, self._bucket.path(key))

    async def card(self, session_id: str) -> Card | None:
        """Return what a listing needs of a session; None if it is gone."""
        key = session_key(session_id)
        got = await self._bucket.get(key, first=_FRONT)
        try:
            front = self._front(session_id, got)
            if front is None and got is not None and len(got.data) < got.size:
                got = await self._bucket.get(key)
                front = self._front(session_id, got)
        except SessionCorruptError as error:
            return Card(session_id, got.modified if got else 0, None, error)
        return None if front is None or got is None else Card(session_id, got.modified, front)

    def _front(self, session_id: str, got: Got | None) -> Front | None:
        if got is None or decode_tombstone(got.data) is not None:
            return None
        path = self._bucket.path(session_key(session_id))
        front = decode_front(got.data, got.size, session_id, path)
        if front is not None:
            _require_id(_told(codec.decode_card, front.head, session_id, path), session_id, path)
        return front


def _told(read: Callable[[bytes], T], head: bytes, session_id: str, path: str) -> T:
    try:
        return read(head)
    except SessionCorruptError as error:
        raise damaged(error.reason, session_id, path) from error


def _require_id(found: codec.Card | codec.Header, session_id: str, path: str) -> None:
    if found.session_id != session_id:
        raise damaged(f"it holds session {found.session_id!r}", session_id, path)
