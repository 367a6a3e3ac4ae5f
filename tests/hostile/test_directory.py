"""Things in the directory that are not session files: an error or nothing, and never a wait."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import scaled
from watched_tree import tree_of

from phi_sessions import (
    FileSystemSessionStore,
    Session,
    SessionIOError,
    SessionLockedError,
    delete_session,
    list_session_ids,
    load_session,
    load_sessions_for_agent,
    save_session,
)

VISITOR = Path(__file__).parent / "visitor.py"
NOBODY = 65534
ON_THE_SESSION = (
    "load", "save", "save anything", "save absent", "delete",
    "load_session", "save_session", "delete_session",
)  # fmt: skip
LISTINGS = (
    "list_ids", "infos", "infos of agent", "infos, skip", "infos of agent, skip",
    "list_for_agent", "list_for_agent, skip", "list_session_ids", "load_sessions_for_agent",
)  # fmt: skip
SKIPPING = ("infos, skip", "infos of agent, skip", "list_for_agent, skip")


def visit(directory: Path, *, as_user: int | None = None) -> dict[str, list[Any]]:
    """Call everything on session "odd" in a child, which has to come to its end by itself."""
    user = [] if as_user is None else [str(as_user)]
    done = subprocess.run(
        [sys.executable, str(VISITOR), str(directory), "odd", *user],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, list[Any]] = json.loads(done.stdout)
    # Nothing here is held by anybody: nothing is waited for.
    assert {name: took for name, (*_, took) in seen.items() if took > 2.0} == {}
    return seen


def kinds(seen: dict[str, list[Any]], names: tuple[str, ...]) -> dict[str, str]:
    return {name: seen[name][0] for name in names}


def all_are(kind: str, names: tuple[str, ...]) -> dict[str, str]:
    return dict.fromkeys(names, kind)


def _link_to_a_session(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    path.symlink_to(save_session(Session("odd", "agent"), elsewhere))


def _dangling_link(path: Path) -> None:
    path.symlink_to(path.parent.parent / "made by following a link")


def _link_to_a_directory(path: Path) -> None:
    (path.parent.parent / "a directory").mkdir()
    path.symlink_to(path.parent.parent / "a directory")


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def _directory(path: Path) -> None:
    path.mkdir()
    (path / "inside").touch()


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(path))  # a long path does not fit


def _device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("making a device takes root")


ODDITIES: list[Callable[[Path], None]] = [
    _link_to_a_session, _dangling_link, _link_to_a_directory, _link_to_itself,
    os.mkfifo, _directory, _socket, _device,
]  # fmt: skip


def _named(make: Callable[[Path], None]) -> str:
    return make.__name__.strip("_").replace("_", " ")


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    directory = tmp_path / "sessions"
    save_session(Session("good", "agent"), directory)
    return directory


@pytest.mark.parametrize("make", ODDITIES, ids=_named)
def test_what_stands_in_a_sessions_place_is_an_error_and_stays(
    sessions: Path, make: Callable[[Path], None]
) -> None:
    make(sessions / "odd.json")
    before = tree_of(sessions.parent, without=sessions / "good.json")
    odd = os.lstat(sessions / "odd.json")
    seen = visit(sessions)

    assert kinds(seen, ON_THE_SESSION) == all_are("SessionIOError", ON_THE_SESSION)
    assert seen["exists"][0] == "SessionIOError"
    for name in LISTINGS:
        kind, _, value, _ = seen[name]
        assert kind == "SessionIOError" or value == ["good"], name
    assert kinds(seen, ("list_ids", *SKIPPING)) == all_are("fine", ("list_ids", *SKIPPING))
    assert seen["load good"][0] == seen["save good"][0] == "fine"

    assert os.lstat(sessions / "odd.json")[:2] == odd[:2]
    after = tree_of(sessions.parent, without=sessions / "good.json")
    made = {str(Path("sessions", name)) for name in ("odd.json.lock", "good.json.lock")}
    changed = {name for name in after if before.get(name) != after[name]} - made
    assert changed <= {"sessions"}  # where a lock file was made
    assert set(before) <= set(after)


@pytest.mark.parametrize("make", ODDITIES, ids=_named)
def test_what_stands_in_a_locks_place_refuses_saves_and_spares_loads(
    sessions: Path, make: Callable[[Path], None]
) -> None:
    path = save_session(Session("odd", "agent"), sessions)
    lock = sessions / "odd.json.lock"
    lock.unlink()
    make(lock)
    sound, odd = path.read_bytes(), os.lstat(lock)
    seen = visit(sessions)

    writes = tuple(name for name in ON_THE_SESSION if not name.startswith("load"))
    assert kinds(seen, writes) == all_are("SessionIOError", writes)
    for name in ("load", "load_session", "exists", "load good", "save good", *LISTINGS):
        assert seen[name][0] == "fine", name
    for name in LISTINGS:
        assert sorted(seen[name][2]) == ["good", "odd"], name
    assert path.read_bytes() == sound
    assert os.lstat(lock)[:2] == odd[:2]
    assert not (sessions.parent / "made by following a link").exists()


def _file(path: Path) -> None:
    path.write_text("not a directory")


@pytest.mark.parametrize("make", [_file, os.mkfifo, _dangling_link, _link_to_itself], ids=_named)
@pytest.mark.parametrize("below", [False, True], ids=["at", "above"])
def test_what_stands_in_the_directorys_place_is_an_error(
    tmp_path: Path, make: Callable[[Path], None], below: bool
) -> None:
    (tmp_path / "here").mkdir()
    place = tmp_path / "here" / "place"
    make(place)
    before = tree_of(tmp_path)
    seen = visit(place / "deeper" if below else place)
    saves = ("save", "save anything", "save absent", "save_session")
    assert kinds(seen, saves) == all_are("SessionIOError", saves)
    rest = tuple(name for name in seen if name not in saves)
    if make is _dangling_link:  # there is no directory, and thus nothing in it
        assert {kind for kind, *_ in map(seen.get, rest)} <= {"SessionNotFoundError", "fine"}  # type: ignore[misc]
    else:
        assert kinds(seen, rest) == all_are("SessionIOError", rest)
    assert tree_of(tmp_path) == before


async def test_a_thousand_files_in_flight_of_dead_writers_hinder_nobody_and_go(
    sessions: Path,
) -> None:
    count = scaled(1000)
    for number in range(count):
        name = f"good.json.tmp.{number % 7}.{number}" if number % 2 else f"s{number}.json.tmp.1.2"
        (sessions / name).write_bytes(b'{"session_id":"good","ag')
    async with FileSystemSessionStore(sessions) as store:
        session = await store.load("good")
        await store.save(session)
        assert await store.list_ids() == ["good"]
        assert list(sessions.glob("*.tmp.*")) == []
        assert (await store.load("good")).revision == session.revision
        assert list_session_ids(sessions) == ["good"]


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that other users reach; pytest's own are closed to them."""
    directory = Path(tempfile.mkdtemp(prefix="phi-sessions-"))
    directory.chmod(0o755)
    yield directory
    for path in (directory, *directory.iterdir()):
        path.chmod(0o755)
    shutil.rmtree(directory)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as two users")


