"""An error of the system at any file operation on a tail is told, and costs no append."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from conftest import SCALE
from crash_faults import fail_at, only_count
from crash_sessions import ID
from crash_tails import (
    JOBS,
    NEW,
    after,
    copied,
    loop,
    prepare,
    run,
    set_aside,
    stored_loops,
    visible_at,
    wrong_afterwards,
)
from descriptors import none_left

from phi_sessions import FileSystemSessionStore, SaveOutcomeUnknownError, SessionIOError

ERRORS = ["EIO", "ENOSPC", "EMFILE", "EACCES", "EROFS", "EDQUOT"]
HARMLESS = {"close", "unlock"}
"""Operations after whose failure a call may still have done what it promises."""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """An empty directory, in memory where there is such a place: no error here is a disk's own."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(prefix="phi-sessions-", dir=memory) as made:
        yield Path(made)


async def _call(
    job: str, directory: Path, action: Callable[..., object]
) -> tuple[BaseException | None, list[str]]:
    """Do a job; return what it raised and the operations that it began."""
    said: dict[str, Any] = {}
    error: BaseException | None = None
    with none_left():
        async with FileSystemSessionStore(directory, lock_timeout=0.3, workers=1) as store:
            try:
                await run(job, store, action, said)
            except Exception as raised:
                error = raised.with_traceback(None)
    return error, said["operations"]


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "from-there-on"])
@pytest.mark.parametrize("job", [job for job in JOBS if job != "repair"])
async def test_an_error_at_any_operation_is_told_and_loses_no_append(
    place: Path, job: str, for_good: bool
) -> None:
    loops = await prepare(job, place / "template")
    error, operations = await _call(job, copied(place / "template", place / "s"), only_count)
    assert error is None
    wrong: list[str] = []
    for target, operation in enumerate(operations):
        for name in ERRORS:
            directory = copied(place / "template", place / "s")
            number = getattr(errno, name)
            make_error = partial(OSError, number, os.strerror(number))
            action = fail_at(target, make_error, for_good=for_good)
            error, begun = await _call(job, directory, action)
            was_visible = visible_at(job, operations) < target
            problems = _wrong_with_the_error(job, error, number, operations, target)
            if operation == "fdatasync" and "replace" in begun[target:] and error is None:
                problems = []  # the session file took in what the tail could not keep
            expected = after(job, loops, operations, target if error else len(operations))
            if stored_loops(directory) != expected:
                problems.append(f"{error!r}, but {stored_loops(directory)} is stored")
            problems += await wrong_afterwards(directory, expected)
            torn = operation in ("write", "open") or for_good
            if set_aside(directory) and job != "delete" and not torn:
                problems.append(f"set aside {set_aside(directory)}")
            wrong += [
                f"{name} at {operation} (operation {target}, visible: {was_visible}): {problem}"
                for problem in problems
            ]
            if SCALE <= 1 and operation in ("lseek", "fstat", "lstat", "close", "unlock", "read"):
                break  # one error for those whose errors are treated alike
    assert not wrong, "\n".join([*wrong, f"operations: {operations}"])


