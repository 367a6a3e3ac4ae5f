"""A process that is killed at any file operation loses no append and applies none twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SCALE
from crash_children import KILLED
from crash_sessions import ID
from crash_tails import (
    CHANGED_BY,
    JOBS,
    NEW,
    TORN,
    TailChildren,
    after,
    copied,
    prepare_scene,
    set_aside,
    stored_loops,
    visible_at,
    wrong_afterwards,
)

READS = {"open", "close", "read", "lseek", "stat", "lstat", "fstat", "listdir"}
WRITES_ONLY = {"start a tail", "append", "save to the tail"}


@pytest.fixture(scope="module")
def children() -> Iterator[TailChildren]:
    with TailChildren() as made:
        yield made


@pytest.mark.parametrize("job", JOBS)
def test_killed_at_any_operation_every_append_is_there_once_and_in_order(
    children: TailChildren, tmp_path: Path, job: str
) -> None:
    loops = prepare_scene(job, tmp_path / "template")
    operations = _operations(children, job, copied(tmp_path / "template", tmp_path / "s"))
    wrong: list[str] = []
    for number, name in enumerate(operations):
        if job == "repair" and name in READS and SCALE <= 1:
            continue  # it looks at files for long, and changes none of them then
        for moment in ["before", "after", *(["half"] if name == "write" else [])]:
            directory = copied(tmp_path / "template", tmp_path / "s")
            status, said = children.run(job, directory, store=True, operation=number, moment=moment)
            expected = after(job, loops, operations, number + (moment == "after"))
            problems = asyncio.run(wrong_afterwards(directory, expected))
            problems += _wrong_with_what_is_aside(
                job, directory, torn=moment == "half" and number <= visible_at(job, operations)
            )
            if status != KILLED:
                problems.append(f"was not killed: {status}, {said}")
            wrong += [f"{moment} {name} (operation {number}): {problem}" for problem in problems]
    assert not wrong, "\n".join([*wrong, f"operations: {operations}"])


def test_saves_killed_in_a_row_do_not_make_an_orphan_of_the_tail_that_they_took_in(
    children: TailChildren, tmp_path: Path
) -> None:
    job = "save over a tail"
    prepare_scene(job, tmp_path / "s")
    for _ in range(2):
        operations = _operations(children, job, copied(tmp_path / "s", tmp_path / "counted"))
        status, _ = children.run(
            job, tmp_path / "s", store=True, operation=operations.index("replace"), moment="after"
        )
        assert status == KILLED
        assert (tmp_path / "s" / f"{ID}.json.log").exists()
    assert asyncio.run(wrong_afterwards(tmp_path / "s", stored_loops(tmp_path / "s"))) == []
    assert set_aside(tmp_path / "s") == []


def _wrong_with_what_is_aside(job: str, directory: Path, *, torn: bool) -> list[str]:
    """Return what should not be among the files that were set aside, or is missing."""
    aside = set_aside(directory)
    if job == "repair":
        return [] if TORN in aside else ["the torn line is gone"]
    if job == "delete":  # what was appended to a deleted session may be left, under another name
        return []
    if torn and CHANGED_BY.get(job) == "write":
        return []  # the torn line
    return [f"{len(aside)} files were set aside"] if aside else []


def _operations(children: TailChildren, job: str, directory: Path) -> list[str]:
    status, said = children.run(job, directory, store=True)
    assert (status, said["error"]) == (0, None)
    operations: list[str] = said["operations"]
    assert operations.count("lock") == operations.count("unlock") > 0
    if job in CHANGED_BY:
        assert CHANGED_BY[job] in operations
    assert ("replace" in operations) is (job not in {*WRITES_ONLY, "delete", "lease"})
    assert ((stored_loops(directory) or [])[-1:] == [NEW]) is (
        job in CHANGED_BY and job != "delete"
    )
    return operations
