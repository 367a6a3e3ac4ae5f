"""The depth of a text is told right, however it is spelt, and without recursion."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import scaled
from hypothesis import given, settings
from hypothesis import strategies as st

from phi_sessions import FileSystemSessionStore, Session, SessionCorruptError, load_session
from phi_sessions.depth import exceeds_depth

LARGE = b'"' + b"filling " * 4096 + b'",'
"""Put into an array, it makes a text that is too large for the quick way."""


def depth_of(text: bytes) -> int:
    """The reference: the deepest level, read byte by byte, strings skipped."""
    deepest = depth = 0
    in_string = escaped = False
    for byte in text.decode():
        if in_string:
            if escaped:
                escaped = False
            elif byte == "\\":
                escaped = True
            elif byte == '"':
                in_string = False
        elif byte == '"':
            in_string = True
        elif byte in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in "]}":
            depth -= 1
    return deepest


def assert_told(text: bytes) -> None:
    depth = depth_of(text)
    for limit in {0, 1, depth - 2, depth - 1, depth, depth + 1, 127} - {-1, -2}:
        assert exceeds_depth(text, limit) == (depth > limit), (text[:200], depth, limit)


@pytest.mark.parametrize(
    "text",
    [
        b"1",
        b'""',
        b"[]",
        b"{}",
        b"[[],[[]],[]]",
        b'{"a":{"b":[{"c":[]}]}}',
        b'"[[[["',
        b'["[[[[","]]]]",[]]',
        rb'["\"[[[\"",[]]',
        rb'["\\",[[]],"\\\\","\\\"[[",[]]',
        rb'["\\\\\\",[],"\\"]',
        rb'{"\"{\"":"}{","\\":[]}',
        rb'["\u005b\u005c\u0022",[[]]]',
        b'[ "" , "" , [ "" ] , "[" , "" ]',
        b'["","[","","]",""]',
        '["é[","漢{","🜁\u2028]",[["}"]]]'.encode(),
        b"[" * 127 + b"]" * 127,
        b"[" * 128 + b"]" * 128,
        b'{"a":' * 130 + b"1" + b"}" * 130,
        b"[" + b"[]," * 500 + b"[[]]]",
    ],
)
@pytest.mark.parametrize("large", [False, True])
def test_known_texts(text: bytes, large: bool) -> None:
    assert_told(b"[" + LARGE + text + b"]" if large else text)


PIECES = ["[", "]", "{", "}", '"', "\\", '\\"', "\\\\", '""', "[]", "a", "é", "🜁", ":", ",", "\n"]
texts = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(texts, children, max_size=4),
    max_leaves=30,
)


@settings(max_examples=scaled(300), deadline=None)
@given(json_values, st.booleans(), st.sampled_from([None, 0, 2]), st.booleans())
def test_any_json(value: object, ascii_only: bool, indent: int | None, large: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert_told(b"[" + LARGE + text + b"]" if large else text)


def test_any_json_of_brackets_quotes_and_escapes_in_great_number() -> None:
    rng = random.Random(11)

    def make(depth: int) -> object:
        kind = rng.randrange(4) if depth else 3
        if kind == 0:
            return [make(depth - 1) for _ in range(rng.randrange(4))]
        if kind == 1:
            return {"".join(rng.choices(PIECES, k=3)): make(depth - 1) for _ in range(3)}
        return "".join(rng.choices(PIECES, k=rng.randrange(12)))

    for _ in range(scaled(400)):
        value = [make(rng.randrange(8)) for _ in range(rng.randrange(12))]
        text = json.dumps(value, ensure_ascii=False).encode()
        assert_told(text)
        assert_told(b"[" + LARGE + text + b"]")


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":['])
def test_brackets_left_open_count_only_when_there_are_too_many(opening: bytes, large: bool) -> None:
    """A file that was cut off is not called too deep."""
    filling = b"1," * 20_000 if large else b"1,"
    assert not exceeds_depth(opening * 3 + filling, 127)
    assert not exceeds_depth(opening * 3 + b'"' + filling, 127)
    assert exceeds_depth(opening * 128 + filling, 127)


def test_a_hundred_thousand_levels_are_too_deep() -> None:
    for text in (b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000):
        assert exceeds_depth(text, 127)


def in_a_small_thread(work: Callable[[], object]) -> list[object]:
    """Run `work` in a thread with a stack of 64 KiB and return what it returned or raised."""
    results: list[object] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    before = threading.stack_size(64 * 1024)
    try:
        thread = threading.Thread(target=run)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join(60)
    assert not thread.is_alive()
    return results


def test_a_small_stack_is_enough_to_tell_a_hundred_thousand_levels() -> None:
    text = b'{"loops":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert in_a_small_thread(lambda: exceeds_depth(text, 127)) == [True]


@pytest.mark.parametrize("bottom", [b"", b"]" * 100_000 + b"}"])
def test_a_small_stack_is_enough_to_refuse_a_file_of_a_hundred_thousand_levels(
    tmp_path: Path, bottom: bytes
) -> None:
    (tmp_path / "s.json").write_bytes(b'{"session_id":"s","loops":' + b"[" * 100_000 + bottom)
    (error,) = in_a_small_thread(lambda: load_session("s", tmp_path))
    assert isinstance(error, SessionCorruptError), error


@pytest.mark.parametrize("place", ["metadata", "loops", "unknown"])
async def test_a_file_of_a_hundred_thousand_levels_is_damaged_wherever_they_are(
    place: str, file_store: FileSystemSessionStore
) -> None:
    await file_store.save(Session("s", "a"))
    await file_store.save(Session("sound", "a"))
    path = file_store.dir / "s.json"
    deep = b"[" * 100_000 + b"]" * 100_000
    data = path.read_bytes().replace(b'"loops":[', b'"loops":[%s' % deep)
    if place != "loops":
        data = path.read_bytes().replace(
            b',"revision"', b',"%s":%s,"revision"' % (place.encode(), deep)
        )
    path.write_bytes(data)
    with pytest.raises(SessionCorruptError, match="deep"):
        await file_store.load("s")
    assert path.read_bytes() == data
    assert (await file_store.load("sound")).session_id == "sound"
