"""Processes that are killed and calls that are cancelled still leave a history that makes sense."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from conftest import scaled
from lin_checker import unexplained
from lin_history import ID, Operation, read_history
from lin_processes import TIMEOUT, Process, end, go, start

from phi_sessions import FileSystemSessionStore

PROCESSES = 8
CALLS = 30


@pytest.mark.parametrize("small", [0, 2_000, 65_536])
async def test_histories_with_kills_and_cancels_make_sense(tmp_path: Path, small: int) -> None:
    for turn in range(scaled(1)):
        top = tmp_path / str(turn)
        top.mkdir()
        rng = random.Random(f"{small} {turn}")
        history = _record(top, small, rng)
        async with FileSystemSessionStore(top / "sessions") as store:
            began = time.monotonic_ns()
            session = await store.find(ID)
            found = None if session is None else ["ok", session.revision, session.loops.ids()]
            last = Operation("load", None, found or ["absent"], began, time.monotonic_ns())
        assert unexplained([*history, last]) == []
        kinds = {(call.kind, call.result and call.result[0]) for call in history}
        assert {("append", "ok"), ("load", "ok"), ("save", "ok"), ("save", "conflict")} <= kinds
        assert sum(call.result is None for call in history) >= PROCESSES // 2


def _record(top: Path, small: int, rng: random.Random) -> list[Operation]:
    """Let processes work on one session, kill half of them at random, and put others in place."""
    running: list[tuple[Process, Path, bool]] = []
    history: list[Operation] = []

    def begin(number: int, *, is_doomed: bool) -> tuple[Process, Path, bool]:
        path = top / f"{number}.history"
        process = start(
            directory=str(top / "sessions"),
            job="history",
            name=f"{top.name}-{small}-{number}",
            count=10_000 if is_doomed else CALLS,
            cancels=0.1,
            history=str(path),
            small=small,
        )
        return process, path, is_doomed

    try:
        running.extend(begin(n, is_doomed=n % 2 == 0) for n in range(PROCESSES))
        for process, _, _ in running:
            go(process)
        for number, (process, path, is_doomed) in enumerate(list(running)):
            if is_doomed:
                _wait_for_lines(path, rng.randrange(20, 60))
                process.kill()
                process.wait()
                history += read_history(str(path), time.monotonic_ns())
                running.append(begin(PROCESSES + number, is_doomed=False))
                go(running[-1][0])
        for process, path, is_doomed in running:
            if not is_doomed:
                assert process.wait(TIMEOUT) == 0
                history += read_history(str(path), time.monotonic_ns())
    finally:
        for process, _, _ in running:
            end(process)
    return history


def _wait_for_lines(path: Path, lines: int) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not path.exists() or path.read_bytes().count(b"\n") < lines:
        assert time.monotonic() < deadline
        time.sleep(0.001)
