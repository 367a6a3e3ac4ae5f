"""Known hostile ids: each has a name of its own that is safe anywhere, or is refused."""

from __future__ import annotations

import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from phi_sessions import (
    FileSystemSessionStore,
    InvalidSessionIdError,
    LoopRecord,
    Session,
    SessionStore,
    delete_session,
    load_session,
    save_session,
)
from phi_sessions.ids import MAX_NAME_BYTES, id_from_name, name_from_id

PLAIN = [
    "s-1",
    "a",
    "0",
    "550e8400-e29b-41d4-a716-446655440000",
    "agent@example.com",
    "first last+tag@example.co.uk",
    "a=b",
    "A_b-C",
    "two words",
    "v1.2.3",
    "a..b",
    "a.json",
    "a.json.lock",
    "a.json.tmp.12.34",
    "con1",
    "com",
    "com10",
    "console",
    "nullify.txt",
    "größer",
    "漢字",
    "Ωmega",
    "x" * 200,
    "é" * 100,
]
ENCODED = [
    ".",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "..\\..\\boot.ini",
    "C:\\x",
    "c:x",
    "//server/share",
    "\0",
    "a\0b",
    "a\nb",
    "\x7f",
    "\x1b[31m",
    ".hidden",
    "~root",
    "%41",
    "%",
    "%2F",
    "-~-",
    "a.",
    "a ",
    " a",
    " ",
    "a. .",
    "con",
    "CON",
    "Con.txt",
    "nul.txt",
    "NUL",
    "aux",
    "prn.",
    "prn.tar.gz",
    "COM1",
    "com9.log",
    "lpt1",
    "com¹",
    "COM²",
    "lpt³.x",
    "con .txt",
    "aux  ",
    "CONIN$",
    "a:b",
    "a*b?",
    '<a>|"b"\'',
    "e\u0301",
    "\u212b",
    "A\u030a",
    "\u202eexe.txt",
    "\u200bzero",
    "\u200e",
    "\ufeffbom",
    "\u2028",
    "\u00a0",
    "\ue000",
    "\uffff",
    "\U0001f680",
    "\U0010ffff",
    "a#b",
    "a;b",
    "$HOME",
    "`id`",
    "{a,b}",
]
REFUSED = [
    "",
    "x" * 201,
    "x" * 300,
    "é" * 101,
    "/" * 67,
    "\U0001f680" * 17,
    "\ud800",
    "a\udfff",
    "\udc80abc",
    "\ud83d\ude00",
]
TWINS = [
    ("Case", "case"),
    ("\u00e9", "e\u0301"),
    ("\u212b", "\u00c5"),
    ("\ufb01", "fi"),
    ("a", "a "),
    ("a", "a."),
    ("a/b", "a%2Fb"),
    ("a/b", "%a%2Fb"),
    (".", "%2E"),
    ("con", "%con"),
    ("a\0", "a"),
    ("\u0130", "i\u0307"),
    ("ß", "ss"),
    ("a", "a\u200b"),
    ("1", "\uff11"),
]


def assert_safe(name: str) -> None:
    """Assert that no file system takes `name` for anything but a plain file's name."""
    assert 1 <= len(name.encode()) <= MAX_NAME_BYTES
    assert not set(name) & set('/\\:*?"<>|~')
    assert name[0] not in ". "
    assert name[-1] not in ". "
    assert all(unicodedata.category(c)[0] not in "CZ" or c == " " for c in name)
    assert unicodedata.is_normalized("NFC", name)
    assert not re.fullmatch(
        r"(?i)(con|prn|aux|nul|com[0-9\xb9\xb2\xb3]|lpt[0-9\xb9\xb2\xb3])[ ]*(\..*)?", name
    )


@pytest.mark.parametrize("session_id", PLAIN)
def test_a_plain_id_is_its_own_name(session_id: str) -> None:
    assert name_from_id(session_id) == session_id
    assert id_from_name(session_id) == session_id
    assert_safe(session_id)


@pytest.mark.parametrize("session_id", ENCODED)
def test_any_other_id_is_encoded_and_comes_back(session_id: str) -> None:
    name = name_from_id(session_id)
    assert name[0] == "%"
    assert name.isascii()
    assert id_from_name(name) == session_id
    assert_safe(name)


@pytest.mark.parametrize("session_id", REFUSED)
def test_an_id_that_can_have_no_name_is_refused(session_id: str) -> None:
    with pytest.raises(InvalidSessionIdError) as caught:
        name_from_id(session_id)
    assert caught.value.session_id == session_id
    assert str(caught.value).encode()  # can be printed and logged


@pytest.mark.parametrize("session_id", [None, 1, b"s", ["s"], Path("s")])
def test_what_is_not_a_string_is_refused(session_id: object) -> None:
    with pytest.raises(InvalidSessionIdError):
        name_from_id(session_id)  # type: ignore[arg-type]


def test_known_ids_have_names_of_their_own() -> None:
    ids = PLAIN + ENCODED + [twin for pair in TWINS for twin in pair]
    names = {session_id: name_from_id(session_id) for session_id in ids}
    assert len(set(names.values())) == len(set(ids))


