"""Faults and kills in the system calls themselves, so that no wrapper stands in between."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_children import KILLED, Children, prepare
from crash_sessions import contents, in_flight, lock_is_free, version, wrong_after_a_crash
from crash_trace import Call, about, needs_strace, record

pytestmark = needs_strace
CHANGES = ["save", "first save", "delete"]
FAULTY = {"openat", "mkdir", "flock", "write", "fsync", "rename", "unlink"}
BECOMES_VISIBLE = {"save": "rename", "first save": "rename", "delete": "unlink"}


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    with Children() as made:
        yield made


@pytest.mark.parametrize("job", CHANGES)
def test_killed_at_any_system_call_leaves_the_old_or_the_new_state(
    children: Children, tmp_path: Path, job: str
) -> None:
    calls = _calls(children, tmp_path / "counted", job)
    old, new = _states(job)
    visible = _visible(calls, job)
    wrong: list[str] = []
    for place, (call, when) in enumerate(calls):
        directory = prepare(job, tmp_path / "killed")
        recorded = record(children, job, directory, f"--inject={call.name}:signal=KILL:when={when}")
        # The signal comes before the call is carried out.
        problems = wrong_after_a_crash(directory, new if place > visible else old)
        if recorded.status != KILLED:
            problems.append(f"was not killed: {recorded.status}")
        wrong += [f"killed at {call}: {problem}" for problem in problems]
        shutil.rmtree(tmp_path / "killed")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("job", CHANGES)
def test_a_failed_system_call_is_told_and_leaves_nothing(
    children: Children, tmp_path: Path, job: str
) -> None:
    calls = _calls(children, tmp_path / "counted", job)
    old, new = _states(job)
    visible = _visible(calls, job)
    wrong: list[str] = []
    for place, (call, when) in enumerate(calls):
        if call.name not in FAULTY:
            continue
        directory = prepare(job, tmp_path / "failing")
        recorded = record(children, job, directory, f"--inject={call.name}:error=EIO:when={when}")
        problems: list[str] = []
        if "LOCK_UN" in call.arguments:
            expected = (None, None)
        elif place > visible:
            expected = ("SaveOutcomeUnknownError", errno.EIO)
        else:
            expected = ("SessionIOError", errno.EIO)
        told = (recorded.said["error"], recorded.said.get("errno"))
        if told != expected:
            problems.append(f"it is told as {told}")
        if (left := in_flight(directory)) or not lock_is_free(directory):
            problems.append(f"it leaves {left} or a lock")
        problems += wrong_after_a_crash(directory, new if place > visible else old)
        wrong += [f"failed at {call}: {problem}" for problem in problems]
        shutil.rmtree(tmp_path / "failing")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("job", CHANGES)
def test_no_system_call_escapes_the_enumeration_of_operations(
    children: Children, tmp_path: Path, job: str
) -> None:
    seen = [_operation(call) for call, _ in _calls(children, tmp_path / "traced", job)]
    _, said = children.run(job, prepare(job, tmp_path / "counted"))
    assert seen == said["operations"]


def _operation(call: Call) -> str:
    """Return the name of the Python function that makes this call."""
    if call.name == "flock":
        return "unlock" if "LOCK_UN" in call.arguments else "lock"
    if call.name == "newfstatat":
        if "AT_EMPTY_PATH" in call.arguments:
            return "fstat"
        return "lstat" if "AT_SYMLINK_NOFOLLOW" in call.arguments else "stat"
    names = {
        "openat": "open",
        "utimensat": "utime",
        "rename": "replace",
        "faccessat2": "access",
    }
    return names.get(call.name, call.name)


def _calls(children: Children, top: Path, job: str) -> list[tuple[Call, int]]:
    """Return the job's system calls, each with the how-many-th of its name it is."""
    recorded = record(children, job, prepare(job, top))
    assert (recorded.status, recorded.said["error"]) == (0, None)
    counted = [
        (call, sum(other.name == call.name for other in recorded.calls[: place + 1]))
        for place, call in enumerate(recorded.calls)
    ]
    wanted = about(recorded.calls, top.parent)
    return [(call, n) for call, n in counted if call in wanted and not call.has_returned]


def _states(job: str) -> tuple[object, object]:
    old = None if job == "first save" else contents(version(1))
    return old, None if job == "delete" else contents(version(2))


def _visible(calls: list[tuple[Call, int]], job: str) -> int:
    return [call.name for call, _ in calls].index(BECOMES_VISIBLE[job])