@pytest.mark.parametrize("directory", ["", ".", "sub/", Path("sub")], ids=repr)
async def test_a_directory_is_the_same_to_the_functions_and_to_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str | Path
) -> None:
    monkeypatch.chdir(tmp_path)
    path = save_session(Session("good", "agent"), directory)
    assert path.exists()
    assert list_session_ids(directory) == ["good"]
    assert [found.session_id for found in load_sessions_for_agent("agent", directory)] == ["good"]
    async with FileSystemSessionStore(directory) as store:
        assert await store.load("good") == load_session("good", directory)
        delete_session("good", directory)
        assert await store.list_ids() == []


@pytest.mark.parametrize("directory", ["", "sub", Path("sub", "below")], ids=repr)
async def test_a_relative_directory_stays_the_same_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str | Path
) -> None:
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    async with FileSystemSessionStore(directory) as store:
        await store.save(Session("s", "agent"))
        async with store.lease("s"):
            monkeypatch.chdir(tmp_path / "elsewhere")
            with pytest.raises(SessionLockedError):
                async with store.lease("s"):
                    pass
        await store.save(await store.load("s"))
        assert await store.list_ids() == ["s"]
    assert os.listdir(tmp_path / "elsewhere") == []
    assert list_session_ids(tmp_path / "here" / directory) == ["s"]


@needs_root
@pytest.mark.parametrize("locked", [True, False], ids=["with its lock", "without a lock"])
def test_another_users_session_is_an_error_and_hinders_no_other(public: Path, locked: bool) -> None:
    directory = public / "sessions"
    save_session(Session("good", "agent"), directory)
    path = save_session(Session("odd", "agent"), directory)
    if not locked:
        (directory / "odd.json.lock").unlink()
    directory.chmod(0o777)
    for name in ("good.json", "good.json.lock"):
        os.chown(directory / name, NOBODY, NOBODY)
    before = path.read_bytes(), path.stat().st_ino
    seen = visit(directory, as_user=NOBODY)

    for name in ON_THE_SESSION:
        assert seen[name][:2] == ["SessionIOError", errno.EACCES], name
    assert sorted(seen["list_ids"][2]) == ["good", "odd"]
    for name in ("infos", "infos of agent", "list_for_agent", "load_sessions_for_agent"):
        assert seen[name][:2] == ["SessionIOError", errno.EACCES], name
    assert [seen[name][2] for name in SKIPPING] == [["good"]] * 3
    assert seen["load good"][0] == seen["save good"][0] == "fine"
    assert (path.read_bytes(), path.stat().st_ino) == before


