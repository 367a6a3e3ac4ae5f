"""When `append` has returned, a power cut cannot undo it, and it costs one fdatasync."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path

import pytest
from conftest import scaled
from crash_children import KILLED
from crash_mounts import cut_the_power, disk, make_image
from crash_sessions import ID
from crash_tails import NEW, TailChildren, copied, loop, prepare_scene, stored_loops
from crash_trace import Call, about, needs_strace, record
from power_cut_model import ABSENT, Disk

from phi_sessions import FileSystemSessionStore, LoopRecord, Session, save_session

OLD = "the old session"
TAIL = "the old tail"


@pytest.fixture(scope="module")
def children() -> Iterator[TailChildren]:
    with TailChildren() as made:
        yield made


class Scene:
    """A directory on a disk that the power may be cut of, and what may then be found there."""

    def __init__(self, children: TailChildren, job: str, top: Path) -> None:
        self._children = children
        self.top = top
        self.directory = top / "sessions"
        self.session = self.directory / f"{ID}.json"
        self.tail = self.directory / f"{ID}.json.log"
        prepare_scene(job, self.directory)
        named = {self.session: OLD, self.tail: TAIL}
        existing = {
            path: named.get(path, "directory" if path.is_dir() else "lock")
            for path in top.rglob("*")
        }
        self.disk = Disk(top, existing)

    def calls(self, job: str) -> list[Call]:
        """Do a job, and return the calls that were made before it returned."""
        recorded = record(self._children, job, self.directory, store=True)
        assert (recorded.status, recorded.said["error"]) == (0, None)
        calls = about(recorded.calls, self.top)
        assert sum(call.has_returned for call in calls) == 1
        return list(takewhile(lambda call: not call.has_returned, calls))

    @property
    def may_lose_the_tail(self) -> bool:
        """Whether a power cut now may leave the old session file without its tail."""
        return OLD in self.disk.may_leave(self.session) and ABSENT in self.disk.may_leave(self.tail)


@needs_strace
@pytest.mark.parametrize("job", ["start a tail", "append", "save to the tail"])
def test_an_append_that_has_returned_survives_a_power_cut(
    children: TailChildren, tmp_path: Path, job: str
) -> None:
    scene = Scene(children, job, tmp_path / "place")
    calls = scene.calls(job)
    scene.disk.replay(calls)
    assert stored_loops(scene.directory) is not None
    assert scene.disk.may_leave(scene.tail) == {scene.disk.holds(scene.tail)}
    assert scene.disk.may_leave(scene.session) == {OLD}
    assert [call for call in calls if _writes(call) and call.paths[0] == str(scene.tail)]


@needs_strace
@pytest.mark.parametrize("job", ["save over a tail", "compact", "fold"])
def test_a_tail_goes_only_after_the_session_file_that_took_it_in_is_safe(
    children: TailChildren, tmp_path: Path, job: str
) -> None:
    scene = Scene(children, job, tmp_path / "place")
    calls = scene.calls(job)
    for call in calls:
        scene.disk.do(call)
        assert not scene.may_lose_the_tail, call
    assert scene.disk.holds(scene.tail) is None
    assert scene.disk.may_leave(scene.session) == {scene.disk.holds(scene.session)} != {OLD}
    names = [call.name for call in calls if not call.failed]
    renamed = next(n for n, name in enumerate(names) if name.startswith("rename"))
    assert "fsync" in names[renamed : names.index("unlink", renamed)]


@needs_strace
def test_the_model_would_notice_a_tail_that_went_too_early(
    children: TailChildren, tmp_path: Path
) -> None:
    scene = Scene(children, "compact", tmp_path / "place")
    calls = scene.calls("compact")
    unlink = next(c for c in calls if c.name == "unlink" and c.paths[0] == str(scene.tail))
    for call in [unlink, *(c for c in calls if c is not unlink)]:
        scene.disk.do(call)
        if scene.may_lose_the_tail:
            return
    pytest.fail("the model does not notice")


@needs_strace
def test_an_append_to_a_tail_whose_starter_died_survives_a_power_cut(
    children: TailChildren, tmp_path: Path
) -> None:
    scene = Scene(children, "start a tail", tmp_path / "place")
    started = scene.calls("start a tail")
    # It died between writing the line and syncing the directory.
    written = max(n for n, call in enumerate(started) if _writes(call))
    scene.disk.replay(started[: written + 1])
    scene.disk.replay(scene.calls("append"))
    assert (stored_loops(scene.directory) or [])[-1] == NEW
    assert scene.disk.may_leave(scene.tail) == {scene.disk.holds(scene.tail)}


@needs_strace
@pytest.mark.parametrize("job", ["append", "repair", "delete"])
def test_a_tail_that_a_dead_process_took_in_goes_only_when_that_is_safe(
    children: TailChildren, tmp_path: Path, job: str
) -> None:
    scene = Scene(children, "compact", tmp_path / "place")
    copied(scene.directory, tmp_path / "copy")
    compacted = scene.calls("compact")
    renamed = next(n for n, call in enumerate(compacted) if call.name.startswith("rename"))
    scene.disk.replay(compacted[: renamed + 1])
    copied(tmp_path / "copy", scene.directory)
    _, said = children.run("compact", copied(scene.directory, tmp_path / "s"), store=True)
    replace = said["operations"].index("replace")
    status, _ = children.run(
        "compact", scene.directory, store=True, operation=replace, moment="after"
    )
    assert status == KILLED
    assert scene.tail.exists()
    for call in scene.calls(job):
        scene.disk.do(call)
        assert not scene.may_lose_the_tail, call


@needs_strace
@pytest.mark.parametrize("job", ["append", "save to the tail"])
def test_an_append_is_one_fdatasync_and_little_more_than_its_record(
    children: TailChildren, tmp_path: Path, job: str
) -> None:
    scene = Scene(children, job, tmp_path / "place")
    calls = [call for call in scene.calls(job) if not call.failed]
    syncs = [call for call in calls if call.name in ("fsync", "fdatasync", "sync", "syncfs")]
    # The first save of a store makes sure once that its directory is there.
    syncs = [call for call in syncs if call.paths != [str(scene.top)]]
    assert [(call.name, call.paths) for call in syncs] == [("fdatasync", [str(scene.tail)])]
    written = [call for call in calls if _writes(call)]
    assert {path for call in written for path in call.paths} == {str(scene.tail)}
    assert sum(int(call.result) for call in written) <= _size_of_record(tmp_path / "sizes") + 512
    changes = ("rename", "unlink", "mkdir", "link", "truncate", "ftruncate")
    assert not [str(call) for call in calls if call.name.startswith(changes)]


async def test_acknowledged_appends_survive_a_power_cut(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    make_image(image)
    with disk(image, tmp_path / "disk") as place:
        async with FileSystemSessionStore(place / "sessions") as store:
            await store.save(Session(ID, "agent"))
            for number in range(scaled(20)):
                await store.append(ID, loop(f"loop-{number}"))
                if number == 9:
                    await store.compact(ID)
            cut_the_power(place)
    with disk(image, tmp_path / "disk") as place:
        assert stored_loops(place / "sessions") == [f"loop-{n}" for n in range(scaled(20))]


LARGE = "x" * 20_000


@pytest.mark.parametrize("change", ["append", "save", "compacted"])
@pytest.mark.parametrize("tail", [False, True], ids=["without a tail", "with a tail"])
async def test_what_is_added_to_a_session_of_a_store_without_fsync_survives_a_power_cut(
    tmp_path: Path, change: str, tail: bool
) -> None:
    image = tmp_path / "disk.img"
    make_image(image)
    loops = [LoopRecord(f"{n}", ID, "agent", metadata={"x": LARGE}) for n in range(5)]
    with disk(image, tmp_path / "disk") as place:
        async with (
            FileSystemSessionStore(place, fsync=False) as hasty,
            FileSystemSessionStore(place) as store,
        ):
            await store.save(Session("other", "agent"))
            await hasty.save(Session(ID, "agent", loops=loops))
            if tail:
                await hasty.append(ID, loop("hasty"))
            if change == "save":
                session = await store.load(ID)
                session.loops.append(loop(NEW))
                await store.save(session)
            else:
                await store.append(ID, loop(NEW))
                await store.append(ID, loop("newer"))
            if change == "compacted":
                await hasty.compact(ID)
            expected = (await store.load(ID)).loops.ids()
            cut_the_power(place)
    with disk(image, tmp_path / "disk") as place:
        assert stored_loops(place) == expected


async def test_a_store_without_fsync_waits_for_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int) -> None:
        pytest.fail("it waits")

    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr(os, "fdatasync", refuse)
    for indent in (None, 2):
        async with FileSystemSessionStore(tmp_path, fsync=False, indent=indent) as store:
            session = Session(ID, "agent")
            for number in range(5):
                session.loops.append(LoopRecord(f"{number}", ID, "agent", metadata={"x": LARGE}))
                await store.save(session)
                await store.append(session, loop(f"{number} appended"))
            await store.compact(ID)
            await store.delete(ID)


async def test_an_append_in_a_directory_that_another_made_makes_sure_of_that_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    async with FileSystemSessionStore(tmp_path / "new", fsync=False) as hasty:
        await hasty.save(Session(ID, "agent"))
    monkeypatch.setattr(os, "fsync", fsync)
    async with FileSystemSessionStore(tmp_path / "new") as store:
        for number in range(3):
            await store.append(ID, loop(f"{number}"))
    assert synced.count(str(tmp_path)) == 1


def _writes(call: Call) -> bool:
    is_write: Callable[[str], bool] = {"write", "writev", "pwrite64"}.__contains__
    return is_write(call.name) and not call.failed


def _size_of_record(directory: Path) -> int:
    session = Session(ID, "agent")
    session.loops.append(loop(NEW))
    indented = save_session(session, directory).read_text()
    lines = indented[indented.index('"loops"') :].splitlines()
    return sum(len(line.strip()) for line in lines)
