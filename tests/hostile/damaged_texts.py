"""Damaged session files of every kind, made from a sound one in either layout."""

from __future__ import annotations

import random
import re
from typing import Final

import msgspec

ID: Final = "the-session-itself"
AGENT: Final = "the-agent"
IN_HEAD: Final = b'"to be replaced in the head"'
IN_RECORD: Final = b'"to be replaced in a record"'

_USAGE = b'"usage":{"input":1234,"output":0}'
_HEAD = (
    b'{"session_id":"the-session-itself","agent_id":"the-agent",'
    b'"created_at":"2026-01-15T09:30:00.123456789Z","last_active_at":"2026-01-15T09:30:00Z",'
    b'"formation":{"Explicit":{"timestamp":"2026-01-15T09:30:00Z"}},"parent_spawn_ref":null,'
    b'"scope":"ephemeral","metadata":{"title":"Gr\xc3\xbc\xc3\x9fe","spot":' + IN_HEAD + b"}"
)
_RECORD = (
    b'{"loop_id":"loop %d","session_id":"the-session-itself","agent_id":"the-agent",'
    b'"started_at":"2026-01-15T09:30:00Z","status":"Completed",'
    b'"messages":[{"role":"user","content":"\xe6\x97\xa5\xe6\x9c\xac {[\\"\\\\"}],"turns":[],'
    + _USAGE
    + b',"metadata":{"spot":'
    + IN_RECORD
    + b'},"events":[]}'
)
_COMPACT = (
    _HEAD
    + b',"revision":"0123456789abcdef","loops":[\n'
    + b",\n".join(_RECORD % number for number in range(3))
    + b"\n]}"
)
SOUND: Final = {"compact": _COMPACT, "indented": msgspec.json.format(_COMPACT, indent=2)}
"""The session `ID` in this package's own layout and in phi-core's."""

DEEP: Final = 100_000


def _drop(text: bytes, key: bytes) -> bytes:
    """Return `text` without the first `key` and its value, which is a string or a flat object."""
    pattern = rb'"%s":\s*("[^"]*"|\{\s*"Explicit":\s*\{[^}]*\}\s*\}),?\s*' % key
    return re.sub(pattern, b"", text, count=1)


def _retype(text: bytes, key: bytes, value: bytes) -> bytes:
    pattern = rb'"%s":\s*("[^"]*"|[0-9]+|\[\]|\{[^{}]*\}|\{\s*"Explicit":\s*\{[^}]*\}\s*\})' % key
    return re.sub(pattern, lambda _: b'"%s":%s' % (key, value), text, count=1)


def _before_loops(text: bytes) -> bytes:
    return text[: text.index(b'"loops"')]


def _spots(text: bytes, name: str, value: bytes) -> dict[str, bytes]:
    return {
        f"{name} in the head": text.replace(IN_HEAD, value, 1),
        f"{name} in a record": text.replace(IN_RECORD, value, 1),
    }


