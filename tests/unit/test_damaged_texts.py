"""Damage of a session file is found when the session is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from codec_samples import assert_damaged, at, document, put_file, those_that_load

from phi_sessions import (
    FileSystemSessionStore,
    LoopRecord,
    Session,
    SessionCorruptError,
    Turn,
    TurnId,
)


def with_value(path: tuple[Any, ...], key: str, raw: str) -> str:
    """Return the document with the JSON text `raw` at a place."""
    value = document()
    at(value, path)[key] = "@@"
    return json.dumps(value).replace('"@@"', raw)


OPAQUE = [
    (("metadata",), "k"),
    (("loops", 0), "metadata"),
    (("loops", 0, "messages", 0), "k"),
    (("loops", 0, "events", 0, "event"), "k"),
    (("loops", 0, "turns", 0, "output_message"), "k"),
    (("loops", 0), "unknown"),
    ((), "unknown"),
]


TOO_LARGE = ["1e400", "-1e400", "[1e999]"]
NOT_JSON = ["NaN", "Infinity", "-Infinity", '"\\ud800"', "[1,]"]
NOT_JSON += [
    '"\\udc00x"',
    '"\\ud800\\u0041"',
    '"\\x"',
    '"a\tb"',
    "01",
    "1.",
    ".5",
    "+1",
    '{"a":1,}',
]
NOT_JSON += ["{a:1}", "'a'", "tru", "", "[", "]", '"', '{"a"}', "1 2", "undefined", '"\x00"', "0x1"]


@pytest.mark.parametrize(("path", "key"), OPAQUE)
async def test_what_is_not_json_is_found_when_a_session_is_loaded(
    path: tuple[Any, ...], key: str, file_store: FileSystemSessionStore
) -> None:
    files: dict[str, str | bytes] = {raw: with_value(path, key, raw) for raw in NOT_JSON}
    assert await those_that_load(file_store, files) == []
    assert await those_that_load(file_store, {"true": with_value(path, key, "true")}) == ["true"]


@pytest.mark.parametrize(("path", "key"), [place for place in OPAQUE if place[0][:1] == ("loops",)])
async def test_a_number_that_no_double_holds_is_found_when_its_record_is_looked_at(
    path: tuple[Any, ...], key: str, file_store: FileSystemSessionStore
) -> None:
    for raw in TOO_LARGE:
        written = put_file(file_store, with_value(path, key, raw))
        session = await file_store.load("s")
        with pytest.raises(SessionCorruptError):
            list(session.loops)
        await file_store.save(session)
        assert raw.encode() in written.read_bytes(), "what nobody could read was kept"


@pytest.mark.parametrize(
    ("path", "key"),
    [
        (("loops", 0, "usage"), "input"),
        (("loops", 0, "usage"), "cache_read"),
        (("loops", 0, "turns", 0, "usage"), "output"),
        (("loops", 0, "turns", 0, "turn_id"), "turnIndex"),
        (("loops", 0, "events", 0), "sequence"),
        (("loops", 0, "parallel_group"), "selected_config_index"),
        (("loops", 0, "compaction_block", "keep_first"), "endTurn"),
        (("loops", 0, "config"), "max_tokens"),
    ],
)
async def test_a_typed_integer_out_of_range_is_damage(
    path: tuple[Any, ...], key: str, file_store: FileSystemSessionStore
) -> None:
    wrong = ["-1", "1.0", "1e3", '"1"', "true", "[]", "1e400"]
    files: dict[str, str | bytes] = {raw: with_value(path, key, raw) for raw in wrong}
    assert await those_that_load(file_store, files) == []
    largest = str(2**32 - 1 if key in ("turnIndex", "endTurn", "max_tokens") else 2**64 - 1)
    assert await those_that_load(file_store, {"max": with_value(path, key, largest)}) == ["max"]


@pytest.mark.parametrize("raw", ["1", "0.5", "-2", "1e-3", "3.4028235e38", "0"])
async def test_a_temperature_may_be_any_single(
    raw: str, file_store: FileSystemSessionStore
) -> None:
    put_file(file_store, with_value(("loops", 0, "config"), "temperature", raw))
    config = (await file_store.load("s")).loops[0].config
    assert config is not None
    assert config.temperature == float(raw)


@pytest.mark.parametrize("number", ["18446744073709551616", "-9223372036854775809", "9" * 400])
async def test_an_opaque_integer_beyond_64_bits_is_kept_while_nobody_touches_it(
    number: str, file_store: FileSystemSessionStore
) -> None:
    file = put_file(file_store, with_value(("loops", 0), "metadata", number))
    session = await file_store.load("s")
    await file_store.save(session)
    assert f'"metadata":{number}'.encode() in file.read_bytes().replace(b": ", b":")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b"1",
        b'"s"',
        b"{}",
        b'{"session_id":"s"}',
        b"\x00" * 100,
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf" + json.dumps(document()).encode(),
        json.dumps(document()).encode("utf-16"),
        json.dumps(document()).encode() + b"x",
        json.dumps(document()).encode() * 2,
        json.dumps(document()).encode()[:-1],
        json.dumps(document()).encode().replace(b"trip", b"\xff"),
        json.dumps(document()).encode().replace(b"trip", b"\xed\xa0\x80"),
        json.dumps(document()).encode().replace(b'"s"', b'"other"', 1),
        json.dumps(document()).encode().replace(b'"loops": [', b'"loops": {"0":', 1),
    ],
)
async def test_a_damaged_file_is_named_and_left_alone(
    data: bytes, file_store: FileSystemSessionStore
) -> None:
    await assert_damaged(file_store, data)


@pytest.mark.parametrize(
    ("key", "twin"),
    [
        ("session_id", "session_id"),
        ("agent_id", "agent\\u005fid"),
        ("loops", "loops"),
        ("scope", "sc\\u006fpe"),
        ("created_at", "created_at"),
        ("metadata", "metadata"),
    ],
)
@pytest.mark.parametrize("own_layout", [False, True])
async def test_a_key_of_the_header_that_occurs_twice_is_damage(
    key: str, twin: str, own_layout: bool, file_store: FileSystemSessionStore
) -> None:
    if own_layout:
        put_file(file_store, json.dumps(document()))
        await file_store.save(await file_store.load("s"))
        text = (file_store.dir / "s.json").read_text()
        raw = json.dumps(document()[key], separators=(",", ":"))
        text = text.replace(',"revision"', f',"{twin}":{raw},"revision"', 1)
    else:
        text = f'{json.dumps(document())[:-1]},"{twin}":{json.dumps(document()[key])}}}'
    await assert_damaged(file_store, text)


@pytest.mark.parametrize("indent", [None, 2])
async def test_every_cut_of_a_file_is_damage(indent: int | None, tmp_path: Path) -> None:
    turn = Turn(TurnId("l", 0), {"role": "x", "text": "é"})
    loops = [LoopRecord(name, "s", "a", turns=[turn]) for name in "ab"]
    async with FileSystemSessionStore(tmp_path / "sessions", fsync=False, indent=indent) as store:
        await store.save(Session("s", "a", loops=loops))
        data = (
            (store.dir / "s.json")
            .read_bytes()
            .replace(b'"session_id":"s"', b'"session_id": "s"', 1)
        )
        assert await those_that_load(store, {"whole": data}) == ["whole"]
        cuts = [*range(0, len(data) - 40, 31), *range(len(data) - 40, len(data))]
        assert await those_that_load(store, {str(cut): data[:cut] for cut in cuts}) == []
