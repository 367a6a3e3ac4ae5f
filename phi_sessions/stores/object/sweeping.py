"""Removing what nobody needs: leftovers of writers that died, and old tombstones."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING

from ..finishing import to_its_end
from .bucket import Bucket, Refused
from .client import Got
from .crowd import for_each
from .layout import (
    AGENTS,
    PARTS,
    SESSIONS,
    marker_of,
    new_token,
    part_key,
    part_of,
    session_of,
)
from .manifest import TOMBSTONE_SIZE, Fate, Tombstone, decode_tombstone, encode_tombstone
from .reading import Card, Reader
from .writing import FRESH, LEAVING

if TYPE_CHECKING:
    from obstore import UpdateVersion

__all__ = ["sweep"]


async def sweep(bucket: Bucket, reader: Reader, older_than: float) -> list[str]:
    """Remove what is older than so many seconds and of no use; return its keys.

    Parts and entries of indexes are named by one manifest or by none, for ever: once it is known
    which, they can be removed without a condition. A tombstone stands where a session may be made
    again at any moment, and no object store that obstore knows removes on condition. So it is
    first marked as leaving, on condition; whoever meets that mark waits until it is gone.
    """
    border = await bucket.now() - older_than
    suspects: dict[str, list[str]] = defaultdict(list)
    for folder, owner_of in ((PARTS, part_of), (AGENTS, marker_of)):
        for each in await bucket.list_all(folder):
            owner = owner_of(each.key)
            if owner is not None and each.modified <= border:
                suspects[owner.session_id].append(each.key)
    # The manifests are read after the listing: what is in use by now is seen, and what is not and
    # is old will never be.
    cards = dict(zip(suspects, await for_each(suspects, reader.card), strict=True))
    garbage = [
        key for owner, card in cards.items() for key in suspects[owner] if not _uses(card, key)
    ]
    await bucket.delete(garbage)
    if bucket.sends_once:
        old = [
            each.key
            for each in await bucket.list_all(SESSIONS)
            if each.size == TOMBSTONE_SIZE
            and each.modified <= border
            and session_of(each.key) is not None
        ]
        gone = await for_each(old, lambda key: _remove_tombstone(bucket, key, border))
        garbage += [key for key, is_gone in zip(old, gone, strict=True) if is_gone]
    return garbage


def _uses(card: Card | None, key: str) -> bool:
    """Whether the session may need the object; a damaged one may need any."""
    if card is None:
        return False
    if card.front is None:
        return True
    parts = (part_key(card.session_id, part.token) for part in card.front.parts)
    return key == card.front.marker or key in parts


async def _remove_tombstone(bucket: Bucket, key: str, border: float) -> bool:
    got = await bucket.get(key)
    found = decode_tombstone(got.data) if got is not None else None
    if got is None or found is None or got.modified > border:
        return False
    if found.is_leaving and await bucket.now() - got.modified <= LEAVING:
        return False  # somebody else is about it
    leaving = Tombstone(new_token(), found.past, is_leaving=True)
    return await to_its_end(_take_away(bucket, key, leaving, got.version))


async def _take_away(bucket: Bucket, key: str, leaving: Tombstone, version: UpdateVersion) -> bool:
    begun = time.time()
    marked = await _replace(bucket, key, leaving, version)
    if marked is None:
        return False
    if 0 <= time.time() - begun < FRESH and await bucket.delete_once(key):
        return True
    await _replace(bucket, key, leaving._replace(token=new_token(), is_leaving=False), marked)
    return False


async def _replace(
    bucket: Bucket, key: str, tombstone: Tombstone, version: UpdateVersion
) -> UpdateVersion | None:
    data = encode_tombstone(tombstone)

    def fate(got: Got | None) -> Fate:
        return Fate.STANDS if got is not None and got.data == data else Fate.NOT_MADE

    try:
        return await bucket.put_if(key, data, version, fate)
    except Refused:
        return None
