"""What dead writers left in flight is removed by a listing; what the living write is not."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import scaled
from crash_children import Children, prepare
from crash_sessions import ID, contents, in_flight, stored, version
from crash_trace import about, needs_strace, record

from phi_sessions import (
    FileSystemSessionStore,
    list_session_ids,
    load_sessions_for_agent,
    save_session,
)

needs_flock = pytest.mark.skipif(shutil.which("flock") is None, reason="flock is not installed")


async def _all_infos(store: FileSystemSessionStore) -> object:
    return [info async for info in store.infos()]


def _leave(directory: Path, session_id: str, count: int) -> list[Path]:
    paths = [directory / f"{session_id}.json.tmp.{4_000_000}.{n}" for n in range(count)]
    for path in paths:
        path.write_text("{")
    return paths


@contextmanager
def _held(directory: Path, session_id: str) -> Iterator[None]:
    """Hold a session's lock with the program `flock`, as another process that saves does."""
    lock = directory / f"{session_id}.json.lock"
    holder = subprocess.Popen(
        ["flock", "--exclusive", str(lock), "sh", "-c", "echo held; read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield
    finally:
        holder.communicate(timeout=30)


@pytest.mark.parametrize(
    "listing",
    [
        FileSystemSessionStore.list_ids,
        lambda store: store.list_for_agent("agent-1"),
        _all_infos,
    ],
    ids=["list_ids", "list_for_agent", "infos"],
)
async def test_each_listing_removes_leftovers(
    tmp_path: Path, listing: Callable[[FileSystemSessionStore], Awaitable[object]]
) -> None:
    save_session(version(1), tmp_path)
    _leave(tmp_path, ID, 2)
    async with FileSystemSessionStore(tmp_path) as store:
        await listing(store)
    assert in_flight(tmp_path) == []
    assert stored(tmp_path) == contents(version(1))


def test_each_older_function_that_lists_removes_leftovers(tmp_path: Path) -> None:
    save_session(version(1), tmp_path)
    _leave(tmp_path, ID, 2)
    assert list_session_ids(tmp_path) == [ID]
    assert in_flight(tmp_path) == []
    _leave(tmp_path, ID, 2)
    assert [contents(s) for s in load_sessions_for_agent("agent-1", tmp_path)] == [
        contents(version(1))
    ]
    assert in_flight(tmp_path) == []


async def test_a_thousand_leftovers_of_many_sessions_are_removed(tmp_path: Path) -> None:
    for number in range(10):
        save_session(version(number, session_id=f"s-{number}"), tmp_path)
    for number in range(20):  # half of them without a session
        _leave(tmp_path, f"s-{number}", scaled(50))
    _leave(tmp_path, "%2E%2E", 1)
    async with FileSystemSessionStore(tmp_path) as store:
        assert sorted(await store.list_ids()) == [f"s-{number}" for number in range(10)]
    assert in_flight(tmp_path) == []
    for number in range(10):
        session_id = f"s-{number}"
        assert stored(tmp_path, session_id) == contents(version(number, session_id=session_id))


async def test_files_that_only_look_alike_stay(tmp_path: Path) -> None:
    names = [
        *("notes.txt", "s.json.tmp", "s.json.tmp.1", "s.json.tmp.1.2.bak", "s.tmp.1.2"),
        *("s.json.tmp.a.1", "s.json.tmp.1.a", ".json.tmp.1.2", "~.json.tmp.1.2", "s.json.bak"),
    ]
    save_session(version(1), tmp_path)
    for name in names:
        (tmp_path / name).touch()
    async with FileSystemSessionStore(tmp_path) as store:
        assert await store.list_ids() == [ID]
    assert set(os.listdir(tmp_path)) == {*names, "s.json", "s.json.lock"}


@needs_flock
async def test_what_a_living_writer_has_in_flight_stays(tmp_path: Path) -> None:
    for session_id in ("living", "dead"):
        save_session(version(1, session_id=session_id), tmp_path)
        _leave(tmp_path, session_id, 3)
    async with FileSystemSessionStore(tmp_path) as store:
        with _held(tmp_path, "living"):
            assert len(await store.list_ids()) == 2
            assert len(in_flight(tmp_path)) == 3
            assert all(name.startswith("living.json.tmp.") for name in in_flight(tmp_path))
        await store.list_ids()  # the writer is dead now
    assert in_flight(tmp_path) == []


async def test_one_leftover_that_cannot_be_removed_does_not_keep_the_others(
    tmp_path: Path,
) -> None:
    save_session(version(1), tmp_path)
    _leave(tmp_path, ID, 20)
    stubborn = {f"{ID}.json.tmp.1.{number}" for number in range(20)}
    for name in stubborn:
        (tmp_path / name).mkdir()
    async with FileSystemSessionStore(tmp_path) as store:
        assert await store.list_ids() == [ID]
    assert set(in_flight(tmp_path)) == stubborn


@needs_strace
@pytest.mark.parametrize("store", [False, True], ids=["function", "store"])
def test_leftovers_are_removed_only_between_lock_and_unlock(tmp_path: Path, store: bool) -> None:
    directory = prepare("save", tmp_path / "place")
    left = {str(path) for name in (ID, "t") for path in _leave(directory, name, 3)}
    with Children() as children:
        calls = about(record(children, "list", directory, store=store).calls, directory)
    held: set[str] = set()
    removed: set[str] = set()
    for call in calls:
        if call.takes_lock and not call.failed:
            held.add(call.paths[0])
        elif call.name == "flock":
            held.discard(call.paths[0])
        elif call.name == "unlink":
            session, _, _ = call.paths[0].partition(".tmp.")
            assert f"{session}.lock" in held, call
            removed.add(call.paths[0])
    assert removed == left
    assert held == set()
