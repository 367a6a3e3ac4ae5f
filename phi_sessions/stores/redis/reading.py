"""From what the server answers to sessions and cards, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ... import codec
from ...codec import Origin, StoredRecord
from ...errors import SessionCorruptError
from ...info import SessionInfo, card
from ...model import Revision
from ...timestamp import Timestamp
from ..base import Stored
from ..pace import pace
from .layout import Place

__all__ = ["card_of", "damaged", "stored_of"]


class _Fields(NamedTuple):
    """What the server keeps of a session."""

    revision: bytes
    saved: bytes
    size: bytes
    number: bytes
    head: bytes
    records: Sequence[bytes] = ()


async def stored_of(session_id: str, place: Place, answer: list[Any]) -> Stored:
    """Return the session that the server answered with.

    Raises:
        SessionCorruptError: It is damaged.
    """
    fields = _sound(session_id, place, answer)
    records: list[StoredRecord] = []
    try:
        header = codec.decode_head(fields.head)
        await pace.begin()
        try:
            for text in fields.records:
                records.append(StoredRecord(codec.check_record(text), text))
                await pace.step()
        finally:
            pace.end()
    except SessionCorruptError as error:
        raise damaged(session_id, place, error.reason) from error
    size = len(fields.head) + sum(map(len, fields.records))
    if fields.number != b"%d" % len(records) or fields.size != b"%d" % size:
        raise damaged(session_id, place, "loop records are missing, or were changed")
    _require_id(session_id, place, header.session_id)
    return Stored(header, Origin(Revision(fields.revision.decode()), fields.head, records))


def card_of(session_id: str, place: Place, answer: list[Any]) -> SessionInfo:
    """Return the card of the session that the server answered with.

    Raises:
        SessionCorruptError: It is damaged.
    """
    fields = _sound(session_id, place, answer)
    try:
        head = codec.decode_card(fields.head)
        saved_at = Timestamp.from_nanoseconds(int(fields.saved) * 1000)
        size = int(fields.size)
    except SessionCorruptError as error:
        raise damaged(session_id, place, error.reason) from error
    except ValueError as error:
        raise damaged(session_id, place, str(error)) from error
    _require_id(session_id, place, head.session_id)
    return card(head, Revision(fields.revision.decode()), saved_at, size)


def _sound(session_id: str, place: Place, answer: list[Any]) -> _Fields:
    if not answer[0]:  # the script found out what is wrong
        raise damaged(session_id, place, answer[1].decode(errors="replace"))
    if None in answer:
        raise damaged(session_id, place, "fields are missing")
    return _Fields(*answer)


def _require_id(session_id: str, place: Place, found: str) -> None:
    if found != session_id:
        raise damaged(session_id, place, f"it is the session {found!r}")


def damaged(session_id: str, place: Place, reason: str) -> SessionCorruptError:
    """Return the error that says that what is stored is damaged."""
    path = place.session.decode()
    return SessionCorruptError(
        f"{path} is damaged: {reason}", session_id=session_id, path=path, reason=reason
    )
