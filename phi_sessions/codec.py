"""Between a session and the texts that stores keep: loss-free, checked both ways.

A store never sees a loop record. To it a session is a *parcel*: a head (the header, one JSON
object) and *records* (one JSON object each, named by `loop_id`). All texts are compact JSON in
UTF-8 without a line break. A record that nobody looked at keeps its text to the byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeVar, cast

import msgspec

from .depth import exceeds_depth
from .errors import SessionCorruptError, SessionEncodeError
from .formation import SessionFormation, SpawnRef
from .loops import Entry, Loops
from .model import LoopRecord, Revision, Session, SessionScope
from .record import EXTRA, JSONObject, Record, always, dec_hook, enc_hook
from .shape import shape_of
from .timestamp import Timestamp
from .unknown import gather, scatter

__all__ = [
    "MAX_DEPTH",
    "Card",
    "Header",
    "Origin",
    "Parcel",
    "StoredRecord",
    "changes",
    "check_record",
    "decode",
    "decode_card",
    "decode_head",
    "encode_head",
    "encode_loops",
    "encode_records",
    "origin_of",
    "put_records",
    "repeats_a_key",
]

MAX_DEPTH: Final = 127
"""Nested levels in a whole document, as many as phi-core's reader takes."""

_RECORD_DEPTH: Final = MAX_DEPTH - 2
_TOP_LEVEL: Final = frozenset(("loops", "revision", "supersedes"))
"""What a store writes behind the head."""

_MARK: Final = f'"{EXTRA}"'.encode()
_ESCAPED_MARK: Final = re.compile(
    b'"' + b"".join(b"(?:%c|\\\\u00(?i:%02x))" % (char, char) for char in EXTRA.encode()) + b'"'
)
# In MessagePack a float is 0xCB and eight bytes; those of NaN and the infinities begin so.
_NOT_FINITE: Final = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")


class StoredRecord(NamedTuple):
    """A loop record as a store keeps it."""

    loop_id: str
    text: bytes


class Origin(NamedTuple):
    """The stored state that a session object came from, so that what changed can be told."""

    revision: Revision
    head: bytes
    records: list[StoredRecord]


class Parcel(NamedTuple):
    """A session as a store keeps it."""

    session_id: str
    agent_id: str
    head: bytes
    records: list[StoredRecord]
    origin: Origin | None = None


def changes(parcel: Parcel) -> tuple[bytes | None, list[StoredRecord]] | None:
    """Return the head, if it changed, and the changed and added records since the origin.

    None if that does not say it all: there is no origin, or records were removed or moved.
    """
    origin = parcel.origin
    if origin is None or len(parcel.records) < len(origin.records):
        return None
    changed: list[StoredRecord] = []
    for old, new in zip(origin.records, parcel.records, strict=False):
        if old.loop_id != new.loop_id:
            return None
        if old.text != new.text:
            changed.append(new)
    added = parcel.records[len(origin.records) :]
    ids = {record.loop_id for record in parcel.records}
    if len(ids) != len(parcel.records):
        return None  # a tail could not say which of two is meant
    head = None if parcel.head == origin.head else parcel.head
    return head, changed + added


class Header(Record):
    """The header fields of a session, in the order in which they are written."""

    session_id: str
    agent_id: str
    created_at: Timestamp
    last_active_at: Timestamp
    formation: SessionFormation
    parent_spawn_ref: SpawnRef | None = always(None)
    scope: SessionScope = always(SessionScope.EPHEMERAL)
    metadata: JSONObject | None = None


class Card(msgspec.Struct):
    """What a listing shows of a header; the rest of it is passed over."""

    session_id: str
    agent_id: str
    created_at: Timestamp
    last_active_at: Timestamp
    metadata: JSONObject | None = None


_json: Final = msgspec.json.Encoder(enc_hook=enc_hook)
_msgpack: Final = msgspec.msgpack.Encoder(enc_hook=enc_hook)
_read_header_shape: Final = msgspec.json.Decoder(shape_of(Header)).decode
_read_record_shape: Final = msgspec.json.Decoder(shape_of(LoopRecord)).decode
_read_record: Final = msgspec.json.Decoder(LoopRecord, dec_hook=dec_hook).decode
_read_header: Final = msgspec.json.Decoder(Header, dec_hook=dec_hook).decode
_read_card: Final = msgspec.json.Decoder(Card, dec_hook=dec_hook).decode
_read_raw_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

R = TypeVar("R", bound=Record)


# Encoding ----------------------------------------------------------------------------------------


