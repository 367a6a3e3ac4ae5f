"""What the kit tells, and how it ends when it cannot do what it was asked for."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import subprocess
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import broken_stores
import pytest
from cancelling import at_once, cancelled_at

from phi_sessions import (
    FileSystemSessionStore,
    InvalidSessionIdError,
    MemorySessionStore,
    Session,
    SessionIOError,
    SessionStore,
)
from phi_sessions.testing import (
    CHECKS,
    BrokenPromiseError,
    Outcome,
    Report,
    Scale,
    check_store,
    run_check,
)
from phi_sessions.testing.checks import processes
from phi_sessions.testing.children import children
from phi_sessions.testing.trial import Trial

THREE = [
    "a_stale_save_is_refused",
    "a_session_without_loops_is_kept",
    "updates_of_many_processes_are_all_kept",
]


@pytest.fixture
async def report() -> Report:
    """A report with a check of each outcome."""
    return await check_store(broken_stores.LastWriterWins, only=THREE)


def test_each_check_is_one_promise_with_a_name_of_its_own() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    for check in CHECKS:
        assert check.promise.endswith("."), check.name
        assert ". " not in check.promise, f"{check.name} promises more than one thing"


async def test_a_report_tells_how_each_check_ended(report: Report) -> None:
    assert (report.store, report.ok) == ("LastWriterWins", False)
    assert report.lacks == ["hosts", "power loss", "processes", "restart"]
    [passed], [failed], [skipped] = report.passed, report.failed, report.skipped
    assert (failed.name, passed.name, skipped.name) == tuple(THREE)
    assert (failed.theme, failed.outcome) == ("preconditions", Outcome.FAILED)
    assert failed.promise.startswith("A session that came from a store replaces only")
    assert "expected SessionConflictError, nothing was raised" in (failed.error or "")
    assert "in a_stale_save_is_refused" in (failed.traceback or "")
    assert skipped.reason == "the store does not promise 'processes'"
    assert (passed.error, passed.traceback, passed.reason) == (None, None, None)
    assert 0 <= sum(check.seconds for check in report.checks) <= report.seconds + 0.01


async def test_a_report_reads_as_text(report: Report) -> None:
    text = str(report)
    assert text.endswith(f"1 promises kept, 1 broken, 1 not checked ({report.seconds:.1f} s)")
    for part in ("passed  round_trips.", "failed  preconditions.", "skipped processes."):
        assert part in text
    assert "the store does not promise 'processes'" in text
    assert "Promised: A session that came from a store" in text


async def test_a_report_is_json(report: Report) -> None:
    told: dict[str, Any] = json.loads(report.to_json())
    assert (told["store"], told["ok"]) == ("LastWriterWins", False)
    assert (told["passed"], told["failed"], told["skipped"]) == (1, 1, 1)
    by_name = {check["name"]: check for check in told["checks"]}
    assert set(by_name) == set(THREE)
    assert by_name[THREE[0]].keys() == {
        *("name", "theme", "promise", "outcome", "seconds", "error", "traceback")
    }
    assert by_name[THREE[2]]["reason"] == "the store does not promise 'processes'"


class RepeatsTheId(MemorySessionStore):
    """Names in its errors what it was asked for, as it is."""

    async def load(self, session_id: str) -> Session:
        try:
            return await super().load(session_id)
        except InvalidSessionIdError as error:
            raise error if not session_id else RuntimeError(f"not an id: {session_id}") from error


async def test_a_report_can_be_written_whatever_the_store_says() -> None:
    report = await check_store(RepeatsTheId, only=["what_cannot_be_an_id_is_refused"])
    [failed] = report.failed
    assert "not an id: \\ud800" in (failed.error or "")
    assert json.loads(report.to_json())["checks"][0]["error"] == failed.error
    assert "not an id: \\ud800" in str(report).encode().decode()


async def test_a_failure_can_be_raised(report: Report) -> None:
    with pytest.raises(BrokenPromiseError, match="a_stale_save_is_refused") as caught:
        report.raise_if_failed()
    assert isinstance(caught.value, AssertionError)
    sound = await check_store(MemorySessionStore, only=THREE)
    sound.raise_if_failed()


async def test_an_unknown_check_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no check named a_stale_safe"):
        await check_store(MemorySessionStore, only=["a_stale_safe"])


async def test_a_store_may_be_opened_by_an_async_function() -> None:
    async def open_store() -> SessionStore:
        await asyncio.sleep(0)
        return MemorySessionStore()

    assert (await check_store(open_store, only=THREE[:2])).ok


async def test_what_opening_raises_is_raised() -> None:
    def open_store() -> SessionStore:
        raise SessionIOError("refused", errno=111)

    with pytest.raises(SessionIOError, match="refused"):
        await check_store(open_store)


async def test_children_that_are_not_wanted_are_told_as_skipped(tmp_path: Path) -> None:
    open_store = partial(FileSystemSessionStore, tmp_path)
    with_children = [check.name for check in CHECKS if check.processes]
    report = await check_store(open_store, processes=False, only=with_children)
    assert {check.reason for check in report.skipped} == {"no child processes were wanted"}
    assert len(report.skipped) == len(with_children)


async def test_a_store_that_children_cannot_open_is_told_as_skipped(tmp_path: Path) -> None:
    report = await check_store(lambda: FileSystemSessionStore(tmp_path), only=THREE)
    [skipped] = report.skipped
    assert (skipped.reason or "").startswith("open_store cannot be pickled for child processes")


class OpensHere:
    """Opens a store here, and cannot be unpickled in a child."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> SessionStore:
        return FileSystemSessionStore(self.folder)

    def __reduce__(self) -> Any:
        return __import__, ("a_module_that_is_not_there",)


