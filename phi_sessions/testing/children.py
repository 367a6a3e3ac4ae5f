"""Child processes that open the same place, and what they tell on a pipe."""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
import threading
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from typing import Any, Final

from ..stores.finishing import to_its_end
from .claims import broken
from .elsewhere import in_thread
from .trial import OpenStore, Trial

__all__ = ["Child", "Line", "children", "refuse_in_a_child"]

_NAME: Final = "phi_sessions.testing child"

_SAID, _READY, _DONE, _FAILED, _UNABLE = "said", "ready", "done", "failed", "unable"

Work = Callable[..., Coroutine[Any, Any, object]]
"""A module's function: it is given a `Line` and `open_store`, and then what it was started with."""


def refuse_in_a_child() -> None:
    """Return unless a child process imports the program that started it, and with it this.

    Raises:
        RuntimeError: It does.
    """
    if multiprocessing.current_process().name == _NAME:
        raise RuntimeError(
            "a child process of the checks has begun to run the checks itself: put what your"
            ' program does under `if __name__ == "__main__":`, or pass processes=False'
        )


class Line:
    """The child's end of the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def say(self, what: object) -> None:
        """Tell the parent."""
        self._pipe.send((_SAID, what))

    async def ready(self) -> None:
        """Tell the parent that the store is open, and wait until it lets all children begin."""
        self._pipe.send((_READY, None))
        await in_thread(self._pipe.recv)


def _live(pipe: Connection, opener: bytes, work: Work, arguments: tuple[Any, ...]) -> None:
    """Be a child."""
    try:
        open_store = pickle.loads(opener)  # noqa: S301 - the parent's own
    except Exception as error:  # noqa: BLE001 - the parent is told
        pipe.send((_UNABLE, repr(error)))
        return
    try:
        done = asyncio.run(work(Line(pipe), open_store, *arguments))
    except BaseException:  # noqa: BLE001 - the parent is told
        pipe.send((_FAILED, traceback.format_exc()))
    else:
        pipe.send((_DONE, done))


class Child:
    """The parent's view of one child process."""

    def __init__(self, trial: Trial, opener: bytes, work: Work, arguments: tuple[Any, ...]) -> None:
        spawning = multiprocessing.get_context("spawn")
        self._trial = trial
        self._deadline = time.monotonic() + trial.scale.check_timeout
        self._joining = threading.Lock()  # of two that wait for it, the system tells one its end
        self._pipe, self._its_end = spawning.Pipe()
        self._process = spawning.Process(
            target=_live, args=(self._its_end, opener, work, arguments), name=_NAME, daemon=True
        )

    def start(self) -> None:
        """Start it; blocks for a moment."""
        self._process.start()
        self._its_end.close()  # so that its end of the pipe is closed when it dies

    def go(self) -> None:
        """Let it begin."""
        self._pipe.send(None)

    async def is_ready(self) -> None:
        """Wait until it has opened its store."""
        await self._hear(_READY)

    async def said(self) -> Any:
        """Return what it says next."""
        return await self._hear(_SAID)

    async def result(self) -> Any:
        """Wait for its end, and return what its work returned."""
        return await self._hear(_DONE)

    async def killed(self) -> list[Any]:
        """Kill it without a warning; return what it had said that was not heard yet."""
        return await in_thread(self._kill)

    def _kill(self) -> list[Any]:
        self._process.kill()
        self._join()
        said: list[Any] = []
        try:
            while self._pipe.poll():
                kind, what = self._pipe.recv()
                if kind == _FAILED:
                    broken(f"a child process failed before it was killed:\n{what}")
                if kind == _SAID:
                    said.append(what)
        except (EOFError, OSError):  # it was killed while it spoke
            return said
        return said

    async def _hear(self, expected: str) -> Any:
        kind, what = await in_thread(self._receive)
        if kind == _UNABLE:
            self._trial.skip(
                f"a child process cannot unpickle open_store: {what}; it has to be a function or"
                " class that a child can import, or a functools.partial of one"
            )
        if kind == _FAILED:
            broken(f"a child process failed:\n{what}")
        if kind != expected:
            broken(f"a child process said {kind!r}, {what!r} and not {expected!r}")
        return what

    def _receive(self) -> tuple[str, Any]:
        try:
            if not self._pipe.poll(max(0.0, self._deadline - time.monotonic())):
                broken("a child process says nothing any more")
            kind, what = self._pipe.recv()
        except (EOFError, OSError):
            self._join(10)
            broken(
                f"a child process ended, exit code {self._process.exitcode}, before it was done;"
                " what it printed may tell why"
            )
        return kind, what

    def _join(self, seconds: float | None = None) -> None:
        with self._joining:
            self._process.join(seconds)

    def close(self) -> None:
        """End it if it still runs, and let go of the pipe."""
        if self._process.pid is not None:
            self._process.kill()
            self._join()
        self._process.close()
        self._its_end.close()
        self._pipe.close()


@asynccontextmanager
async def children(
    trial: Trial, work: Work, each: Sequence[tuple[Any, ...]]
) -> AsyncGenerator[list[Child]]:
    """Start a child for each tuple of arguments; give them once all have opened their stores.

    Raises:
        SkipCheck: `open_store` cannot be given to a child process.
        BrokenPromiseError: A child failed.
    """
    opener = _pickled(trial, trial.open_store)
    started: list[Child] = []
    try:
        for arguments in each:
            child = Child(trial, opener, work, arguments)
            started.append(child)
            await to_its_end(in_thread(child.start))
        for child in started:
            await child.is_ready()
        yield started
    finally:  # all of them, though the check be cancelled again meanwhile
        await to_its_end(in_thread(_close, started))


def _close(started: list[Child]) -> None:
    for child in started:
        child.close()


def _pickled(trial: Trial, open_store: OpenStore) -> bytes:
    try:
        return pickle.dumps(open_store)
    except Exception as error:  # noqa: BLE001 - pickling runs anybody's code
        trial.skip(f"open_store cannot be pickled for child processes: {error}")