def _wrong_with_the_error(
    job: str, error: BaseException | None, number: int, operations: list[str], target: int
) -> list[str]:
    operation = operations[target]
    visible = operations.index("replace") if job == "compact" else visible_at(job, operations)
    if error is None:
        syncs = [n for n, o in enumerate(operations) if n > visible and "sync" in o]
        # Behind its first sync an append is done; what follows is the fold.
        synced = len(operations) if not syncs else syncs[0] if job == "fold" else syncs[-1]
        takes_a_tail_away = operation == "unlink" and target != visible
        written_anew = operation == "fdatasync"  # by a fold, which reached the disk
        if operation in HARMLESS or takes_a_tail_away or written_anew or target > synced:
            return []
        return ["the error is not told"]
    if not isinstance(error, SessionIOError):
        return [f"it is told as {error!r}"]
    wrong: list[str] = []
    if error.errno != number:
        wrong.append(f"it is told as errno {error.errno}")
    if isinstance(error, SaveOutcomeUnknownError) is not (target > visible):
        wrong.append(f"it is told as {error!r}")
    return wrong


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "from-there-on"])
async def test_an_error_at_any_operation_of_a_repair_loses_no_append(
    place: Path, for_good: bool
) -> None:
    loops = await prepare("repair", place / "template")
    error, operations = await _call("repair", copied(place / "template", place / "s"), only_count)
    assert error is None
    wrong: list[str] = []
    for target, operation in enumerate(operations):
        if operation in ("lseek", "fstat", "lstat", "read", "stat", "close") and SCALE <= 1:
            continue
        name = ERRORS[target % len(ERRORS)]
        number = getattr(errno, name)
        directory = copied(place / "template", place / "s")
        action = fail_at(target, partial(OSError, number, os.strerror(number)), for_good=for_good)
        error, _ = await _call("repair", directory, action)
        problems = await wrong_afterwards(directory, loops)
        if error is not None and not isinstance(error, SessionIOError):
            problems.append(f"it is told as {error!r}")
        if not [text for text in set_aside(directory) if text == b'{"session_id":']:
            problems.append("the damaged file is gone")
        wrong += [f"{name} at {operation} (operation {target}): {p}" for p in problems]
    assert not wrong, "\n".join([*wrong, f"operations: {operations}"])


async def test_a_fold_that_fails_does_not_fail_the_append(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loops = await prepare("fold", place / "s")
    said: list[str] = []

    def no_replace(number: int, name: str, real: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        said.append(name)
        if name == "replace":
            raise OSError(errno.EIO, "no")
        return real()

    error, _ = await _call("fold", place / "s", no_replace)
    assert error is None
    assert "replace" in said
    assert "could not take in" in caplog.text
    assert stored_loops(place / "s") == [*loops, NEW]


@pytest.mark.parametrize("job", ["start a tail", "append"])
async def test_a_line_that_could_not_be_taken_back_is_found_torn_by_the_next_writer(
    place: Path, job: str, caplog: pytest.LogCaptureFixture
) -> None:
    loops = await prepare(job, place / "s")
    half: list[bytes] = []

    def tear(number: int, name: str, real: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if name == "write" and not half and not bytes(args[1]).startswith(b'{"extends"'):
            half.append(bytes(args[1])[: len(args[1]) // 2])
            real_write(args[0], half[0])
            raise OSError(errno.EIO, "no")
        if name in ("ftruncate", "unlink"):
            raise OSError(errno.EIO, "no")
        return real()

    real_write = os.write
    error, _ = await _call(job, place / "s", tear)
    assert isinstance(error, SessionIOError)
    assert not isinstance(error, SaveOutcomeUnknownError)
    assert stored_loops(place / "s") == loops
    async with FileSystemSessionStore(place / "s") as store:
        assert [str(finding.kind) for finding in await store.check()] == ["torn tail"]
        await store.append(ID, loop("next"))
    assert stored_loops(place / "s") == [*loops, "next"]
    assert set_aside(place / "s") == [half[0].rpartition(b"\n")[2]]
    assert "torn" in caplog.text


async def test_running_out_of_memory_at_any_operation_loses_no_append(place: Path) -> None:
    for job in ("start a tail", "append", "save over a tail"):
        loops = await prepare(job, place / "template")
        _, operations = await _call(job, copied(place / "template", place / "s"), only_count)
        for target, operation in enumerate(operations):
            directory = copied(place / "template", place / "s")
            error, _ = await _call(job, directory, fail_at(target, MemoryError))
            assert isinstance(error, MemoryError), f"{job}: {operation} (operation {target})"
            expected = after(job, loops, operations, target)
            assert await wrong_afterwards(directory, expected) == [], f"{job}: {operation}"
