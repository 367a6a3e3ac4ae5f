"""Where two sessions differ, told by their texts."""

from __future__ import annotations

import msgspec

from .. import codec
from ..codec import Origin, Parcel
from ..model import Revision

__all__ = ["first_difference"]


def first_difference(mine: Parcel, theirs: Parcel) -> str:
    """Return where two sessions differ first, or an empty string."""
    if mine.head != theirs.head and _sorted(mine.head) != _sorted(theirs.head):
        return "its header"
    if len(mine.records) != len(theirs.records):
        return f"it has {len(theirs.records)} loop records, not {len(mine.records)}"
    for place, (ours, other) in enumerate(zip(mine.records, theirs.records, strict=True)):
        if ours != other and _value(mine, place) != _value(theirs, place):
            return f"loop record {ours.loop_id!r}"
    return ""


def _value(parcel: Parcel, place: int) -> bytes:
    """Return what a record says, whoever wrote it, and with which spaces or order of keys."""
    origin = Origin(Revision(""), parcel.head, parcel.records[place : place + 1])
    record = codec.decode(codec.decode_head(parcel.head), origin).loops[0]
    return _sorted(codec.encode_loops([record], parcel.session_id)[0].text)


def _sorted(text: bytes) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(text), order="sorted")
