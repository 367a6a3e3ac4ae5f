"""Starting worker processes, and ending them well or badly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TIMEOUT = 240
_WORKER = Path(__file__).with_name("lin_worker.py")

Process = subprocess.Popen[str]


def start(**order: Any) -> Process:
    """Start a worker, which waits for `go`."""
    return subprocess.Popen(
        [sys.executable, str(_WORKER), json.dumps(order)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )


def go(process: Process) -> None:
    """Let a worker begin."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    print("go", file=process.stdin, flush=True)


@contextmanager
def workers(orders: list[dict[str, Any]]) -> Iterator[list[Process]]:
    """Yield running workers; those that still run at the end are killed."""
    processes = [start(**order) for order in orders]
    try:
        for process in processes:
            go(process)
        yield processes
    finally:
        for process in processes:
            end(process)


def end(process: Process) -> None:
    """Kill a worker if it still runs, and forget it."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
