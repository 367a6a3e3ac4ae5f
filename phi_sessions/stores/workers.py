"""A store's own few threads, and the one hop that a blocking job takes to them."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar, cast

from aiofiles.os import wrap

from ..errors import SessionTaskError
from .forking import renew_in_child

__all__ = ["Workers", "hop"]

P = ParamSpec("P")
T = TypeVar("T")

_Job = tuple["Future[Any]", "Callable[..., Any] | None", tuple[Any, ...], dict[str, Any]]


class Workers(Executor):
    """An executor whose threads start with the first job and belong to one process.

    The loop's default executor is left to others. It hands jobs over with less ado than
    `ThreadPoolExecutor` (one queue, no semaphore, no global lock), which is a fifth of a small
    save. Threads are daemons: a hop is always awaited to its end, so that at exit none is at work.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._closed = False
        self.renew()
        if count < 1:
            raise ValueError(f"workers must be at least 1: {count}")
        renew_in_child(self)

    def renew(self) -> None:
        """Forget all threads; a closed executor stays closed."""
        self._mutex = threading.Lock()
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    async def run(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `job` in a worker thread and return its result; see `hop`."""
        return await hop(self, job, *args, **kwargs)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue `fn` for the next free thread.

        Raises:
            SessionTaskError: The workers are closed, or no thread can be started.
        """
        future: Future[T] = Future()
        with self._mutex:
            if self._closed:
                raise SessionTaskError("the store is closed")
            if len(self._threads) < self._count:
                self._start()
            self._jobs.put((future, fn, args, kwargs))
        return future

    def _start(self) -> None:
        while len(self._threads) < self._count:
            name = f"{self._name}-{len(self._threads)}"
            thread = threading.Thread(target=_work, args=(self._jobs,), name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                if self._threads:
                    return
                raise SessionTaskError(f"no worker thread can be started: {error}") from error
            self._threads.append(thread)

    async def aclose(self) -> None:
        """Let queued jobs finish and the threads end; jobs that come later are refused."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            ends = [self._end_one() for _ in self._threads]
        await asyncio.gather(*map(asyncio.wrap_future, ends))

    def _end_one(self) -> Future[None]:
        end: Future[None] = Future()
        self._jobs.put((end, None, (), {}))
        return end

    def __del__(self) -> None:
        if self._threads and not self._closed:
            warnings.warn(
                f"unclosed {self._name}: use `async with`", ResourceWarning, 2, source=self
            )
            for _ in self._threads:
                self._end_one()


async def hop(executor: Executor, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `job` by way of `executor` and return its result.

    When the call is cancelled, a job that has not begun is dropped and one that has begun is
    awaited to its end, however often the call is cancelled again.
    """
    watched = _Watched(executor)
    try:
        return cast("T", await _in_thread(job, *args, executor=watched, **kwargs))
    except asyncio.CancelledError:
        await watched.settle()
        raise


def _call(job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return job(*args, **kwargs)


_in_thread = wrap(_call)  # once: wrapping costs as much as the smaller half of a hop


class _Watched(Executor):
    """Remembers the job of one call, which aiofiles keeps to itself."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._future: Future[Any] | None = None

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        self._future = future = self._executor.submit(fn, *args, **kwargs)
        return future

    async def settle(self) -> None:
        """Wait until the job is over; it is, at once, when it has not begun."""
        if self._future is None or self._future.done():
            return
        end = asyncio.wrap_future(self._future)
        while not end.done():
            try:
                await asyncio.wait([end])
            except asyncio.CancelledError:
                continue  # the first cancellation is raised once the thread is done
        end.exception()  # the cancellation is what the caller hears of


def _work(jobs: SimpleQueue[_Job]) -> None:
    while True:
        future, fn, args, kwargs = jobs.get()
        begun = future.set_running_or_notify_cancel()
        if fn is None:
            if begun:
                future.set_result(None)
            return
        if begun:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - the caller is told
                future.set_exception(error)
        del future, fn, args, kwargs  # an idle thread keeps nothing alive
