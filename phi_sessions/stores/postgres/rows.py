"""Between rows and texts: what a session is in the tables, and what rows must say to be one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

from ... import codec
from ...codec import Card, Header, Origin, StoredRecord
from ...errors import SessionCorruptError
from ...info import SessionInfo, card
from ...model import Revision
from ...timestamp import Timestamp
from ..base import Stored
from ..pace import pace
from .driver import Row

__all__ = [
    "as_bytes",
    "as_columns",
    "as_info",
    "as_list",
    "as_revision",
    "as_stored",
    "check_head",
]


def as_bytes(text: str) -> bytes:
    """Return any string, lone surrogates and NUL included, as it is kept and asked for."""
    return text.encode("utf-8", "surrogatepass")


def as_revision(name: bytes | None) -> Revision | None:
    """Return a stored revision."""
    return None if name is None else Revision(name.decode("utf-8", "surrogatepass"))


def as_list(parts: Sequence[bytes]) -> tuple[bytes, list[int]]:
    """Return a list as the statements take it: its parts in a row, and their lengths."""
    return b"".join(parts), [len(part) for part in parts]


def as_columns(records: Sequence[StoredRecord]) -> tuple[object, ...]:
    """Return records as the statements take them: their ids, their texts, and hashes of the ids."""
    ids = [as_bytes(record.loop_id) for record in records]
    texts = [record.text for record in records]
    return (*as_list(ids), *as_list(texts), [_hash(loop_id) for loop_id in ids])


def _hash(loop_id: bytes) -> int:
    # An index takes no key of any length; whoever asks by it compares the id as well.
    return int.from_bytes(blake2b(loop_id, digest_size=4).digest())


async def as_stored(session_id: str, rows: Iterable[Row], place: str) -> Stored | None:
    """Return the session that the rows of `Statements.read` make, None without a head.

    Checks every text, leaving the loop its turns.

    Raises:
        SessionCorruptError: They make none.
    """
    head: Row | None = None
    found: list[tuple[int, StoredRecord]] = []
    position: int | None = None
    await pace.begin()
    try:
        for row in rows:
            position, text = row[1], row[3]
            if position is None:
                head = row
                continue
            if found:
                await pace.step()
            loop_id = codec.check_record(text)
            if as_bytes(loop_id) != row[2]:
                raise _Damage(f"it holds loop record {loop_id!r}")
            found.append((position, StoredRecord(loop_id, text)))
        if head is None:
            return None
        position, text = None, head[3]
        header = codec.decode_head(text)
        _check_names(header, session_id, head[4])
        size = len(text) + sum(len(record.text) for _, record in found)
        _check_sums(head[5], head[6], size, len(found))
    except (SessionCorruptError, _Damage) as error:
        raise _corrupt(error, session_id, place, position) from error
    finally:
        pace.end()
    found.sort()
    records = [record for _, record in found]
    return Stored(header, Origin(Revision(head[2].decode()), text, records))


async def as_info(row: Row, place: str) -> SessionInfo:
    """Return the card that a row makes, leaving the loop its turns.

    Raises:
        SessionCorruptError: It makes none.
    """
    await pace.begin()
    session_id = row[0].decode()
    try:
        head = codec.decode_card(row[2])
        _check_names(head, session_id, row[5])
        saved_at = Timestamp.from_nanoseconds(row[3])
        return card(head, Revision(row[1].decode()), saved_at, row[4])
    except (SessionCorruptError, _Damage) as error:
        raise _corrupt(error, session_id, place) from error
    finally:
        pace.end()


async def check_head(row: Row, session_id: str, place: str) -> None:
    """Make sure that a row of `Statements.head` is the session's, leaving the loop its turns.

    Raises:
        SessionCorruptError: It is not, or records were lost, added or cut.
    """
    await pace.begin()
    try:
        _check_names(codec.decode_head(row[1]), session_id)
        _check_sums(*row[2:])
    except (SessionCorruptError, _Damage) as error:
        raise _corrupt(error, session_id, place) from error
    finally:
        pace.end()


def _check_sums(size: int, number: int, found_size: int, found: int) -> None:
    if (size, number) != (found_size, found):
        raise _Damage(
            f"{found} loop records and {found_size:,} bytes, where there should be"
            f" {number} and {size:,}"
        )


def _check_names(header: Header | Card, session_id: str, agent_id: bytes | None = None) -> None:
    if header.session_id != session_id:
        raise _Damage(f"it holds session {header.session_id!r}")
    if agent_id is not None and as_bytes(header.agent_id) != agent_id:
        raise _Damage(f"it holds a session of agent {header.agent_id!r}")


class _Damage(Exception):
    """Says what is wrong with a row."""


def _corrupt(
    error: SessionCorruptError | _Damage, session_id: str, place: str, position: int | None = None
) -> SessionCorruptError:
    where = f"{place}, {session_id!r}" + ("" if position is None else f", record {position}")
    reason = error.reason if isinstance(error, SessionCorruptError) else str(error)
    return SessionCorruptError(
        f"session {session_id!r} is damaged ({where}): {reason}",
        session_id=session_id,
        path=where,
        reason=reason,
    )
