"""A writer that is killed at any of its file operations leaves the old state or the new one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_children import KILLED, Children, prepare
from crash_sessions import contents, in_flight, version, wrong_after_a_crash

BECOMES_VISIBLE = {"save": "replace", "first save": "replace", "delete": "unlink"}
"""The operation that changes what readers see."""


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    with Children() as made:
        yield made


@pytest.mark.parametrize("store", [False, True], ids=["function", "store"])
@pytest.mark.parametrize("job", ["save", "first save", "delete"])
def test_killed_at_any_operation_leaves_the_old_or_the_new_state(
    children: Children, tmp_path: Path, job: str, store: bool
) -> None:
    old = None if job == "first save" else contents(version(1))
    new = None if job == "delete" else contents(version(2))
    operations = _operations(children, tmp_path / "counted", job, store)
    visible = operations.index(BECOMES_VISIBLE[job])
    wrong: list[str] = []
    leftovers = 0
    for number, name in enumerate(operations):
        for moment in ["before", "after", *(["half"] if name == "write" else [])]:
            done = number > visible or (number == visible and moment == "after")
            expected = new if done else old
            directory = prepare(job, tmp_path / "killed")
            status, said = children.run(
                job, directory, store=store, operation=number, moment=moment
            )
            leftovers += len(in_flight(directory))
            problems = wrong_after_a_crash(directory, expected)
            if status != KILLED:
                problems.append(f"was not killed: {status}, {said}")
            wrong += [f"{moment} {name} (operation {number}): {problem}" for problem in problems]
            shutil.rmtree(tmp_path / "killed")
    assert not wrong, "\n".join([*wrong, f"operations: {operations}"])
    assert (leftovers > 0) is (job != "delete")  # so that the listings had something to remove


def _operations(children: Children, top: Path, job: str, store: bool) -> list[str]:
    status, said = children.run(job, prepare(job, top), store=store)
    assert (status, said["error"]) == (0, None)
    operations: list[str] = said["operations"]
    assert operations.count("lock") == operations.count("unlock") == 1
    return operations
