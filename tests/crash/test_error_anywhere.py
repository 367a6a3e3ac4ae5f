"""An error of the system at any file operation is told, and leaves nothing behind."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from crash_children import prepare
from crash_faults import Operations, Runaway, fail_at, only_count
from crash_sessions import ID, contents, in_flight, lock_is_free, say, stored, version
from descriptors import none_left

from phi_sessions import (
    FileSystemSessionStore,
    SaveOutcomeUnknownError,
    Session,
    SessionIOError,
    delete_session,
    list_session_ids,
    load_session,
    save_session,
)

ERRORS = ["EIO", "ENOSPC", "EMFILE", "EACCES", "EROFS", "EDQUOT", "EINTR"]
CHANGES = ["save", "first save", "delete"]
BECOMES_VISIBLE = {"save": "replace", "first save": "replace", "delete": "unlink"}
HARMLESS = {"close", "unlock"}
"""Operations after whose failure a call may still have done what it promises: nothing was written
through most descriptors that are closed, and closing gives a lock back too."""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """An empty directory, in memory where there is such a place: no error here is a disk's own."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(prefix="phi-sessions-", dir=memory) as made:
        yield Path(made)


class Scene:
    """One call, in a place of its own, through the store or the function."""

    def __init__(self, job: str, top: Path, *, store: bool) -> None:
        self.job = job
        self.directory = prepare(job, top)
        self.session = version(2)
        self.operations: list[str] = []
        self._top = top
        self._store = store

    async def call(self, action: Callable[..., object]) -> BaseException | None:
        """Make the call and return what it raised."""
        error: BaseException | None = None
        with none_left():
            try:
                if self._store:
                    await self._through_the_store(action)
                else:
                    with Operations(action) as operations:
                        self.operations = operations.names
                        self._through_the_function()
            except (Exception, KeyboardInterrupt, Runaway) as raised:
                error = raised.with_traceback(None)
        return error

    async def _through_the_store(self, action: Callable[..., object]) -> None:
        async with FileSystemSessionStore(self.directory, lock_timeout=0.3, workers=1) as store:
            with Operations(action, worker_threads=True) as operations:
                self.operations = operations.names
                if self.job == "delete":
                    await store.delete(ID)
                else:
                    await store.save(self.session)

    def _through_the_function(self) -> None:
        if self.job == "delete":
            delete_session(ID, self.directory)
        else:
            save_session(self.session, self.directory)

    def wrong_with_the_outcome(
        self, error: BaseException | None, number: int, *, for_good: bool
    ) -> list[str]:
        """Hold what happened against the promise, given that operation `number` failed."""
        wrong: list[str] = []
        visible = BECOMES_VISIBLE[self.job]
        was_visible = visible in self.operations[:number]
        old = None if self.job == "first save" else contents(version(1))
        new = None if self.job == "delete" else contents(version(2))
        expected = old if error is not None and not was_visible else new
        found = stored(self.directory)
        if found != expected:
            wrong.append(f"{error!r}, but {say(found)} is stored")
        if self.job != "delete" and (self.session.revision is not None) is not (found == new):
            wrong.append(f"{say(found)} is stored, but the revision is {self.session.revision}")
        # When everything fails from there on, the temporary file cannot be removed either.
        if in_flight(self.directory) and not ("unlink" in self.operations[number:] and for_good):
            wrong.append(f"left {in_flight(self.directory)}")
        if not lock_is_free(self.directory):
            wrong.append("the lock is held")
        return wrong

    def wrong_afterwards(self) -> list[str]:
        """Return what is wrong with the next save, of the same session object."""
        wrong: list[str] = []
        following: Session = self.session if self.job != "delete" else version(3)
        following.metadata = {"version": "following"}
        save_session(following, self.directory)
        if stored(self.directory) != contents(following):
            wrong.append("the next save is not what is stored")
        if list_session_ids(self.directory) != [ID] or in_flight(self.directory):
            wrong.append("the next listing is wrong or leaves something")
        return wrong

    def clear(self) -> None:
        shutil.rmtree(self._top)


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "from-there-on"])
@pytest.mark.parametrize("store", [False, True], ids=["function", "store"])
@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("job", CHANGES)
async def test_an_error_at_any_operation_is_told_and_leaves_nothing(
    place: Path, job: str, name: str, store: bool, for_good: bool
) -> None:
    number = getattr(errno, name)
    make_error = partial(OSError, number, os.strerror(number))
    wrong: list[str] = []
    for target, operation in enumerate(await _operations(place / "counted", job, store=store)):
        scene = Scene(job, place / "failing", store=store)
        error = await scene.call(fail_at(target, make_error, for_good=for_good))
        problems = scene.wrong_with_the_outcome(error, target, for_good=for_good)
        was_visible = BECOMES_VISIBLE[job] in scene.operations[:target]
        if error is None:
            probing = operation == "stat" and job == "first save" and not for_good
            if operation not in HARMLESS and not probing:
                problems.append("the error is not told")
        elif not isinstance(error, SessionIOError):
            problems.append(f"it is told as {error!r}")
        elif error.errno != number or error.session_id != ID:
            problems.append(f"it is told as errno {error.errno} of {error.session_id}")
        elif isinstance(error, SaveOutcomeUnknownError) is not was_visible:
            problems.append(
                f"it is told as {error!r}, though the change can be seen: {was_visible}"
            )
        problems += scene.wrong_afterwards()
        wrong += [f"{name} at {operation} (operation {target}): {p}" for p in problems]
        scene.clear()
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("kind", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("job", CHANGES)
async def test_what_is_no_error_of_the_system_leaves_nothing_either(
    place: Path, job: str, kind: type[BaseException]
) -> None:
    wrong: list[str] = []
    for target, operation in enumerate(await _operations(place / "counted", job, store=False)):
        scene = Scene(job, place / "failing", store=False)
        error = await scene.call(fail_at(target, kind))
        problems = scene.wrong_with_the_outcome(error, target, for_good=False)
        if not isinstance(error, kind):
            problems.append(f"it is told as {error!r}")
        problems += scene.wrong_afterwards()
        wrong += [f"{kind.__name__} at {operation} (operation {target}): {p}" for p in problems]
        scene.clear()
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("job", CHANGES)
async def test_running_out_of_memory_in_a_worker_leaves_nothing(place: Path, job: str) -> None:
    wrong: list[str] = []
    for target, operation in enumerate(await _operations(place / "counted", job, store=True)):
        scene = Scene(job, place / "failing", store=True)
        error = await scene.call(fail_at(target, MemoryError))
        problems = scene.wrong_with_the_outcome(error, target, for_good=False)
        if not isinstance(error, MemoryError):
            problems.append(f"it is told as {error!r}")
        problems += scene.wrong_afterwards()
        wrong += [f"MemoryError at {operation} (operation {target}): {p}" for p in problems]
        scene.clear()
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "from-there-on"])
@pytest.mark.parametrize("call", [load_session, list_session_ids])
def test_an_error_while_reading_is_told(
    place: Path, call: Callable[..., object], for_good: bool
) -> None:
    directory = prepare("save", place / "place")
    arguments = (directory,) if call is list_session_ids else (ID, directory)
    changed = time.time() + 3600  # it counts as under change, however long the test takes
    os.utime(directory, (changed, changed))
    with Operations(only_count) as operations:
        call(*arguments)
    for target, operation in enumerate(operations.names):
        broken = fail_at(target, lambda: OSError(errno.EIO, "broken"), for_good=for_good)
        with none_left(operation), Operations(broken):
            failing = operations.names[target:] if for_good else [operation]
            if set(failing) <= set(HARMLESS):
                call(*arguments)
                continue
            with pytest.raises(SessionIOError) as raised:
                call(*arguments)
        assert raised.value.errno == errno.EIO, operation
    assert stored(directory) == contents(version(1))


async def _operations(top: Path, job: str, *, store: bool) -> list[str]:
    scene = Scene(job, top, store=store)
    assert await scene.call(only_count) is None
    assert stored(scene.directory) == (None if job == "delete" else contents(version(2)))
    return scene.operations
