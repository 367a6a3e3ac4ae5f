"""Writers of one store that go to the disk together: brought together, watched, made to fail."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import crash_faults
from crash_faults import Operations, Real
from crash_tails import loop

from phi_sessions import Expect, FileSystemSessionStore, Session

SECONDS = 30
"""After which something that was to happen has not happened."""

_readlink = os.readlink
Call = Awaitable[Any]
NEW = "new"
DONE = {"save": [NEW], "create": [NEW], "append": ["0", "1", NEW], "start": ["0", NEW]}
"""What a session holds after a change of each kind, `delete` left out: then there is none."""

BEFORE = {"save": ["0"], "create": None, "append": ["0", "1"], "start": ["0"], "delete": ["0"]}

GROUP = {"save": 2, "create": 2, "append": 2, "start": 2, "delete": 2}
GROUP_IDS = [f"{kind}-{number}" for kind, count in GROUP.items() for number in range(count)]


class Operation(NamedTuple):
    """A file operation of a worker thread; the numbers tell what came before what."""

    name: str
    path: str
    began: int
    ended: int = -1

    @property
    def session_id(self) -> str | None:
        """The session whose file it is about, None for the directory."""
        name, found, _ = os.path.basename(self.path).partition(".json")
        return name if found else None

    @property
    def is_sync(self) -> bool:
        return self.name in ("fsync", "fdatasync")

    @property
    def brings_entries(self) -> bool:
        """Whether it brings the directory's entries to the disk."""
        return self.name == "fsync" and self.session_id is None


class Journal:
    """Context that writes down the operations of the worker threads, and when calls returned.

    Args:
        before: Called in its thread before each operation is done: it may wait, or raise.
    """

    def __init__(self, before: Callable[[Operation], None] | None = None) -> None:
        self.operations: list[Operation] = []
        self.returned: dict[str, int] = {}
        self._before = before
        self._clock = itertools.count()
        self._most = crash_faults._MOST
        self._watch = Operations(self._do, worker_threads=True)

    def __enter__(self) -> Self:
        crash_faults._MOST = 100_000
        self._watch.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._watch.__exit__(*exc)
        crash_faults._MOST = self._most

    def _do(self, number: int, name: str, real: Real, args: tuple[Any, ...]) -> Any:
        operation = Operation(name, _path(name, args), next(self._clock))
        try:
            try:
                if self._before is not None:
                    self._before(operation)
            except BaseException:
                if name == "close":  # a close that fails has closed it all the same
                    real()
                raise
            return real()
        finally:
            self.operations.append(operation._replace(ended=next(self._clock)))

    async def noted(self, session_id: str, call: Awaitable[Any]) -> Any:
        """Return what a call returns or raises, and write down when it did."""
        try:
            return await call
        except Exception as error:
            return error
        finally:
            self.returned[session_id] = next(self._clock)

    def of(self, session_id: str | None, *names: str) -> list[Operation]:
        """Return the operations with these names on a session's files, None: the directory."""
        return [o for o in self.operations if o.session_id == session_id and o.name in names]


def _path(name: str, args: tuple[Any, ...]) -> str:
    which = args[1] if name == "replace" else args[0]
    if not isinstance(which, int):
        return str(which)
    try:
        return _readlink(f"/proc/self/fd/{which}")
    except FileNotFoundError:
        return ""


@contextmanager
def held_back(store: FileSystemSessionStore) -> Iterator[Callable[[], None]]:
    """Keep a store's only thread busy, so that all who come meanwhile wait for it together.

    Gives a function that lets the thread go early.
    """
    assert store._workers._count == 1
    gate = threading.Event()
    store._workers.submit(gate.wait, SECONDS)
    try:
        yield gate.set
    finally:
        gate.set()


def waiting(store: FileSystemSessionStore) -> int:
    """Return how many calls wait for a thread to take them."""
    return sum(len(queue._orders) for queue in list(store._committer._queues.values()))


