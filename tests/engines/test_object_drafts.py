"""The next state of a session, and what its history tells: without any server."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi_sessions import SessionCorruptError, codec
from phi_sessions.codec import StoredRecord
from phi_sessions.stores.object.drafts import (
    FAN,
    INLINE,
    Draft,
    draft_append,
    draft_removal,
    fold_from,
    level_of,
)
from phi_sessions.stores.object.layout import (
    agent_folder,
    lease_key,
    marker_key,
    marker_of,
    part_key,
    part_of,
    session_key,
    session_of,
)
from phi_sessions.stores.object.manifest import (
    TOMBSTONE_SIZE,
    Fate,
    Manifest,
    Part,
    Tombstone,
    decode_front,
    decode_manifest,
    decode_part,
    decode_tombstone,
    encode_manifest,
    encode_tombstone,
    fate,
    merge,
)

HEAD = (
    b'{"session_id":"s","agent_id":"a","created_at":"2024-01-01T00:00:00Z",'
    b'"last_active_at":"2024-01-01T00:00:00Z","formation":{"type":"x"}}'
)


def a_record(loop_id: str, size: int) -> StoredRecord:
    return StoredRecord(loop_id, b"x" * size)


def a_manifest(**fields: Any) -> Manifest:
    manifest = Manifest("0" * 16, 1, marker_key("a", "s", "1" * 16), HEAD, [], [], [])  # type: ignore[arg-type]
    return manifest._replace(**fields)


class Objects:
    """Parts as they would stand in a bucket."""

    def __init__(self) -> None:
        self.kept: dict[str, list[StoredRecord]] = {}
        self.moved = 0

    async def read(self, parts: list[Part]) -> list[list[StoredRecord]]:
        return [self.kept[part.token] for part in parts]

    def take(self, draft: Draft) -> Manifest:
        state = draft.state
        assert isinstance(state, Manifest)
        for key, data in draft.new.items():
            [part] = [part for part in state.parts if key.endswith(part.token)]
            ids = data.split(b"\n")[1:-1]
            assert len(ids) == part.records
            self.kept[part.token] = [self._named(text) for text in ids]
            self.moved += len(data)
        for key in draft.old:
            del self.kept[key.rpartition("/")[2]]
        return state

    @staticmethod
    def _named(text: bytes) -> StoredRecord:
        return StoredRecord(text[: text.index(b":")].decode(), text)


def _append(objects: Objects, state: Manifest, records: list[StoredRecord]) -> Manifest:
    draft = asyncio.run(draft_append("s", records, state, objects.read))
    return objects.take(draft)


SIZES = st.sampled_from([1, 100, 3_000, INLINE // 3, INLINE, 3 * INLINE, 20 * INLINE])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), SIZES), max_size=80))
def test_any_appends_leave_few_parts_and_the_right_records(appends: list[tuple[int, int]]) -> None:
    objects, state = Objects(), a_manifest()
    expected: list[StoredRecord] = []
    for number, size in appends:
        record = StoredRecord(str(number), f"{number}:".encode() + b"x" * size)
        state = _append(objects, state, [record])
        expected = codec.put_records(expected, [record])
        levels = [part.level for part in state.parts]
        assert levels == sorted(levels, reverse=True)
        assert all(levels.count(level) < FAN for level in levels)
        assert {part.token for part in state.parts} == set(objects.kept)
        assert sum(len(each.text) + 1 for each in state.records) <= INLINE
    steps = asyncio.run(objects.read(state.parts))
    assert merge([*steps, state.records]) == expected


def test_an_append_costs_no_more_in_a_long_session() -> None:
    objects, state = Objects(), a_manifest()
    sent: list[int] = []
    for number in range(2_000):
        record = StoredRecord(str(number), f"{number}:".encode() + b"x" * 2_000)
        before = objects.moved
        state = _append(objects, state, [record])
        sent.append(objects.moved - before + len(encode_manifest(state)))
    assert len(encode_manifest(state)) <= INLINE + 5_000
    first, last = sum(sent[:500]), sum(sent[-500:])
    assert last < 2 * first
    assert len(state.parts) < 3 * FAN


def test_a_part_takes_in_all_lower_ones() -> None:
    parts = [Part("t", level, 1, 1) for level in (5, 3, 3, 1, 0, 0)]
    assert fold_from(parts, 0) == (6, 0)
    assert fold_from(parts, 1) == (4, 1)
    assert fold_from(parts, 4) == (1, 4)
    assert fold_from(parts, 6) == (0, 6)
    assert fold_from([*parts, *[parts[-1]] * 5], 0) == (4, 1)
    assert [level_of(size) for size in (1, 2 * INLINE, 2 * INLINE + 1, 16 * INLINE + 1)] == [
        0,
        0,
        1,
        2,
    ]


# Bytes -------------------------------------------------------------------------------------------


@given(st.integers(0, 900))
def test_a_manifest_is_never_taken_for_a_tombstone(padding: int) -> None:
    manifest = a_manifest(head=HEAD[:-1] + b',"metadata":"' + b"x" * padding + b'"}')
    data = encode_manifest(manifest)
    assert len(data) != TOMBSTONE_SIZE
    assert decode_manifest(data, "s", "p") == manifest
    assert decode_tombstone(data) is None
    front = decode_front(data, len(data), "s", "p")
    assert front is not None
    assert (front.head, front.marker, front.size) == (manifest.head, manifest.marker, len(data))


@pytest.mark.parametrize("length", [0, 1, 31, 32, 99])
def test_a_tombstone_has_one_size(length: int) -> None:
    past = [f"{n:016x}" for n in range(length)]
    for is_leaving in (False, True):
        data = encode_tombstone(Tombstone("f" * 16, past, is_leaving))
        assert len(data) == TOMBSTONE_SIZE
        found = decode_manifest(data, "s", "p")
        assert isinstance(found, Tombstone)
        assert (found.token, found.before, found.is_leaving) == ("f" * 16, past[:31], is_leaving)


@given(st.integers(0, 700), st.integers(0, 255))
def test_a_manifest_with_any_byte_changed_is_told_or_reads_as_one(place: int, byte: int) -> None:
    data = bytearray(encode_manifest(a_manifest()))
    data[place % len(data)] = byte
    with contextlib.suppress(SessionCorruptError):
        assert isinstance(decode_manifest(bytes(data), "s", "p"), Manifest)


def test_a_front_needs_no_more_than_its_bytes() -> None:
    data = encode_manifest(a_manifest())
    whole = decode_front(data, len(data), "s", "p")
    for length in range(len(data)):
        found = decode_front(data[:length], len(data), "s", "p")
        assert found in (None, whole)
    with pytest.raises(SessionCorruptError):
        decode_front(data[:-20], len(data) - 20, "s", "p")


def test_a_part_is_that_sessions_and_no_other() -> None:
    part = Part("t", 0, 1, 0)
    with pytest.raises(SessionCorruptError):
        decode_part(b'{"session_id":"other","records":1}\nx\n', part, "s", "p")


@given(st.text(min_size=1, max_size=20))
def test_a_key_tells_its_session(session_id: str) -> None:
    token = "0123456789abcdef"
    try:
        key = session_key(session_id)
    except ValueError:
        return
    assert session_of(key) == session_id
    assert part_of(part_key(session_id, token)) == (session_id, token)
    marker = marker_key("agent", session_id, token)
    assert marker.startswith(agent_folder("agent"))
    assert marker_of(marker) == (session_id, token)
    assert lease_key(session_id).partition("/")[2] == key.partition("/")[2]


# History -----------------------------------------------------------------------------------------


def _history(length: int) -> list[str]:
    return [f"{n:016x}" for n in range(length)]


def test_what_became_of_a_write_is_told_by_the_history() -> None:
    base, ours = "b" * 16, "f" * 16

    def after(*states: str) -> Manifest:
        past = list(reversed(states))
        return a_manifest(revision=past[0], before=past[1:])

    assert fate(after(base), ours, base) is Fate.NOT_MADE
    assert fate(after(base, ours), ours, base) is Fate.STANDS
    assert fate(after(base, ours, *_history(5)), ours, base) is Fate.REPLACED
    assert fate(after(base, *_history(5)), ours, base) is Fate.NOT_MADE
    assert fate(after(*_history(32)), ours, base) is Fate.UNKNOWN
    assert fate(None, ours, base) is Fate.UNKNOWN
    assert fate(None, ours, None) is Fate.NOT_MADE
    assert fate(after(ours), ours, None) is Fate.STANDS
    assert fate(after(*_history(3)), ours, None) is Fate.NOT_MADE
    assert fate(after(*_history(40)), ours, None) is Fate.UNKNOWN


def test_the_history_goes_through_a_deletion() -> None:
    manifest = a_manifest(revision="f" * 16, before=_history(3))
    draft = draft_removal("s", manifest)
    tombstone = decode_tombstone(draft.data)
    assert tombstone is not None
    assert tombstone.past == [tombstone.token, "f" * 16, *_history(3)]
    assert fate(tombstone, tombstone.token, "f" * 16) is Fate.STANDS
    assert fate(tombstone, "f" * 16, "0" * 16) is Fate.REPLACED
    assert fate(tombstone, "e" * 16, "f" * 16) is Fate.NOT_MADE
    assert draft.old == [manifest.marker]
