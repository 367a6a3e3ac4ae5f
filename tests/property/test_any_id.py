"""Whatever the id: its name is safe, reversible and its own, or the id is refused."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import unicodedata
from pathlib import Path

from conftest import scaled
from hypothesis import example, given, settings
from hypothesis import strategies as st

from phi_sessions import ids as ids_module
from phi_sessions.errors import InvalidSessionIdError
from phi_sessions.ids import MAX_NAME_BYTES, id_from_name, name_from_id

COUNT = scaled(24_000)
ALPHABETS = [
    "/\\.%~ :-_@+=",
    "aA.bB",
    "\0\x01\x1f\x7f\x80\x9f\n\r\t",
    "\u200b\u200e\u200f\u202a\u202e\u2066\u2069\ufeff\u2028",
    "e\u0301\u00e9A\u030a\u212b\u00c5\u1e69s\u0323\u0307\uac00\u1100\u1161",
    "conCONprnauxnulcomCOMlptLPT123\u00b9\u00b2\u00b3. ",
    "\U0001f680\U0001f469\u200d\U0010ffff\U00010000\U0001d7d8",
    "\ud800\udbff\udc00\udfff",
    "%0123456789ABCDEFabcdef",
    "漢字наукаעבריתΩß\u0130\u0131\u017f\ufb01",
    ".json.lock.tmp.0123456789",
    "\u0378\u0380\u1c80\u2fe0\ua7cb\U0001e900\U00010d50\U00016ea0",
    "abcdefghijklmnopqrstuvwxyz0123456789-",
]
PIECES = ["..", "../", "con", "nul.txt", "COM1", ".json", ".lock", ".tmp.1.2", "%2F", "%", " ", "a"]


def hostile_ids(count: int, seed: int) -> list[str]:
    """Return `count` different ids, drawn from nasty alphabets."""
    rng = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        length = rng.choice([0, 1, 1, 2, 2, 3, 3, 4, 6, 9, 20, 66, 67, 100, 199, 200, 201, 300])
        kind = rng.randrange(4)
        if kind == 0:
            text = "".join(rng.choices(PIECES, k=rng.randrange(1, 6)))
        elif kind == 1:
            text = "".join(chr(rng.randrange(0x110000)) for _ in range(min(length, 9)))
        else:
            alphabet = "".join(rng.sample(ALPHABETS, rng.choice([1, 1, 2, 3])))
            text = "".join(rng.choices(alphabet, k=length))
        found[text] = None
        for twin in (text.swapcase(), text.upper(), text + rng.choice(". \0"), "%" + text):
            found[twin] = None
        for form in ("NFC", "NFD", "NFKC"):
            found[unicodedata.normalize(form, text)] = None
    return list(found)


def check(session_id: str) -> str | None:
    """Assert what a name promises; return it, or None for an id that was rightly refused."""
    try:
        name = name_from_id(session_id)
    except InvalidSessionIdError:
        assert (
            not session_id
            or any("\ud800" <= c <= "\udfff" for c in session_id)
            or 3 * len(session_id.encode()) + 1 > MAX_NAME_BYTES
        )
        return None
    assert id_from_name(name) == session_id
    assert 1 <= len(name.encode()) <= MAX_NAME_BYTES
    assert name == session_id or name[0] == "%"
    assert not set(name) & set('/\\:*?"<>|~')
    assert name[0] not in ". "
    assert name[-1] not in ". "
    assert all(unicodedata.category(c)[0] not in "CZ" or c == " " for c in name)
    assert unicodedata.is_normalized("NFC", name)
    assert os.path.basename(os.path.normpath(os.path.join("/d", name + ".json"))) == name + ".json"
    return name


def test_hostile_ids_have_safe_names_of_their_own() -> None:
    ids = hostile_ids(COUNT, seed=20)
    names: dict[str, str] = {}
    normal: dict[str, str] = {}
    refused = 0
    for session_id in ids:
        name = check(session_id)
        if name is None:
            refused += 1
            continue
        assert names.setdefault(name, session_id) == session_id
        # A file system that normalises names still tells them apart. One that folds case may not:
        # there the ids must differ in case only.
        assert normal.setdefault(unicodedata.normalize("NFD", name), session_id) == session_id
    assert len(names) >= scaled(20_000) * 0.75
    assert refused >= scaled(100)


def test_names_that_fold_to_one_have_ids_that_differ_in_case_only() -> None:
    folded: dict[str, str] = {}
    for session_id in hostile_ids(COUNT, seed=21):
        name = check(session_id)
        if name is None:
            continue
        key = unicodedata.normalize("NFC", name.casefold())
        twin = folded.setdefault(key, session_id)
        if twin != session_id:
            same = [unicodedata.normalize("NFC", i.casefold()) for i in (twin, session_id)]
            assert same[0] == same[1]


def test_a_name_has_one_id_and_any_other_text_has_none() -> None:
    """The inverse: what `id_from_name` takes is exactly what `name_from_id` gives."""
    taken = 0
    for name in hostile_ids(COUNT, seed=22):
        session_id = id_from_name(name)
        if session_id is not None:
            taken += 1
            assert name_from_id(session_id) == name
    assert taken >= scaled(1000)


@settings(max_examples=scaled(1000), deadline=None)
@given(st.text(st.characters(codec=None), max_size=210))
@example("con\u00b9")
@example("\ud800")
@example("a\u0301")
def test_any_text_has_a_safe_name_or_is_refused(session_id: str) -> None:
    check(session_id)


@settings(max_examples=scaled(1000), deadline=None)
@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_two_ids_never_share_a_name(one: str, other: str) -> None:
    try:
        assert (name_from_id(one) == name_from_id(other)) == (one == other)
    except InvalidSessionIdError:
        assert max(len(one.encode()), len(other.encode())) * 3 + 1 > MAX_NAME_BYTES


@settings(max_examples=scaled(500), deadline=None)
@given(st.text(st.sampled_from("%0123456789ABCDEFabcdef-./~ é"), max_size=30))
def test_any_percent_text_is_one_ids_name_or_nobodys(name: str) -> None:
    session_id = id_from_name(name)
    assert session_id is None or name_from_id(session_id) == name


# Every interpreter has its own Unicode tables -----------------------------------------------------

PROGRAM = """
import hashlib, sys, types
package = types.ModuleType("phi_sessions")
package.__path__ = [sys.argv[1]]  # without its __init__, which needs the dependencies
sys.modules["phi_sessions"] = package
from phi_sessions.errors import InvalidSessionIdError
from phi_sessions.ids import name_from_id