def encode_head(session: Session) -> bytes:
    """Return the header of `session` as JSON.

    Raises:
        SessionEncodeError: It could not be read again.
    """
    header = Header(
        session_id=session.session_id,
        agent_id=session.agent_id,
        created_at=session.created_at,
        last_active_at=session.last_active_at,
        formation=session.formation,
        parent_spawn_ref=session.parent_spawn_ref,
        scope=session.scope,
        metadata=None if session.metadata == {} else session.metadata,
        extra=session.extra,
    )
    where = f"session {session.session_id!r}"
    if not isinstance(session.agent_id, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise _refused(where, "its agent_id is not a string", session.session_id)
    if isinstance(session.extra, dict) and not _TOP_LEVEL.isdisjoint(session.extra):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise _refused(where, "`extra` holds `loops` or `revision`", session.session_id)
    text = _encode(header, where, session.session_id)
    if exceeds_depth(text, MAX_DEPTH):
        raise _refused(where, f"nested deeper than {MAX_DEPTH} levels", session.session_id)
    try:
        _check(text, Header, _read_header_shape, _read_header)
    except msgspec.MsgspecError as error:
        raise _refused(where, str(error), session.session_id) from error
    return text


def origin_of(session: Session) -> Origin | None:
    """Return the stored state that `session` came from, if that is known still."""
    origin = session.loops.origin
    return origin if isinstance(origin, Origin) and origin.revision == session.revision else None


def put_records(records: list[StoredRecord], news: Iterable[StoredRecord]) -> list[StoredRecord]:
    """Return `records` with `news` at the end, or in the place of those with their `loop_id`."""
    news = list(news)
    names = {record.loop_id for record in news}
    if len(names) == len(news) and names.isdisjoint(map(itemgetter(0), records)):  # as most often
        return [*records, *news]
    result = list(records)
    places = {record.loop_id: place for place, record in enumerate(records)}
    for record in news:
        place = places.setdefault(record.loop_id, len(result))
        result[place : place + 1] = [record]
    return result


def encode_loops(loops: Iterable[LoopRecord], session_id: str) -> list[StoredRecord]:
    """Return `loops` as records, of several with one `loop_id` the last.

    Raises:
        SessionEncodeError: A record could not be read again.
    """
    return put_records([], [_encode_entry(Entry(record), session_id) for record in loops])


def encode_records(session: Session) -> Iterator[StoredRecord]:
    """Yield the records of `session`, one encoding step each.

    Which records there are is settled by the first step.

    Raises:
        SessionEncodeError: A record could not be read again.
    """
    for entry in list(session.loops.entries):
        yield _encode_entry(entry, session.session_id)


def _encode_entry(entry: Entry[LoopRecord], session_id: str) -> StoredRecord:
    record = entry.record
    if record is None and entry.text is not None:
        return StoredRecord(entry.loop_id, entry.text)
    if not isinstance(record, LoopRecord):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise _refused("loops", f"holds a {type(record).__name__}, not a LoopRecord", session_id)
    where = f"loop record {record.loop_id!r}"
    text = _encode(record, where, session_id)
    if entry.text is not None and text == entry.text:
        text = entry.text  # the same object: what did not change is told by that
    else:
        if exceeds_depth(text, _RECORD_DEPTH):
            raise _refused(
                where, f"makes the session nested deeper than {MAX_DEPTH} levels", session_id
            )
        try:
            _check(text, LoopRecord, _read_record_shape, _read_record)
        except msgspec.MsgspecError as error:
            raise _refused(where, str(error), session_id) from error
        entry.text = text
    return StoredRecord(record.loop_id, text)


def _encode(record: Record, where: str, session_id: str) -> bytes:
    try:
        text = _json.encode(record)
        # JSON writes NaN as null and takes integers of any size; MessagePack tells both.
        packed = _msgpack.encode(record)
        if b"\xcb" in packed and _NOT_FINITE.search(packed) and _holds_not_finite(record):
            raise ValueError("NaN and infinities are not JSON")
        if b"\n" in text:  # of a msgspec.Raw; files are cut into records by line breaks
            text = msgspec.json.format(text, indent=-1)
        if _is_marked(text):
            plain = msgspec.to_builtins(record, enc_hook=enc_hook)
            return _json.encode(scatter(type(record), plain))
        return text
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RuntimeError) as error:
        raise _refused(where, str(error), session_id) from error


def _is_marked(text: bytes) -> bool:
    return b"~" in text and _MARK in text  # one byte is looked for many times faster