@pytest.mark.parametrize(("one", "other"), TWINS)
def test_twins_have_different_names(one: str, other: str) -> None:
    assert name_from_id(one) != name_from_id(other)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "%",
        "%%",
        "%a",
        "%2f",
        "%2",
        "%ZZ",
        "%FF",
        "%C3",
        "%ED%A0%80",
        "%41",
        "%s-1",
        "%a.b",
        "%C3%A9",
        "a%2Fb",
        ".a",
        "a.",
        "con",
        "nul.x",
        "a/b",
        "x" * 201,
        "é" * 101,
        "%" + "%2F" * 67,
        "\udcff",
        "%\udcff",
        "e\u0301",
    ],
)
def test_what_is_nobodys_name_has_no_id(name: str) -> None:
    assert id_from_name(name) is None


def test_the_files_of_two_ids_are_never_the_same() -> None:
    base = ["a", "%", "a/b", ".", "con"]
    tails = ["", ".json", ".json.lock", ".json.tmp.1.2", ".lock", ".tmp", ".json.json"]
    ids = [head + tail for head in base for tail in tails]
    ids += [f"{one}{tail}" for one in list(ids) for tail in (".json", ".json.lock")]
    owners: dict[str, str] = {}
    for session_id in dict.fromkeys(ids):
        name = name_from_id(session_id)
        for suffix in (".json", ".json.lock", ".json.tmp.1.2"):
            assert owners.setdefault(name + suffix, session_id) == session_id


def test_the_longest_name_leaves_room_for_a_file_in_flight() -> None:
    longest = name_from_id("x" * MAX_NAME_BYTES)
    assert len(f"{longest}.json.tmp.{2**22}.{2**64}".encode()) <= 255


@pytest.mark.parametrize(
    "session_id", ["a.json.lock", "a.json.tmp.1.2", "a.lock", "a.json", "a.json.json.lock"]
)
async def test_an_id_that_looks_like_a_sidecar_is_a_session_like_any_other(
    session_id: str, file_store: FileSystemSessionStore
) -> None:
    await file_store.save(Session("a", "one"))
    await file_store.save(Session(session_id, "two"))
    assert sorted(await file_store.list_ids()) == sorted(["a", session_id])
    assert (await file_store.load("a")).agent_id == "one"
    assert (await file_store.load(session_id)).agent_id == "two"
    await file_store.delete("a")
    assert await file_store.list_ids() == [session_id]
    assert (await file_store.load(session_id)).agent_id == "two"


async def test_known_ids_are_saved_listed_loaded_and_deleted_as_they_are(
    tmp_path: Path,
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    store = FileSystemSessionStore(outside / "sessions", fsync=False)
    ids = dict.fromkeys(PLAIN + ENCODED + [twin for pair in TWINS for twin in pair])
    async with store:
        for number, session_id in enumerate(ids):
            record = LoopRecord(str(number), session_id, "a")
            await store.save(Session(session_id, "a", loops=[record]))
        assert sorted(await store.list_ids()) == sorted(ids)
        for number, session_id in enumerate(ids):
            session = await store.load(session_id)
            assert session.session_id == session_id
            assert session.loops[0].loop_id == str(number)
        for session_id in ids:
            await store.delete(session_id)
        assert await store.list_ids() == []
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert [path.name for path in outside.iterdir()] == ["sessions"]
    assert all(path.is_file() for path in store.dir.iterdir())


@pytest.mark.parametrize("session_id", REFUSED)
async def test_a_refused_id_touches_nothing(session_id: str, tmp_path: Path) -> None:
    store = FileSystemSessionStore(tmp_path / "sessions")
    async with store:
        calls = (store.load, store.delete, store.exists, store.find)
        with pytest.raises(InvalidSessionIdError):
            await store.save(Session(session_id, "a"))
        for call in calls:
            with pytest.raises(InvalidSessionIdError):
                await call(session_id)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("session_id", REFUSED)
def test_the_synchronous_functions_refuse_the_same_ids(session_id: str, tmp_path: Path) -> None:
    calls: list[Callable[[], object]] = [
        lambda: save_session(Session(session_id, "a"), tmp_path / "sessions"),
        lambda: load_session(session_id, tmp_path / "sessions"),
        lambda: delete_session(session_id, tmp_path / "sessions"),
    ]
    for call in calls:
        with pytest.raises(InvalidSessionIdError):
            call()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("session_id", REFUSED)
async def test_every_store_refuses_the_same_ids(session_id: str, store: SessionStore) -> None:
    with pytest.raises(InvalidSessionIdError):
        await store.save(Session(session_id, "a"))
    with pytest.raises(InvalidSessionIdError):
        await store.load(session_id)
    assert await store.list_ids() == []


def test_names_do_not_depend_on_the_locale_or_the_hash_seed() -> None:
    program = (
        "import sys; from phi_sessions.ids import name_from_id as n;"
        "sys.stdout.buffer.write(repr([n(i) for i in eval(sys.stdin.buffer.read())]).encode())"
    )
    ids = PLAIN + ENCODED
    expected = repr([name_from_id(session_id) for session_id in ids]).encode()
    for environment in ({"LC_ALL": "C", "PYTHONHASHSEED": "1"}, {"PYTHONUTF8": "0"}):
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=ascii(ids).encode(),
            capture_output=True,
            timeout=30,
            check=True,
            env=environment,
        )
        assert done.stdout == expected
