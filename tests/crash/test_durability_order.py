"""When `save` or `delete` has returned, a power cut cannot undo it; checked on traces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path

import pytest
from crash_children import KILLED, Children, prepare
from crash_sessions import ID, contents, stored, version
from crash_trace import Call, about, needs_strace, record
from power_cut_model import ABSENT, TORN, Disk

pytestmark = needs_strace
OLD = "the old session"


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    with Children() as made:
        yield made


@pytest.fixture(params=[False, True], ids=["function", "store"])
def store(request: pytest.FixtureRequest) -> bool:
    param: bool = request.param
    return param


class Scene:
    """A traced job and the disk that it was done to."""

    def __init__(
        self,
        children: Children,
        job: str,
        top: Path,
        *options: str,
        store: bool = False,
        fsync: bool = True,
    ) -> None:
        self.top = top
        self.directory = prepare(job, top)
        self.session = self.directory / f"{ID}.json"
        existing = {
            path: OLD if path == self.session else "directory" if path.is_dir() else "lock"
            for path in top.rglob("*")
        }
        self.recorded = record(children, job, self.directory, *options, store=store, fsync=fsync)
        self.calls = about(self.recorded.calls, top)
        self.disk = Disk(top, existing)

    @property
    def until_returned(self) -> list[Call]:
        """The calls that were made before the call under test returned."""
        assert (self.recorded.status, self.recorded.said["error"]) == (0, None)
        assert sum(call.has_returned for call in self.calls) == 1
        return list(takewhile(lambda call: not call.has_returned, self.calls))


@pytest.mark.parametrize("job", ["save", "first save"])
def test_a_save_that_has_returned_survives_a_power_cut(
    children: Children, tmp_path: Path, job: str, store: bool
) -> None:
    scene = Scene(children, job, tmp_path / "place", store=store)
    scene.disk.replay(scene.until_returned)
    new = scene.disk.holds(scene.session)
    assert new not in (None, OLD)
    assert scene.disk.may_leave(scene.session) == {new}


def test_a_power_cut_in_the_middle_of_a_save_leaves_the_old_or_the_new_state(
    children: Children, tmp_path: Path, store: bool
) -> None:
    scene = Scene(children, "save", tmp_path / "place", store=store)
    seen = []
    for call in scene.until_returned:
        scene.disk.do(call)
        seen.append(scene.disk.may_leave(scene.session))
    new = scene.disk.holds(scene.session)
    assert new is not None
    assert {frozenset(outcomes) for outcomes in seen} == {
        frozenset({OLD}),
        frozenset({OLD, new}),
        frozenset({new}),
    }


def test_a_delete_that_has_returned_survives_a_power_cut(
    children: Children, tmp_path: Path, store: bool
) -> None:
    scene = Scene(children, "delete", tmp_path / "place", store=store)
    scene.disk.replay(scene.until_returned)
    assert scene.disk.may_leave(scene.session) == {ABSENT}


def test_without_fsync_a_power_cut_may_undo_or_tear_a_save(
    children: Children, tmp_path: Path
) -> None:
    scene = Scene(children, "save", tmp_path / "place", store=True, fsync=False)
    scene.disk.replay(scene.until_returned)
    assert {OLD, TORN} <= scene.disk.may_leave(scene.session)
    assert not [call for call in scene.calls if call.name in ("fsync", "fdatasync")]


def _without(chosen: Callable[[Call], bool]) -> Callable[[list[Call]], list[Call]]:
    return lambda calls: [call for call in calls if not (_syncs(call) and chosen(call))]


def _renamed_first(calls: list[Call]) -> list[Call]:
    rename = next(call for call in calls if call.name == "rename")
    rest = [call for call in calls if call is not rename]
    sync = next(n for n, call in enumerate(rest) if _syncs(call) and ".tmp." in call.paths[0])
    return [*rest[:sync], rename, *rest[sync:]]


def _directory_synced_first(calls: list[Call]) -> list[Call]:
    sync = [call for call in calls if _syncs(call)][-1]
    rest = [call for call in calls if call is not sync]
    change = next(n for n, call in enumerate(rest) if call.name in ("rename", "unlink"))
    return [*rest[:change], sync, *rest[change:]]


def _syncs(call: Call) -> bool:
    return call.name == "fsync"


@pytest.mark.parametrize(
    ("job", "spoil"),
    [
        ("save", _without(lambda call: call.paths[0].endswith("/sessions"))),
        ("save", _without(lambda call: ".json.tmp." in call.paths[0])),
        ("save", _directory_synced_first),
        ("first save", _without(lambda call: call.paths[0].endswith("/nested"))),
        ("first save", _without(lambda call: call.paths[0].endswith("/and"))),
        ("first save", _without(lambda call: call.paths[0].endswith("/new"))),
        ("first save", _without(lambda call: call.paths[0].endswith("/place"))),
        ("delete", _without(lambda call: True)),
        ("delete", _directory_synced_first),
    ],
)
def test_the_model_reports_a_missing_or_early_fsync(
    children: Children, tmp_path: Path, job: str, spoil: Callable[[list[Call]], list[Call]]
) -> None:
    scene = Scene(children, job, tmp_path / "place")
    spoiled = spoil(scene.until_returned)
    assert spoiled != scene.until_returned
    scene.disk.replay(spoiled)
    assert len(scene.disk.may_leave(scene.session)) > 1


def test_the_model_reports_a_rename_before_the_fsync_of_the_file(
    children: Children, tmp_path: Path
) -> None:
    scene = Scene(children, "save", tmp_path / "place")
    torn = False
    for call in _renamed_first(scene.until_returned):
        if _syncs(call) and ".tmp." in call.paths[0]:
            break
        scene.disk.do(call)
        torn = torn or TORN in scene.disk.may_leave(scene.session)
    assert torn


@pytest.mark.parametrize("parent", [1, 2, 3])
def test_a_save_survives_though_an_earlier_writer_died_while_making_the_directory(
    children: Children, tmp_path: Path, parent: int
) -> None:
    scene = Scene(
        children, "first save", tmp_path / "place", f"--inject=fsync:signal=KILL:when={parent}"
    )
    assert scene.recorded.status == KILLED
    scene.disk.replay(scene.calls)
    assert scene.disk.may_leave(scene.session) == {ABSENT}

    following = record(children, "save", scene.directory)
    assert (following.status, following.said["error"]) == (0, None)
    scene.disk.replay(takewhile(lambda call: not call.has_returned, following.calls))
    assert stored(scene.directory) == contents(version(2))
    assert scene.disk.may_leave(scene.session) == {scene.disk.holds(scene.session)}


@pytest.mark.parametrize("parent", [1, 2, 3])
def test_a_save_survives_though_the_attempt_before_it_could_not_sync_a_new_parent(
    children: Children, tmp_path: Path, parent: int
) -> None:
    fault = f"--inject=fsync:error=EIO:when={parent}"
    scene = Scene(children, "first save again", tmp_path / "place", fault)
    scene.disk.replay(scene.until_returned)
    assert stored(scene.directory) == contents(version(2))
    assert scene.disk.may_leave(scene.session) == {scene.disk.holds(scene.session)}


def test_a_durable_save_is_one_lock_one_write_one_rename_and_two_fsyncs(
    children: Children, tmp_path: Path
) -> None:
    scene = Scene(children, "saves in a row", tmp_path / "place", store=True)
    returned = [place for place, call in enumerate(scene.calls) if call.has_returned]
    calls = scene.calls[returned[0] : returned[1]]
    syncs = [call.paths[0] for call in calls if call.name in ("fsync", "fdatasync", "syncfs")]
    writes = [call.paths[0] for call in calls if "write" in call.name]
    assert sum(call.takes_lock for call in calls) == 1
    assert sum(call.name.startswith("rename") for call in calls) == 1
    assert len(writes) == 1
    assert ".json.tmp." in writes[0]
    assert syncs == [writes[0], str(scene.directory)]


def test_a_load_and_a_listing_take_no_lock(children: Children, tmp_path: Path) -> None:
    for job in ("load", "list"):
        scene = Scene(children, job, tmp_path / job, store=True)
        assert [call for call in scene.until_returned if call.name == "openat"]
        assert not [call for call in scene.calls if call.name == "flock"]