def _holds_not_finite(record: Record) -> bool:
    # The byte pattern also occurs inside large integers, so it is looked at value by value.
    todo: list[Any] = [msgspec.to_builtins(record, enc_hook=enc_hook)]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            todo.extend(cast("JSONObject", value).values())
        elif isinstance(value, list | tuple):
            todo.extend(cast("list[object]", value))
        elif isinstance(value, float) and value - value != 0.0:
            return True
    return False


def _refused(where: str, reason: str, session_id: str) -> SessionEncodeError:
    return SessionEncodeError(f"{where} cannot be stored: {reason}", session_id=session_id)


# Decoding ----------------------------------------------------------------------------------------


def decode_head(text: bytes) -> Header:
    """Read a head.

    Raises:
        SessionCorruptError: It is not a session's header.
    """
    try:
        text.decode()
        if exceeds_depth(text, MAX_DEPTH):
            raise msgspec.DecodeError(f"nested deeper than {MAX_DEPTH} levels")
        if repeats_a_key(text):
            raise msgspec.DecodeError("a key of the header occurs twice")
        header = _read(text, Header, _read_header)
        if not _TOP_LEVEL.isdisjoint(header.extra):
            raise msgspec.DecodeError("`loops` or `revision` occurs twice")
        return header
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SessionCorruptError(f"damaged header: {error}", reason=str(error)) from error


def decode_card(text: bytes) -> Card:
    """Read what a listing shows of a head.

    Raises:
        SessionCorruptError: It is not a session's header.
    """
    try:
        if exceeds_depth(text, MAX_DEPTH):
            raise msgspec.DecodeError(f"nested deeper than {MAX_DEPTH} levels")
        return _read_card(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SessionCorruptError(f"damaged header: {error}", reason=str(error)) from error


def check_record(text: bytes) -> str:
    """Return the `loop_id` of a record's text after making sure that it can be decoded.

    Raises:
        SessionCorruptError: It is not a loop record.
    """
    try:
        text.decode()
        if exceeds_depth(text, _RECORD_DEPTH):
            raise msgspec.DecodeError(f"nested deeper than {MAX_DEPTH} levels")
        return _check(text, LoopRecord, _read_record_shape, _read_record).loop_id
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SessionCorruptError(f"damaged loop record: {error}", reason=str(error)) from error


def decode(header: Header, origin: Origin) -> Session:
    """Return a session of checked texts; its records are decoded when they are looked at."""
    loops = Loops[LoopRecord].of_entries(
        Entry(text=text, loop_id=loop_id, decode=_decode_record) for loop_id, text in origin.records
    )
    loops.origin = origin
    return Session(
        session_id=header.session_id,
        agent_id=header.agent_id,
        created_at=header.created_at,
        last_active_at=header.last_active_at,
        formation=header.formation,
        parent_spawn_ref=header.parent_spawn_ref,
        scope=header.scope,
        metadata=header.metadata or {},
        loops=loops,
        revision=origin.revision,
        extra=header.extra,
    )


def _decode_record(text: bytes) -> LoopRecord:
    try:
        return _read(text, LoopRecord, _read_record)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SessionCorruptError(f"damaged loop record: {error}", reason=str(error)) from error


def _check(
    text: bytes, kind: type[R], read_shape: Callable[[bytes], Any], read: Callable[[bytes], R]
) -> R:
    """Make sure that `text` can be read; only the fields of plain types can be relied on."""
    try:
        return cast("R", read_shape(text))
    except msgspec.ValidationError:
        # The shape knows the usual forms only (no leap second, no later version's variants).
        return _read(text, kind, read)


def _read(text: bytes, kind: type[R], read: Callable[[bytes], R]) -> R:
    if not _is_marked(text) and not (b"\\u00" in text and _ESCAPED_MARK.search(text)):
        try:
            return read(text)
        except msgspec.ValidationError:
            pass  # most likely a key that this version does not know
    return msgspec.convert(gather(kind, msgspec.json.decode(text)), kind, dec_hook=dec_hook)


def repeats_a_key(text: bytes) -> bool:
    """Whether a compact JSON object names a key twice at its top level."""
    values = _read_raw_object(text)
    # Two quotes, a colon and a comma or brace go with each pair, one brace opens.
    if sum(map(len, values)) + len(b"".join(values.values())) + 4 * len(values) + 1 == len(text):
        return False
    # Escaped or non-ASCII keys: count them the slow way. The top level is closed last.
    pairs: list[tuple[str, Any]] = []

    def keep(found: list[tuple[str, Any]]) -> None:
        pairs[:] = found

    json.loads(text, object_pairs_hook=keep, parse_int=str)
    return len({key for key, _ in pairs}) != len(pairs)