async def test_a_store_that_children_cannot_unpickle_is_told_as_skipped(tmp_path: Path) -> None:
    report = await check_store(OpensHere(tmp_path), only=THREE)
    [skipped] = report.skipped
    assert "cannot unpickle open_store" in (skipped.reason or "")
    assert "a_module_that_is_not_there" in (skipped.reason or "")


def opens_nothing_in_a_child(folder: Path, parent: int) -> SessionStore:
    import os

    if os.getpid() != parent:
        raise SessionIOError("no place for children")
    return FileSystemSessionStore(folder)


async def test_a_child_that_fails_is_a_failure_with_its_traceback(tmp_path: Path) -> None:
    import os

    open_store = partial(opens_nothing_in_a_child, tmp_path, os.getpid())
    report = await check_store(open_store, only=THREE, scale=Scale(processes=1))
    [failed] = report.failed
    assert failed.name == THREE[2]
    assert "a child process failed" in (failed.error or "")
    assert "no place for children" in (failed.error or "")


class NeverAnswers(MemorySessionStore):
    """Hangs for ever, and clings to it when it is cancelled once."""

    async def list_ids(self) -> list[str]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            raise
        raise AssertionError


async def test_a_call_that_never_ends_is_a_failure_after_a_while() -> None:
    [check] = [check for check in CHECKS if check.name == "a_session_without_loops_is_kept"]
    result = await run_check(check, NeverAnswers, scale=Scale(check_timeout=0.1))
    assert result.outcome is Outcome.FAILED
    assert "the check did not end within 0.1 s" in (result.error or "")
    assert "await asyncio.Event().wait()" in (result.traceback or "")  # where it hung


class CancelsItself(MemorySessionStore):
    """Raises a cancellation that nobody asked for."""

    async def load(self, session_id: str) -> Session:
        raise asyncio.CancelledError("by mistake")


async def test_a_cancellation_that_nobody_asked_for_is_a_failure() -> None:
    report = await check_store(CancelsItself, only=["find_and_exists_tell_what_is_stored"])
    assert "cancelled that nobody had cancelled" in (report.failed[0].error or "")
    assert "by mistake" in (report.failed[0].traceback or "")


async def test_whoever_cancels_the_checks_is_obeyed() -> None:
    checking = asyncio.create_task(check_store(NeverAnswers))
    await asyncio.sleep(0.3)
    checking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(checking, 10)


async def test_no_child_outlives_a_check_that_is_cancelled(tmp_path: Path) -> None:
    open_store = partial(FileSystemSessionStore, tmp_path)

    async def with_two(trial: Trial) -> None:
        async with children(trial, processes._append, [("s-1", 0, 1), ("s-1", 1, 1)]):
            await asyncio.sleep(0)

    for step in range(1, 20):
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(open_store())
            trial = Trial(open_store, None, store, stack, Scale())
            reached, end = await cancelled_at(with_two(trial), step, at_once)
        assert multiprocessing.active_children() == [], step
        assert isinstance(end, asyncio.CancelledError) is reached, end
        if not reached:
            return
    raise AssertionError


PROGRAM = """
import asyncio, sys
from functools import partial
from phi_sessions import FileSystemSessionStore
from phi_sessions.testing import check_store

async def main():
    only = ["updates_of_many_processes_are_all_kept", "unknown_keys_are_kept"]
    report = await check_store(partial(FileSystemSessionStore, sys.argv[1]), only=only)
    print(report)
    sys.exit(not report.ok)

{guard}asyncio.run(main())
"""


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_program_of_ones_own_makes_the_checks(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(guard='if __name__ == "__main__": '))
    done = run(program, tmp_path / "sessions")
    assert (done.returncode, done.stderr) == (0, "")
    assert "FileSystemSessionStore: 2 promises kept, 0 broken, 0 not checked" in done.stdout


def test_a_program_without_a_guard_is_told_of_it(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(guard=""))
    done = run(program, tmp_path / "sessions")
    assert done.returncode == 1
    assert 'put what your program does under `if __name__ == "__main__":`' in done.stderr
    assert "a child process ended, exit code 1, before it was done" in done.stdout
