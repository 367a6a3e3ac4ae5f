"""An error in the middle of a group is told to those whose it is, and to nobody else."""

from __future__ import annotations

import errno
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from crash_sessions import in_flight, lock_is_free
from crash_tails import copied, loop
from descriptors import none_left
from group_children import start
from group_scenes import (
    BEFORE,
    DONE,
    GROUP,
    GROUP_IDS,
    Journal,
    Operation,
    changes,
    in_one_group,
    kind_of,
    lock_names,
    opened,
    prepare,
    session,
    stored,
)

from phi_sessions import (
    FileSystemSessionStore,
    SaveOutcomeUnknownError,
    SessionIOError,
    load_session,
    save_session,
)
from phi_sessions.stores.filesystem.flush import Flush

HARMLESS = {"close", "unlock", "fstat"}
"""Operations after whose failure a call may still have done what it promises."""


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty directory, in memory where there is such a place: no error here is a disk's own."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as made:
        yield Path(made)


class Scene:
    """A group in which something goes wrong, in a place of its own."""

    def __init__(self, template: Path, directory: Path) -> None:
        self.directory = copied(template, directory)
        self.results: dict[str, Any] = {}
        self.operations: list[Operation] = []

    async def run(self, before: Callable[[Operation], None] | None) -> None:
        """Have all changes made in one group, with `before` called at each operation."""
        with none_left():
            async with opened(self.directory) as store:
                await store.save(session("first"))  # the thread runs, the directory is known
                with Journal(before) as journal:
                    self.results = await in_one_group(store, journal, changes(store, GROUP))
                self.operations = journal.operations
                held = [name for name in lock_names(self.directory) if not self.is_free(name)]
                assert held == [], "while the errors are kept"

    def is_free(self, session_id: str) -> bool:
        return lock_is_free(self.directory, session_id)

    def failed(self, kind: type[Exception] = Exception) -> set[str]:
        return {name for name, result in self.results.items() if isinstance(result, kind)}

    async def wrong_afterwards(self) -> list[str]:
        """Hold what is stored against what was told; then change every session once more."""
        wrong: list[str] = []
        async with FileSystemSessionStore(self.directory, lock_timeout=1) as store:
            for name, result in self.results.items():
                found = await stored(store, name)
                if found not in _may_be_stored(kind_of(name), result):
                    wrong.append(f"{name}: {found} is stored, it was told {result!r}")
                following = await store.find(name) or session(name)
                following.loops.append(loop("then", session_id=name))
                await store.save(following)
                await store.append(name, loop("last", session_id=name))
                if await stored(store, name) != [*(found or []), "then", "last"]:
                    wrong.append(f"{name}: {await stored(store, name)} after two more changes")
            kinds = {str(finding.kind) for finding in await store.check(repair=True)}
            if kinds - {"leftover"}:
                wrong.append(f"a check finds {kinds}")
            await store.list_ids()
        return wrong + in_flight(self.directory)


def _may_be_stored(kind: str, result: Any) -> list[list[str] | None]:
    """Return what may be stored after a change of a kind that was told `result`."""
    old, new = BEFORE[kind], DONE.get(kind)
    if isinstance(result, SaveOutcomeUnknownError) or not isinstance(result, Exception):
        return [new]
    return [old] if isinstance(result, SessionIOError) else [old, new]


@pytest.fixture
async def template(place: Path) -> Path:
    async with opened(place / "template") as store:
        await prepare(store, GROUP)
    return place / "template"


@pytest.mark.parametrize("kind", [OSError, MemoryError])
async def test_a_failing_operation_in_a_group_fails_the_call_whose_it_is_alone(
    template: Path, kind: type[Exception]
) -> None:
    counted = Scene(template, template.with_name("s"))
    await counted.run(None)
    assert counted.failed() == set()
    wrong: list[str] = []
    seen: Counter[Target] = Counter()
    for operation in counted.operations:
        seen[target_of(operation)] += 1
        # One of the directory's flushes fails all who share it: that is another test's.
        if operation.brings_entries or not is_tried(operation, kind):
            continue
        fail = FailAt(operation, seen[target_of(operation)], kind)
        scene = Scene(template, template.with_name("s"))
        await scene.run(fail)
        problems = await scene.wrong_afterwards()
        owner = operation.session_id
        failed = scene.failed()
        if len(failed) > 1 or (owner is not None and failed - {owner}):
            problems.append(f"it fails {failed}")
        for error in [result for result in scene.results.values() if isinstance(result, Exception)]:
            if not isinstance(error, SessionIOError if kind is OSError else kind):
                problems.append(f"it is told as {error!r}")
        if not failed and not may_pass(operation, kind):
            problems.append("it is not told")
        wrong += [f"{operation}: {problem}" for problem in problems]
    assert not wrong, "\n".join(wrong)