def name(text):
    try:
        return name_from_id(text)
    except InvalidSessionIdError:
        return None

def digest(texts):
    return hashlib.sha256("\\n".join(ascii(name(text)) for text in texts).encode()).hexdigest()

points = [*range(0x3500), *range(0x9F00, 0xAD00), *range(0xD700, 0x17100), *range(0x1AF00, 0x20100)]
points += [*range(0x2F700, 0x2FB00), *range(0xDFF00, 0xE0200), *range(0, 0x110000, 0x101)]
print(digest(chr(c) for c in points))
print(digest(f"a{chr(c)}b" for c in points))
print(digest(eval(sys.stdin.buffer.read())))
"""
"""Prints digests of the names of: code points alone (without the middle of the large blocks of
ideographs), the same between letters, and the ids on its standard input."""

NAMES_OF_CODE_POINTS = [
    "cc0de976968d5be1e77edbe0a8811e3b48c9a9f79531c50f51f2420de4f1d730",
    "03aba218ce86f5c5b34794de800aef21ef8dbb82397b05a292bdc2e0c38d9ca5",
]
"""Sessions that were saved with these names must be found by every later version."""


def other_interpreters() -> list[Path]:
    versions = Path.home() / ".pyenv" / "versions"
    found = {path.name.split(".")[1]: path / "bin" / "python" for path in versions.glob("3.*.*")}
    own = sys.version_info.minor
    return [path for minor, path in found.items() if int(minor) >= 11 and int(minor) != own]


def digests(interpreter: Path | str, ids: list[str]) -> list[str]:
    done = subprocess.run(
        [str(interpreter), "-c", PROGRAM, str(Path(ids_module.__file__).parent)],
        input=ascii(ids).encode(),
        capture_output=True,
        timeout=120,
        check=True,
    )
    return done.stdout.decode().split()


def test_every_interpreter_gives_the_same_names() -> None:
    ids = hostile_ids(scaled(4000), seed=23)
    expected = digests(sys.executable, ids)
    assert expected[:2] == NAMES_OF_CODE_POINTS
    for interpreter in other_interpreters():
        assert digests(interpreter, ids) == expected, interpreter