@needs_root
@pytest.mark.parametrize("locked", [True, False], ids=["with locks", "without locks"])
def test_a_directory_that_cannot_be_written_can_be_read(public: Path, locked: bool) -> None:
    directory = public / "sessions"
    for name in ("good", "odd"):
        save_session(Session(name, "agent"), directory)
        os.chown(directory / f"{name}.json", NOBODY, NOBODY)
        os.chown(directory / f"{name}.json.lock", NOBODY, NOBODY)
        if not locked:
            (directory / f"{name}.json.lock").unlink()
    (directory / "odd.json.tmp.1.2").touch()
    directory.chmod(0o555)
    before = tree_of(directory)
    seen = visit(directory, as_user=NOBODY)

    for name in (*(name for name in ON_THE_SESSION if "load" not in name), "save good"):
        if name != "save absent":
            assert seen[name][:2] == ["SessionIOError", errno.EACCES], name
    assert seen["save absent"][0] == ("SessionExistsError" if locked else "SessionIOError")
    for name in ("load", "load_session", "exists", "load good", *LISTINGS):
        assert seen[name][0] == "fine", name
    for name in LISTINGS:
        assert sorted(seen[name][2]) == ["good", "odd"], name
    assert tree_of(directory) == before


@needs_root
def test_session_files_that_nobody_may_write_to_can_be_appended_to(public: Path) -> None:
    directory = public / "sessions"
    directory.mkdir()
    os.chown(directory, NOBODY, NOBODY)
    program = f"""
import asyncio, os, portalocker
from phi_sessions import FileSystemSessionStore, LoopRecord, Session
os.setgid({NOBODY})
os.setuid({NOBODY})

async def main():
    async with FileSystemSessionStore({str(directory)!r}, mode=0o440) as store:
        await store.save(Session("s", "agent"))
        for name in ("a", "b", "c"):
            await store.append("s", LoopRecord(name, "s", "agent"))
        print((await store.load("s")).loops.ids())

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=40, check=False
    )
    assert done.stdout == "['a', 'b', 'c']\n", done.stderr
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in directory.iterdir()}
    assert modes == {"s.json": "0o440", "s.json.lock": "0o600", "s.json.log": "0o640"}


@needs_root
def test_a_directory_above_may_be_closed_to_who_uses_the_sessions(public: Path) -> None:
    closed = public / "closed"
    directory = closed / "sessions"
    save_session(Session("good", "agent"), directory)
    closed.chmod(0o711)
    for path in (directory, *directory.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    seen = visit(directory, as_user=NOBODY)
    changes = ("save", "save anything", "delete", "save_session", "delete_session", "save good")
    assert kinds(seen, changes) == all_are("fine", changes)


@needs_root
def test_a_directory_that_is_closed_to_us_is_an_error_and_not_an_empty_one(public: Path) -> None:
    directory = public / "sessions"
    for name in ("good", "odd"):
        save_session(Session(name, "agent"), directory)
    directory.chmod(0o700)
    before = tree_of(directory)
    seen = visit(directory, as_user=NOBODY)
    assert {name: (kind, number) for name, (kind, number, *_) in seen.items()} == dict.fromkeys(
        seen, ("SessionIOError", errno.EACCES)
    )
    assert tree_of(directory) == before


async def test_a_time_of_change_beyond_every_calendar_does_not_break_listings() -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("tmpfs, which keeps such times, is not at /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        for name in ("far", "near"):
            save_session(Session(name, "agent"), directory)
        os.utime(Path(directory, "far.json"), (2**40, 2**40))
        async with FileSystemSessionStore(directory) as store:
            assert await store.list_ids() == ["far", "near"]
            assert [info.session_id async for info in store.infos()] == ["far", "near"]
            assert [s.session_id for s in await store.list_for_agent("agent")] == ["far", "near"]


async def test_files_that_come_and_go_while_it_runs_raise_only_documented_errors(
    sessions: Path,
) -> None:
    path = sessions / "odd.json"
    sound = save_session(Session("odd", "agent"), sessions).read_bytes()
    deadline = time.monotonic() + 0.3
    async with FileSystemSessionStore(sessions) as store:
        while time.monotonic() < deadline:
            for make in (_dangling_link, os.mkfifo, _file):
                path.unlink(missing_ok=True)
                make(path)
                with pytest.raises((SessionIOError, ValueError)):
                    await store.load("odd")
            path.unlink()
            path.write_bytes(sound)
            assert (await store.load("odd")).session_id == "odd"
