"""What one call of the store asks of the system: system calls by strace, hops by counting."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from phi_sessions import FileSystemSessionStore

from .data import make_session
from .traced import MARK

__all__ = ["BYTES", "count_hops", "count_system_calls"]

BYTES = "bytes written"
"""The name under which `count_system_calls` counts the bytes of all writes."""

_CALL = re.compile(r"^\d+\s+(\w+)\((.*)$")
_MARK = re.compile(re.escape(MARK) + r"(\w+)")
_WRITTEN = re.compile(r", (\d+)(?:\)| <unfinished)")


def count_system_calls(directory: str) -> dict[str, Counter[str]] | None:
    """Return the system calls on files in `directory` of a save, load, listing and append.

    None where there is no strace, or where it may not trace.
    """
    strace = shutil.which("strace")
    if strace is None:
        return None
    directory = os.path.abspath(directory)  # strace tells descriptors by their whole paths
    trace = os.path.join(directory, "trace")
    sessions = os.path.join(directory, "traced")
    command = [strace, "-f", "-y", "-s", "0", "-o", trace, "-e", "trace=%file,%desc"]
    program = [sys.executable, "-m", "benchmarks.traced", sessions]
    done = subprocess.run([*command, *program], check=False, capture_output=True, timeout=120)
    if done.returncode != 0 or not os.path.exists(trace):
        return None
    counts: dict[str, Counter[str]] = {}
    with open(trace) as file:
        for line in file:
            if mark := _MARK.search(line):
                counts[mark[1]] = current = Counter()
            elif counts and sessions in line and (call := _CALL.match(line)):
                current[_name(call[1], call[2], sessions)] += 1
                if call[1] == "write" and (written := _WRITTEN.search(call[2])):
                    current[BYTES] += int(written[1])
    counts.pop("end", None)
    if not all(counts.values()):
        raise RuntimeError(f"a call without system calls was traced: {counts}")
    return counts


def _name(call: str, arguments: str, directory: str) -> str:
    if call == "flock":
        return "unlock" if "LOCK_UN" in arguments else "flock"
    if call in ("fsync", "fdatasync"):
        return f"{call} directory" if f"<{directory}>" in arguments else call
    return "rename" if call.startswith("rename") else call


async def count_hops(directory: str) -> dict[str, int]:
    """Return how many jobs one save, one load and one listing give to the store's threads."""
    async with FileSystemSessionStore(directory) as store:
        await store.save(make_session("s-1", 2_000, records=1))
        session = await store.load("s-1")
        hops = 0
        submit = store._workers.submit

        def counting(job: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            nonlocal hops
            hops += 1
            return submit(job, *args, **kwargs)

        store._workers.submit = counting  # type: ignore[method-assign, assignment]
        counts: dict[str, int] = {}
        await store.save(session)
        counts["save"], hops = hops, 0
        await store.load("s-1")
        counts["load"], hops = hops, 0
        await store.list_ids()
        counts["list"] = hops
        return counts