def framing(text: bytes) -> dict[str, bytes]:
    """Return texts whose damage shows from the outside."""
    sound_prefix = _before_loops(text)
    return {
        "empty": b"",
        "white space": b" \n\t\r ",
        "zeros only": bytes(len(text)),
        "zeros in front": bytes(16) + text,
        "zeros behind": text + bytes(16),
        "zeros for the last third": text[: len(text) * 2 // 3] + bytes(len(text) // 3),
        "a byte order mark": b"\xef\xbb\xbf" + text,
        "UTF-16": text.decode().encode("utf-16"),
        "garbage behind": text + b"x",
        "twice": text + text,
        "not JSON": b"<html>502 Bad Gateway</html>",
        "an array": b"[]",
        "an array of it": b"[" + text + b"]",
        "a string": b'"session"',
        "a number": b"7",
        "null": b"null",
        "an empty object": b"{}",
        "another session": text.replace(ID.encode(), b"another", 1),
        "its id in capitals": text.replace(ID.encode(), ID.upper().encode(), 1),
        "no loops": sound_prefix.rstrip().rstrip(b",") + b"}",
        "loops an object": sound_prefix + b'"loops":{}}',
        "loops null": sound_prefix + b'"loops":null}',
        "loops a string": sound_prefix + b'"loops":"[]"}',
        "loops a number": sound_prefix + b'"loops":0}',
        "loops of strings": sound_prefix + b'"loops":["x"]}',
        "loops of arrays": sound_prefix + b'"loops":[[]]}',
        "loops twice": text[:-1].rstrip() + b',"loops":[]}',
    }


def inside(text: bytes) -> dict[str, bytes]:
    """Return texts whose beginning and end are as they should be."""
    found = {
        **_spots(text, "bad UTF-8", b'"\xff"'),
        **_spots(text, "cut UTF-8", b'"\xe6\x97"'),
        **_spots(text, "an encoded surrogate", b'"\xed\xa0\x80"'),
        **_spots(text, "a lone surrogate", b'"\\ud800"'),
        **_spots(text, "a zero byte", b'"\0"'),
        **_spots(text, "zeros", bytes(20)),
        **_spots(text, "a line break", b'"a\nb"'),
        **_spots(text, "an unknown escape", b'"\\x41"'),
        **_spots(text, "nothing", b""),
        **_spots(text, "NaN", b"NaN"),
        **_spots(text, "infinity", b"-Infinity"),
        **_spots(text, "1e400", b"1e400"),
        **_spots(text, "5000 digits", b"9" * 5000),
        **_spots(text, "128 levels", b"[" * 127 + b"]" * 127),
        "a key of other letters and 5000 digits": text.replace(
            b'"metadata"', '"é":'.encode() + b"9" * 5000 + b',"metadata"', 1
        ),
    }
    for key in (b"session_id", b"agent_id", b"created_at", b"last_active_at", b"formation"):
        found[f"no {key.decode()}"] = _drop(text, key)
    for key, value in {
        b"session_id": b"7", b"agent_id": b"null", b"created_at": b"1768469400",
        b"last_active_at": b'"yesterday"', b"formation": b'"Explicit"', b"parent_spawn_ref": b"[]",
        b"scope": b"1", b"loop_id": b"null", b"started_at": b"{}", b"status": b"false",
        b"turns": b"[1]", b"events": b"{}", b"messages": b"1",
    }.items():  # fmt: skip
        if key == b"parent_spawn_ref":
            found["parent_spawn_ref of a wrong type"] = re.sub(
                rb'("parent_spawn_ref":\s*)null', rb"\g<1>[]", text, count=1
            )
        elif key == b"messages":
            found["messages of a wrong type"] = re.sub(
                rb'"messages":\s*\[[^\]]*\]', b'"messages":[1]', text, count=1
            )
        else:
            found[f"{key.decode()} of a wrong type"] = _retype(text, key, value)
    for name, value in {"-1": b"-1", "1.5": b"1.5"}.items():
        found[f"{name} tokens"] = text.replace(b"1234", value, 1)
    for key in (b"session_id", b"agent_id", b"created_at"):
        pattern = rb'("%s":\s*"[^"]*",)' % key
        found[f"{key.decode()} twice"] = re.sub(pattern, rb"\g<1>\g<1>", text, count=1)
    found["a second agent"] = re.sub(
        rb'("agent_id":\s*"[^"]*",)', rb'\g<1>"agent_id":"mallory",', text, count=1
    )
    for name in ("1e400 in a record", "5000 digits in a record"):
        del found[name]  # sound JSON: found when the record is looked at, and kept until then
    return found


def deep(text: bytes) -> dict[str, bytes]:
    """Return texts that are nested without end, openly and hidden."""
    arrays = b"[" * DEEP + b"]" * DEEP
    objects = b'{"":' * DEEP + b"1" + b"}" * DEEP
    behind_strings = b'["]",' * DEEP + b"1" + b"]" * DEEP
    behind_escapes = b'["\\"]\\\\",' * DEEP + b"1" + b"]" * DEEP
    return {
        "arrays that do not close": b"[" * DEEP,
        "arrays": arrays,
        "objects": objects,
        "behind strings": behind_strings,
        "behind escapes": behind_escapes,
        "a string of brackets that does not close": b'{"session_id":"' + b"[" * DEEP,
        "objects in the head": text.replace(IN_HEAD, objects, 1),
        "behind strings in the head": text.replace(IN_HEAD, behind_strings, 1),
        "arrays in a record": text.replace(IN_RECORD, arrays, 1),
        "behind strings in a record": text.replace(IN_RECORD, behind_strings, 1),
    }


def cut(text: bytes, count: int) -> dict[str, bytes]:
    """Return `text` cut off after `count` different lengths, those at its joints among them."""
    joints = {1, 2, 15, len(text) - 1, len(text) - 2, len(text) - 3}
    for mark in (b'"agent_id"', b'"loops"', b"[\n", b'{"loop_id"', b",\n", b"\xc3", b"\xe6", b"\\"):
        for match in re.finditer(re.escape(mark), text):
            joints |= {match.start(), match.start() + 1, match.end()}
    rest = random.Random(count).sample(range(1, len(text)), min(count, len(text) - 1))
    lengths = sorted((joints | set(rest)) & set(range(1, len(text))))
    return {f"cut after {length} bytes": text[:length] for length in lengths}


def for_session(text: bytes, session_id: str) -> bytes:
    """Return a text that was made from `SOUND` for another session."""
    return text.replace(ID.encode(), session_id.encode())
