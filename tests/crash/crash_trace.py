"""System calls of a child, as the kernel saw them: recorded, failed or answered with a kill."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from crash_children import RETURNED, Children

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

_WHOLE = re.compile(r"(\d+) +(\w+)\((.*)\) += (.+)")
_BEGUN = re.compile(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)")
_DESCRIPTOR = re.compile(r"(?:\d+|AT_FDCWD)<(/[^>]*?)(?: \(deleted\))?>")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


class Call(NamedTuple):
    """One system call of one thread."""

    thread: int
    name: str
    arguments: str
    result: str

    @property
    def failed(self) -> bool:
        return self.result.startswith(("-1", "?"))

    @property
    def paths(self) -> list[str]:
        """The paths that it names, and those behind its descriptors; not the working directory."""
        named = [] if self.name in ("write", "read") else _QUOTED.findall(self.arguments)
        arguments = re.sub(r"AT_FDCWD<[^>]*>", "", self.arguments)
        return [*_DESCRIPTOR.findall(arguments), *filter(None, named)]

    def concerns(self, top: Path) -> bool:
        """Return whether it is about `top` or something below."""
        return any(path == str(top) or path.startswith(f"{top}/") for path in self.paths)

    @property
    def has_returned(self) -> bool:
        """Whether it is the sign that the call under test has returned."""
        return RETURNED in self.paths

    @property
    def takes_lock(self) -> bool:
        return self.name == "flock" and "LOCK_EX" in self.arguments

    def __str__(self) -> str:
        return f"{self.name}({self.arguments}) = {self.result}"


class Record(NamedTuple):
    """What a traced child did and said."""

    calls: list[Call]
    status: int
    said: dict[str, Any]


def record(
    children: Children,
    job: str,
    directory: Path,
    *options: str,
    store: bool = False,
    fsync: bool = True,
) -> Record:
    """Do a job under strace, with more of its `options`, and return what happened."""
    target = next(parent for parent in directory.parents if parent.is_dir()) / "trace.txt"
    with children.stopped(job, directory, store=store, fsync=fsync) as pid:
        strace = attach(pid, target, *options)
        os.kill(pid, signal.SIGCONT)
        status, said = children.ended()
        strace.communicate(timeout=20)
    calls = parse(target.read_text())
    target.unlink()
    return Record(calls, status, said)


def attach(pid: int, target: Path, *options: str) -> subprocess.Popen[str]:
    """Have strace write the calls of process `pid` into `target`, once this has returned."""
    command = ["strace", "-f", "-y", "-s", "200", "-e", "trace=%file,%desc", "-o", str(target)]
    strace = subprocess.Popen(
        [*command, *options, "-p", str(pid)], stderr=subprocess.PIPE, text=True
    )
    assert strace.stderr is not None
    said = strace.stderr.readline()
    if "attached" not in said:
        os.kill(pid, signal.SIGKILL)
        strace.kill()
        strace.communicate()
        raise AssertionError(f"strace did not attach: {said}")
    return strace


def parse(text: str) -> list[Call]:
    """Return the calls in the order in which they ended."""
    calls: list[Call] = []
    begun: dict[tuple[str, str], str] = {}
    for line in text.splitlines():
        if match := _BEGUN.match(line):
            begun[match[1], match[2]] = match[3]
            continue
        if match := _RESUMED.match(line):
            line = f"{match[1]} {match[2]}({begun.pop((match[1], match[2]))}{match[3]}"
        if match := _WHOLE.match(line):
            calls.append(Call(int(match[1]), match[2], match[3], match[4]))
    return calls


def about(calls: Iterable[Call], top: Path) -> list[Call]:
    """Return the calls that concern `top`, and the sign that the call under test has returned."""
    return [call for call in calls if call.concerns(top) or call.has_returned]
