"""Processes that save and may be killed: forked, by the hundred, from one without threads.

As a script it reads orders, one JSON object a line, and answers each with one.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import portalocker  # noqa: F401 - so that a child's operations are those of the job alone
from crash_faults import Operations, kill_at, only_count
from crash_sessions import ID, stored, version

from phi_sessions import (
    FileSystemSessionStore,
    SessionIOError,
    delete_session,
    list_session_ids,
    save_session,
)

KILLED = -signal.SIGKILL
RETURNED = "/phi-sessions-the-call-has-returned"
"""A path that a child asks for when its call has returned, to be found in a trace."""
_TIMEOUT = 30


class Children:
    """Makes children that do one job each; a context manager."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.stdout.close()
        try:
            self._server.wait(_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
            raise

    def run(
        self,
        job: str,
        directory: Path,
        *,
        store: bool = False,
        fsync: bool = True,
        operation: int | None = None,
        moment: str = "",
    ) -> tuple[int, dict[str, Any]]:
        """Do a job, killed at one of its operations if one is given.

        Returns:
            The exit status, negative for a signal, and what the child had to say.
        """
        self._send(job, directory, store, fsync, operation, moment, stopped=False)
        return self._ended()

    @contextmanager
    def stopped(
        self, job: str, directory: Path, *, store: bool = False, fsync: bool = True
    ) -> Iterator[int]:
        """Yield the process id of a child that waits for SIGCONT to do the job."""
        self._send(job, directory, store, fsync, None, "", stopped=True)
        yield self._answer()["pid"]

    def ended(self) -> tuple[int, dict[str, Any]]:
        """Wait for the child that was `stopped`."""
        return self._ended()

    def _send(
        self,
        job: str,
        directory: Path,
        store: bool,
        fsync: bool,
        operation: int | None,
        moment: str,
        *,
        stopped: bool,
    ) -> None:
        order = {
            "job": job,
            "directory": str(directory),
            "store": store,
            "fsync": fsync,
            "operation": operation,
            "moment": moment,
            "stopped": stopped,
        }
        assert self._server.stdin is not None
        print(json.dumps(order), file=self._server.stdin, flush=True)

    def _ended(self) -> tuple[int, dict[str, Any]]:
        answer = self._answer()
        return answer["status"], answer["said"]

    def _answer(self) -> dict[str, Any]:
        assert self._server.stdout is not None
        answer: dict[str, Any] = json.loads(self._server.stdout.readline())
        return answer


def prepare(job: str, top: Path) -> Path:
    """Make the place for a job in `top`, which is made too; return the store's directory."""
    top.mkdir()
    if job.startswith("first "):
        return top / "new" / "and" / "nested"
    directory = top / "sessions"
    save_session(version(1), directory)
    return directory


def _main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _be_a_child(order, writing)
        os.close(writing)
        if order["stopped"]:
            os.waitpid(pid, os.WUNTRACED)
            print(json.dumps({"pid": pid}), flush=True)
        with open(reading) as pipe:
            said = pipe.read()
        _, status = os.waitpid(pid, 0)
        answer = {
            "status": os.waitstatus_to_exitcode(status),
            "said": json.loads(said or "{}"),
        }
        print(json.dumps(answer), flush=True)


def _be_a_child(order: dict[str, Any], report: int) -> None:
    signal.alarm(_TIMEOUT)
    said: dict[str, Any] = {"error": None}
    target = order["operation"]
    action = only_count if target is None else kill_at(target, order["moment"])
    job = order["job"].removeprefix("first ")
    if order["stopped"]:  # somebody else watches its operations
        os.kill(os.getpid(), signal.SIGSTOP)
    try:
        if order["store"]:
            asyncio.run(_with_the_store(job, order, action, said))
        elif order["stopped"]:
            _FUNCTIONS[job](order["directory"])
            os.access(RETURNED, os.F_OK)
        else:
            with Operations(action) as operations:
                _FUNCTIONS[job](order["directory"])
            said["operations"] = operations.names
    except Exception as error:
        said["error"] = type(error).__name__
        said["errno"] = getattr(error, "errno", None)
    os.write(report, json.dumps(said).encode())
    os._exit(0)


async def _with_the_store(
    job: str, order: dict[str, Any], action: Any, said: dict[str, Any]
) -> None:
    async with FileSystemSessionStore(order["directory"], fsync=order["fsync"]) as store:
        doing = {
            "save": lambda: store.save(version(2)),
            "delete": lambda: store.delete(ID),
            "load": lambda: store.load(ID),
            "list": store.list_ids,
            "saves in a row": lambda: _saves_in_a_row(store),
        }[job]
        if order["stopped"]:
            await doing()
            os.access(RETURNED, os.F_OK)
            return
        with Operations(action, worker_threads=True) as operations:
            await doing()
        said["operations"] = operations.names


async def _saves_in_a_row(store: FileSystemSessionStore) -> None:
    session = version(2)
    for _ in range(3):
        await store.save(session)
        os.access(RETURNED, os.F_OK)


def _save_again(directory: str) -> None:
    try:
        save_session(version(2), directory)
    except SessionIOError:
        save_session(version(2), directory)
    else:
        raise AssertionError("the first save was to fail")


_FUNCTIONS: dict[str, Any] = {
    "save": lambda directory: save_session(version(2), directory),
    "save again": _save_again,
    "delete": lambda directory: delete_session(ID, directory),
    "load": lambda directory: stored(Path(directory)),
    "list": list_session_ids,
}

if __name__ == "__main__":
    _main()
