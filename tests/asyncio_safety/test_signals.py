"""Signals and exits in the middle of saves."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import scaled
from safety_checks import in_flight, lock_is_free, number

from phi_sessions import FileSystemSessionStore

PROGRAMS = Path(__file__).with_name("safety_programs.py")


def start(program: str, directory: Path, *args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAMS), program, str(directory), *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str], seconds: float = 15) -> tuple[int, str, str]:
    """Return exit code, output and errors; a process that does not end in time is killed."""
    assert process.stdout is not None
    assert process.stderr is not None
    watchdog = threading.Timer(seconds, process.kill)
    watchdog.start()
    with process:
        # Not by communicate(), which knows nothing of what readline() has read ahead.
        out, err = process.stdout.read(), process.stderr.read()
        code = process.wait()
    watchdog.cancel()
    return code, out, err


def stored_numbers(directory: Path) -> dict[str, int]:
    """Return the `n` of each session after making sure that each is whole and can be saved."""

    async def read() -> dict[str, int]:
        async with FileSystemSessionStore(directory, lock_timeout=1) as store:
            sessions = [await store.load(session_id) for session_id in await store.list_ids()]
            for session in sessions:
                await store.save(session)
            return {session.session_id: number(session) for session in sessions}

    assert all(lock_is_free(path) for path in directory.glob("*.lock"))
    return asyncio.run(read())


@pytest.mark.parametrize("round_", range(scaled(8)))
@pytest.mark.parametrize("debug", ["", "debug"])
def test_ctrl_c_in_the_middle_of_saves_ends_the_process_and_loses_nothing(
    tmp_path: Path, round_: int, debug: str
) -> None:
    process = start("save_until_interrupted", tmp_path, debug)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(random.Random(round_).randrange(3, 60))]
    process.send_signal(signal.SIGINT)
    code, out, err = end(process)
    assert code == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert in_flight(tmp_path) == []
    stored = stored_numbers(tmp_path)
    acknowledged = [line.split() for line in "".join([*lines, out]).splitlines()]
    for session_id in ("a", "b"):
        last = max(int(n) for name, n in acknowledged if name == session_id)
        assert stored[session_id] in (last, last + 1)  # the one under way may have landed


@pytest.mark.parametrize("round_", range(scaled(4)))
def test_an_impatient_ctrl_c_ends_the_process_with_whole_files(tmp_path: Path, round_: int) -> None:
    process = start("save_until_interrupted", tmp_path)
    assert process.stdout is not None
    for _ in range(10 + round_):
        process.stdout.readline()
    for _ in range(3):
        process.send_signal(signal.SIGINT)
    code, _, _ = end(process)
    assert code != 0  # the last one may come before the traceback of the first is written
    assert set(stored_numbers(tmp_path)) == {"a", "b", "c"}


def test_ctrl_c_while_waiting_for_a_lock_ends_the_process(tmp_path: Path) -> None:
    process = start("wait_for_a_lock", tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    code, _, _ = end(process)
    assert code == -signal.SIGINT
    assert in_flight(tmp_path) == []
    assert stored_numbers(tmp_path) == {"s-1": 1}


@pytest.mark.parametrize("number_", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_process_with_an_open_store(
    tmp_path: Path, number_: signal.Signals
) -> None:
    process = start("wait_with_an_open_store", tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number_)
    code, _, _ = end(process)
    assert code == -number_
    assert stored_numbers(tmp_path) == {"s-1": 1}


@pytest.mark.parametrize(("how", "expected"), [("end", 0), ("SystemExit", 3), ("stopped loop", 0)])
def test_a_process_with_an_open_store_and_saves_under_way_can_exit(
    tmp_path: Path, how: str, expected: int
) -> None:
    for _ in range(scaled(3)):
        code, _, err = end(start("exit_with_an_open_store", tmp_path, how))
        assert code == expected, err
        assert "Exception ignored" not in err
        assert "s-1" in stored_numbers(tmp_path)
        if how != "stopped loop":
            assert in_flight(tmp_path) == []
