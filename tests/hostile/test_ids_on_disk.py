"""Ids that mean something to a file system, through a real directory."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from conftest import scaled
from watched_tree import tree_of

from phi_sessions import (
    Expect,
    FileSystemSessionStore,
    InvalidSessionIdError,
    Session,
    SessionCorruptError,
    SessionNotFoundError,
    delete_session,
    list_session_ids,
    load_session,
    save_session,
)

ODD = [
    ".", "..", "...", "../x", "../../x", "a/../../x", "..\\x", "a\\b", "/", "//", "a/b", "a//b",
    "/etc/passwd",
    "C:\\x", "C:", "\\\\host\\share", "file:///etc/passwd", "~", "~root", ".hidden", "-rf", "--",
    "-", "a.", "a..",
    "a ", " a", " ", "\t", "\n", "\r\n", "a\nb", "\0", "a\0b", "\x7f", "\x1b[2J", "%", "%%",
    "%2e%2e", "%2E%2E%2Fx",
    "%00", "a%2Fb", "%a", "%C3%A9", "con", "CON", "con.txt", "CON .x", "prn", "aux", "nul",
    "NUL.tar.gz", "com1", "COM9.json",
    "lpt0", "com\u00b9", "lpt\u00b3.x", "conin$", "x.json", "x.json.lock", "x.lock", ".json",
    ".json.lock", ".lock", "x.json.tmp.1.2",
    "x.tmp.1.2", "x.json.tmp", "a:b", "a*b", "a?b", 'a"b', "a<b", "a>b", "a|b", "a;b", "a&b",
    "$(id)", "`id`", "$HOME", "a'b",
    "{}", "[]", "!", "#", "#x", ",", "a,b", "^", "Session", "session", "SESSION", "stra\u00dfe",
    "strasse", "STRASSE",
    "\u0130", "i\u0307", "\u00e9", "e\u0301", "\u212b", "\u00c5", "A\u030a", "\ufb01", "fi",
    "\u2126", "\u03a9", "\u1e9b\u0323",
    "\u202e", "a\u202eb", "\u200b", "a\u200bb", "\ufeff", "\ufeffa", "\u00ad", "\ufffd",
    "\uffff", "\U0001f600", "\U0001f468\u200d\U0001f469",
    "日本語", "한글", "\u1112\u1161\u11ab", "עברית", "\u0660", "1", "01", "1.0", "null", "true",
    "NaN", "{\"a\":1}", "a@b.example", "a+b=c",
    "x" * 200, "%" * 66, "/" * 66, "é" * 100, "😀" * 16, "." * 66, "a" * 195 + ".json",
]  # fmt: skip
"""Ids that can name a session, most of which are no good as file names."""

REFUSED = [
    "", "\ud800", "a\udfffb", "\udc80",
    "x" * 201, "x" * 300, "x" * 100_000, "/" * 67, "é" * 101, "😀" * 17, "%" * 67, "../" * 40,
]  # fmt: skip
"""Ids that never can."""

ALPHABET = [
    *"abAB01._-~%/\\:*?\"<>| \t\n\0\x7f@+='$&#",
    "..", "../", "con", ".json", ".lock", ".tmp.", "%2F", "%2E", "é", "e\u0301", "Å", "\u212b",
    "ß", "日", "😀", "\u202e", "\u200b",
]  # fmt: skip


def _generated(count: int, seed: int = 20261122) -> list[str]:
    pick = random.Random(seed)
    return sorted({"".join(pick.choices(ALPHABET, k=pick.randint(1, 12))) for _ in range(count)})


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with a place for sessions in the middle, and with what a bad name could lead to."""
    (tmp_path / "middle" / "sessions").mkdir(parents=True)
    for place in (tmp_path, tmp_path / "middle", tmp_path / "middle" / "neighbour"):
        place.mkdir(exist_ok=True)
        for name in ("x", "session", "b"):
            save_session(Session(name, "somebody else"), place)
        (place / "x").write_text("not a session")
    return tmp_path