Target = tuple[str | None, str]


def target_of(operation: Operation) -> Target:
    return operation.session_id, operation.name


class FailAt:
    """Fails one operation, told by whose it is: who is before whom in a group is not settled."""

    def __init__(self, operation: Operation, count: int, kind: type[Exception]) -> None:
        self._target = target_of(operation)
        self._left = count
        self._kind = kind

    def __call__(self, operation: Operation) -> None:
        if target_of(operation) == self._target:
            self._left -= 1
            if self._left == 0:
                raise self._kind(errno.EIO, "broken")


def is_tried(operation: Operation, kind: type[Exception]) -> bool:
    """Whether there is a point in failing an operation: what is alike is tried once."""
    if operation.session_id is not None and operation.session_id.endswith("1"):
        return False
    told_apart = {"open", "write", "fsync", "fdatasync", "replace", "lock"}
    return kind is OSError or operation.name in told_apart


def may_pass(operation: Operation, kind: type[Exception]) -> bool:
    """Whether a change can be made in spite of the failure of an operation."""
    folds = operation.name == "fdatasync" and kind is OSError
    takes_a_tail_away = operation.name == "unlink" and operation.path.endswith(".log")
    return operation.name in HARMLESS or folds or takes_a_tail_away


@pytest.mark.parametrize("mends", [True, False], ids=["the-fold-is-kept", "the-fold-fails-too"])
async def test_a_failing_fdatasync_in_a_group_is_mended_or_told_for_that_session_alone(
    template: Path, mends: bool
) -> None:
    def broken(operation: Operation) -> None:
        is_its_own = operation.session_id == "append-1" and operation.is_sync
        if is_its_own and (operation.name == "fdatasync" or not mends):
            raise OSError(errno.EIO, "broken")

    scene = Scene(template, template.with_name("s"))
    await scene.run(broken)
    assert scene.failed() == (set() if mends else {"append-1"})
    assert scene.failed(SaveOutcomeUnknownError) == scene.failed()
    folded = [o.session_id for o in scene.operations if o.name == "replace" and o.ended]
    assert ("append-1" in folded) is mends
    assert await scene.wrong_afterwards() == []


@pytest.mark.parametrize(
    ("which", "unknown", "refused"),
    [(0, {"delete"}, set()), (1, {"save", "create"}, {"start"})],
    ids=["of-deletions", "of-files-replaced-and-begun"],
)
async def test_a_failing_flush_of_the_directory_is_told_to_those_whose_entries_it_was_to_bring(
    template: Path, which: int, unknown: set[str], refused: set[str]
) -> None:
    flushes = 0

    def broken(operation: Operation) -> None:
        nonlocal flushes
        if operation.brings_entries:
            flushes += 1
            if flushes == which + 1:
                raise OSError(errno.EIO, "broken")

    scene = Scene(template, template.with_name("s"))
    await scene.run(broken)
    assert scene.failed(SaveOutcomeUnknownError) == {n for n in GROUP_IDS if kind_of(n) in unknown}
    told = scene.failed(SessionIOError) - scene.failed(SaveOutcomeUnknownError)
    assert told == {n for n in GROUP_IDS if kind_of(n) in refused}
    assert scene.failed() == scene.failed(SessionIOError)
    assert await scene.wrong_afterwards() == []


def test_a_group_takes_no_descriptors_that_are_not_there(tmp_path: Path) -> None:
    process = start("few", tmp_path / "s")
    try:
        _, said = process.communicate(timeout=100)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, said) == (0, "")


@pytest.mark.parametrize("which", [0, 1, 2], ids=["parent", "file", "directory"])
def test_an_interrupted_function_has_given_the_lock_back_while_its_traceback_is_kept(
    place: Path, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    save_session(session("s", "0"), place)
    real, calls = os.fsync, itertools.count()

    def interrupted(fd: int) -> None:
        if next(calls) == which:
            raise KeyboardInterrupt
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt) as kept:
            save_session(session("s", "1"), place)
    assert kept.tb is not None
    assert lock_is_free(place, "s")
    assert in_flight(place) == []
    assert load_session("s", place).loops.ids() == (["1"] if which == 2 else ["0"])
    save_session(session("s", "2"), place)


def test_an_interrupt_before_the_wait_for_the_disk_gives_the_lock_back_as_well(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_session(session("s", "0"), place)

    def interrupted(flush: Flush) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Flush, "attempt", interrupted)
        with pytest.raises(KeyboardInterrupt) as kept:
            save_session(session("s", "1"), place)
    assert kept.tb is not None
    assert lock_is_free(place, "s")
    assert in_flight(place) == []
    assert load_session("s", place).loops.ids() == ["0"]