async def until(condition: Callable[[], bool], what: str = "it") -> None:
    """Return when `condition` holds; fail when it does not come to hold."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in time"
        await asyncio.sleep(0.0005)


async def in_one_group(
    store: FileSystemSessionStore, journal: Journal, calls: Mapping[str, Awaitable[Any]]
) -> dict[str, Any]:
    """Make calls, one for each session, that one thread takes along together.

    Returns:
        What each returned or raised, by session.
    """
    with held_back(store):
        tasks = [asyncio.create_task(journal.noted(*item)) for item in calls.items()]
        await until(lambda: waiting(store) == len(tasks), "a queue of all")
    async with asyncio.timeout(SECONDS):
        return dict(zip(calls, await asyncio.gather(*tasks), strict=True))


def count_hops(store: FileSystemSessionStore) -> list[str]:
    """Return a list that grows with each hop to a thread."""
    submit, hops = store._workers.submit, []

    def counted(job: Any, /, *args: Any, **kwargs: Any) -> Any:
        hops.append(repr(job))
        return submit(job, *args, **kwargs)

    store._workers.submit = counted  # type: ignore[method-assign]
    return hops


def session(session_id: str, *loop_ids: str) -> Session:
    """Return a session built by hand."""
    made = Session(session_id, "agent")
    made.loops += [loop(loop_id, session_id=session_id) for loop_id in loop_ids]
    return made


async def stored(store: FileSystemSessionStore, session_id: str) -> list[str] | None:
    """Return the ids of the loops that are stored, each read, None if there is no session."""
    found = await store.find(session_id)
    return None if found is None else [record.loop_id for record in found.loops]


def names(word: str, count: int) -> list[str]:
    """Return ids of sessions."""
    return [f"{word}-{number}" for number in range(count)]


@asynccontextmanager
async def opened(directory: Path, **options: Any) -> AsyncIterator[FileSystemSessionStore]:
    """Give a store with one thread, so that calls can be brought together."""
    async with FileSystemSessionStore(directory, workers=1, **options) as store:
        yield store


async def prepare(store: FileSystemSessionStore, counts: dict[str, int]) -> None:
    """Make so many sessions for each kind of change, called KIND-NUMBER."""
    for kind, count in counts.items():
        for session_id in names(kind, count):
            if kind != "create":
                await store.save(session(session_id, "0"))
            if kind == "append":
                await store.append(session_id, loop("1", session_id=session_id))


def changes(store: FileSystemSessionStore, counts: dict[str, int]) -> dict[str, Call]:
    """Return calls that make each change, those of each kind spread among the others."""
    ids = sorted(
        (name for kind, count in counts.items() for name in names(kind, count)),
        key=lambda name: name[::-1],
    )
    calls: dict[str, Call] = {}
    for session_id in ids:
        kind = kind_of(session_id)
        if kind == "delete":
            calls[session_id] = store.delete(session_id)
        elif kind in ("append", "start"):
            calls[session_id] = store.append(session_id, loop(NEW, session_id=session_id))
        else:
            calls[session_id] = store.save(session(session_id, NEW), expect=Expect.ANYTHING)
    return calls


def kind_of(session_id: str) -> str:
    return session_id.partition("-")[0]


def entries_reached_the_disk(journal: Journal, after: Operation, session_id: str) -> bool:
    """Whether a flush of the directory began after an operation, and ended before the return."""
    flushes = [o for o in journal.operations if o.brings_entries and o.began > after.ended]
    return any(flush.ended < journal.returned[session_id] for flush in flushes)


def assert_durable_when_it_returned(journal: Journal, session_id: str) -> None:
    """Each thing that a change needs on the disk was there before the next, and the return."""
    kind, returned = kind_of(session_id), journal.returned[session_id]
    if kind == "delete":
        unlink = journal.of(session_id, "unlink")[0]
        assert entries_reached_the_disk(journal, unlink, session_id)
    elif kind in ("save", "create"):
        (flush,), (replace,) = journal.of(session_id, "fsync"), journal.of(session_id, "replace")
        assert flush.path.startswith(f"{replace.path}.tmp.")
        assert max(o.ended for o in journal.of(session_id, "write")) < flush.began
        assert flush.ended < replace.began
        assert entries_reached_the_disk(journal, replace, session_id)
    else:
        writes, flushes = journal.of(session_id, "write"), journal.of(session_id, "fdatasync")
        assert len(writes) == len(flushes) == (1 if kind == "append" else 2)
        assert all(o.path.endswith(".json.log") for o in writes + flushes)
        assert writes[-1].ended < flushes[-1].began
        assert flushes[-1].ended < returned
        if kind == "start":  # its first line, then its entry, then what it was made for
            entries = [o for o in journal.operations if o.brings_entries]
            assert writes[0].ended < flushes[0].began
            assert [o for o in entries if flushes[0].ended < o.began < o.ended < writes[-1].began]


def lock_names(directory: Path) -> list[str]:
    """Return the ids of the sessions that have a lock file."""
    return [path.name.removesuffix(".json.lock") for path in directory.glob("*.json.lock")]