async def _all(
    ids: list[str], call: Callable[[str], Awaitable[object]], at_once: int = 64
) -> list[object]:
    found: list[object] = []
    for start in range(0, len(ids), at_once):
        batch = ids[start : start + at_once]
        found += await asyncio.gather(*map(call, batch), return_exceptions=True)
    return found


async def test_odd_ids_are_saved_loaded_listed_and_deleted_inside_the_directory_only(
    tree: Path,
) -> None:
    sessions = tree / "middle" / "sessions"
    absolute = [str(tree / "x"), str(tree / "middle" / "neighbour" / "x"), f"{sessions}/x"]
    relative = ["../x", "../neighbour/x", "../../x", "../sessions/x", "./x", "x/", "x/."]
    ids = sorted({*ODD, *relative, *_generated(scaled(300))})
    ids += [i for i in absolute if len(i) < 60]
    outside = tree_of(tree, without=sessions)

    async with FileSystemSessionStore(sessions, fsync=False) as store:

        async def save(session_id: str) -> None:
            session = Session(session_id, "agent", metadata={"of": session_id})
            await store.save(session, expect=Expect.ABSENT)

        assert await _all(ids, save) == [None] * len(ids)
        assert sorted(await store.list_ids()) == sorted(ids)
        assert sorted(list_session_ids(sessions)) == sorted(ids)
        for session_id, loaded in zip(ids, await _all(ids, store.load), strict=True):
            assert isinstance(loaded, Session)
            assert (loaded.session_id, loaded.metadata) == (session_id, {"of": session_id})
        assert all(await _all(ids, store.exists))
        assert tree_of(tree, without=sessions) == outside

        gone, kept = ids[::2], ids[1::2]
        assert await _all(gone, store.delete) == [None] * len(gone)
        assert sorted(await store.list_ids()) == sorted(kept)
        assert {type(found) for found in await _all(gone, store.load)} == {SessionNotFoundError}
        for session_id, loaded in zip(kept, await _all(kept, store.load), strict=True):
            assert isinstance(loaded, Session)
            assert loaded.metadata == {"of": session_id}
        for session_id in kept[:50]:
            assert load_session(session_id, sessions).metadata == {"of": session_id}
            delete_session(session_id, sessions)
        assert sorted(await store.list_ids()) == sorted(kept[50:])

    assert tree_of(tree, without=sessions) == outside
    assert all(path.is_file() and not path.is_symlink() for path in sessions.iterdir())
    assert all(path.name.endswith((".json", ".json.lock")) for path in sessions.iterdir())
    shutil.rmtree(sessions)


@pytest.mark.parametrize("missing", [False, True], ids=["directory", "no directory yet"])
async def test_a_refused_id_touches_nothing(tree: Path, missing: bool) -> None:
    sessions = tree / "middle" / ("later" if missing else "sessions")
    if not missing:
        save_session(Session("sound", "agent"), sessions)
    before = tree_of(tree)
    async with FileSystemSessionStore(sessions) as store:
        for session_id in (*REFUSED, None, 7, b"bytes", Path("x")):
            wrong: str = session_id  # type: ignore[assignment]
            session = Session(wrong, "agent")
            for call in (store.load, store.find, store.exists, store.delete):
                with pytest.raises(InvalidSessionIdError) as caught:
                    await call(wrong)
                assert isinstance(caught.value, ValueError)
            for expect in Expect:
                with pytest.raises(InvalidSessionIdError):
                    await store.save(session, expect=expect)
            for function in (load_session, delete_session):
                with pytest.raises(InvalidSessionIdError):
                    function(wrong, sessions)
            with pytest.raises(InvalidSessionIdError):
                save_session(Session(wrong, "agent"), sessions)
    assert tree_of(tree) == before


