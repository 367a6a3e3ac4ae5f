"""Processes that start together: each is a script beside this file."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class Racer:
    """A child that says `ready`, waits for a line, races, and prints a JSON object."""

    def __init__(self, command: Sequence[str], timeout: float) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._watchdog = threading.Timer(timeout, self.process.kill)
        self._watchdog.daemon = True
        self._watchdog.start()

    def await_line(self, expected: str) -> None:
        """Wait until the child has printed `expected`."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if line != expected:
            self.process.kill()
            _, stderr = self.process.communicate()
            raise AssertionError(f"the child said {line!r}, not {expected!r}: {stderr}")

    def go(self) -> None:
        """Let the child begin."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """Wait for the child's end and return what it printed last."""
        stdout, stderr = self.process.communicate()
        assert self.process.returncode == 0, stderr or f"killed: {self.process.returncode}"
        result: dict[str, Any] = json.loads(stdout.splitlines()[-1])
        return result

    def close(self) -> None:
        """End the child if it still runs."""
        self._watchdog.cancel()
        self.process.kill()
        self.process.communicate()


@contextmanager
def racers(commands: Sequence[Sequence[str]], *, timeout: float = 60.0) -> Iterator[list[Racer]]:
    """Start the commands and yield them when all are ready; none outlives the block."""
    started: list[Racer] = []
    try:
        started.extend(Racer(command, timeout) for command in commands)
        for racer in started:
            racer.await_line("ready")
        yield started
    finally:
        for racer in started:
            racer.close()


def script(name: str, *args: object) -> list[str]:
    """Return the command that runs the script `name` beside this file."""
    return [sys.executable, str(HERE / name), *map(str, args)]


def race(commands: Sequence[Sequence[str]], *, timeout: float = 60.0) -> list[dict[str, Any]]:
    """Start the commands together and return what each printed."""
    with racers(commands, timeout=timeout) as started:
        for racer in started:
            racer.go()
        return [racer.result() for racer in started]