@pytest.mark.parametrize(
    "twins",
    [("Session", "session", "SESSION"), ("\u00e9", "e\u0301"), ("\u212b", "\u00c5", "A\u030a"),
     ("a", "a ", " a", "a."), ("a/b", "a%2Fb", "%61%2Fb", "a\\b"), ("x", "x.json", "x.json.lock")],
    ids=["case", "NFC and NFD", "three Angstroms", "blanks", "encoded", "suffixes"],
)  # fmt: skip
async def test_ids_that_look_alike_are_sessions_of_their_own(
    file_store: FileSystemSessionStore, twins: tuple[str, ...]
) -> None:
    probe = file_store.dir.parent / "Probe"
    probe.touch()
    if "Session" in twins and (file_store.dir.parent / "pROBE").exists():
        pytest.skip("this file system folds case")
    for twin in twins:
        await file_store.save(Session(twin, "agent", metadata={"of": twin}), expect=Expect.ABSENT)
    assert [(await file_store.load(twin)).metadata["of"] for twin in twins] == list(twins)
    assert sorted(await file_store.list_ids()) == sorted(twins)
    await file_store.delete(twins[0])
    assert sorted(await file_store.list_ids()) == sorted(twins[1:])
    assert [(await file_store.load(twin)).metadata["of"] for twin in twins[1:]] == list(twins[1:])


async def test_a_file_that_holds_another_session_is_damaged(
    file_store: FileSystemSessionStore,
) -> None:
    mine = Session("mine", "agent")
    await file_store.save(mine)
    theirs = Session("theirs", "agent", metadata={"secret": True})
    for indent in (None, 2):
        async with FileSystemSessionStore(file_store.dir, indent=indent) as writer:
            await writer.save(theirs)
        shutil.copyfile(file_store.dir / "theirs.json", file_store.dir / "mine.json")
        copied = (file_store.dir / "mine.json").read_bytes()
        for call in (
            lambda: file_store.load("mine"),
            lambda: file_store.save(Session("mine", "agent")),
            lambda: file_store.save(mine),
            lambda: file_store.delete("mine"),
        ):
            with pytest.raises(SessionCorruptError) as caught:
                await call()
            assert caught.value.session_id == "mine"
            assert caught.value.path == str(file_store.dir / "mine.json")
            assert "theirs" in caught.value.reason
        with pytest.raises(SessionCorruptError):
            [info async for info in file_store.infos()]
        assert (file_store.dir / "mine.json").read_bytes() == copied
        assert (await file_store.load("theirs")).metadata == {"secret": True}
        assert sorted(await file_store.list_ids()) == ["mine", "theirs"]


async def test_names_that_no_id_has_are_not_listed(file_store: FileSystemSessionStore) -> None:
    await file_store.save(Session("x", "agent"))
    sound = (file_store.dir / "x.json").read_bytes()
    strays = [
        ".json", "..json", ".x.json", "~x.json", "con.json", "%.json", "%2.json", "%2e.json",
        "%78.json", "%2F%2f.json", "%FF.json", "%ED%A0%80.json",
        "%00%.json", "x .json", " x.json", "e\u0301.json", "a:b.json", "x" * 201 + ".json",
        "x.JSON", "x.json~", "x.json.bak",
        "x.json.tmp", "x.json.tmp.1", "x.json.tmp.a.b", "x.json.tmp.1.2.3", "README",
        "x.json.lock.json.lock", ".json.lock", "%2.json.lock",
    ]  # fmt: skip
    for name in strays:
        (file_store.dir / name).write_bytes(sound)
    for name in (
        b"\xff.json",
        b"\xffx.json.lock",
        b"x\xc3.json",
        b"%\xff.json",
        b"\xff.json.tmp.1.2",
    ):
        Path(os.fsdecode(os.fsencode(file_store.dir) + b"/" + name)).write_bytes(sound)
    before = tree_of(file_store.dir)
    listed = {"x"}
    assert set(await file_store.list_ids()) == listed
    assert {info.session_id async for info in file_store.infos()} == listed
    assert [s.session_id for s in await file_store.list_for_agent("agent")] == ["x"]
    assert set(list_session_ids(file_store.dir)) == listed
    assert tree_of(file_store.dir) == before
