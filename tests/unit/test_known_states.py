"""What the file store wrote last it need not read again; what another changed it always does."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import scaled
from foreign_changes import FOREIGN, ID, Foreign, Store, loop, session

from phi_sessions import (
    Expect,
    FileSystemSessionStore,
    LoopRecord,
    Session,
    SessionConflictError,
    SessionIOError,
    SessionNotFoundError,
)
from phi_sessions.stores.filesystem import directory as directory_module
from phi_sessions.stores.filesystem import known
from phi_sessions.stores.filesystem.known import Known, KnownStates
from phi_sessions.stores.filesystem.state import Bond, Stamp, State

NEW = "new"
LARGE = 80_000


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read, each time that one is."""
    made: list[str] = []
    real = os.read

    def read(fd: int, size: int) -> bytes:
        made.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        return real(fd, size)

    monkeypatch.setattr(os, "read", read)
    return made


async def appends(store: Store, held: Session) -> None:
    await store.append(ID, loop(f"{len(held.loops)}-{held.revision}"))
    fresh = await store.load(ID)
    held.loops, held.revision = fresh.loops, fresh.revision


async def appends_to_its_own(store: Store, held: Session) -> None:
    await store.append(held, loop(f"{len(held.loops)}"))


async def saves(store: Store, held: Session) -> None:
    held.loops.append(loop(f"{len(held.loops)}"))
    await store.save(held)


async def compacts(store: Store, held: Session) -> None:
    await store.compact(ID)


async def deletes(store: Store, held: Session) -> None:
    assert held.revision is not None
    await store.delete(ID, expect=held.revision)


Own = Callable[[Store, Session], Awaitable[None]]


@pytest.mark.parametrize("size", [10, LARGE], ids=["small", "large"])
@pytest.mark.parametrize(
    "calls",
    [
        [saves, appends_to_its_own, appends_to_its_own],
        [saves, saves, saves],
        [appends, appends_to_its_own, saves],
        [saves, appends_to_its_own, saves, appends_to_its_own],
        [appends, compacts, appends_to_its_own],
        [appends, compacts, saves],
        [appends, deletes],
        [saves, deletes],
    ],
    ids=lambda calls: "-".join(call.__name__ for call in calls),
)
async def test_after_a_change_of_its_own_a_change_reads_nothing(
    tmp_path: Path, reads: list[str], calls: list[Own], size: int
) -> None:
    async with FileSystemSessionStore(tmp_path) as store:
        held = session("first", size=size)
        await store.save(held)
        for call in calls:
            reads.clear()
            await call(store, held)
            if call not in (appends, compacts):  # these load, and take in a tail
                assert reads == []
        async with FileSystemSessionStore(tmp_path) as other:
            if calls[-1] is deletes:
                assert await other.find(ID) is None
            else:
                fresh = await other.load(ID)
                assert fresh.revision == held.revision
                assert fresh.loops.ids() == held.loops.ids()


async def test_after_a_fold_a_change_reads_nothing(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_module, "_SMALL", 1)
    folds = 0
    async with FileSystemSessionStore(tmp_path) as store:
        held = session("first", size=10)
        await store.save(held)
        for _ in range(20):
            reads.clear()
            tail = tmp_path / f"{ID}.json.log"
            await store.append(held, loop(f"{len(held.loops)}"))
            folds += not tail.exists()
            assert bool(reads) is not tail.exists()  # the fold itself reads
    assert 1 < folds < 10


async def result_of(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except Exception as error:
        return error


async def found_by_a_stranger(directory: Path) -> Session | Exception | None:
    """Return what a store finds that has written nothing yet: another process knows no more."""
    async with FileSystemSessionStore(directory) as stranger:
        found: Session | Exception | None = await result_of(stranger.find(ID))
        if isinstance(found, Session):
            assert [record.loop_id for record in found.loops] == found.loops.ids()  # all are read
        return found


@pytest.mark.parametrize("has_tail", [False, True], ids=["file", "file-and-tail"])
@pytest.mark.parametrize("call", ["append", "append to its own", "save", "compact", "delete"])
@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda foreign: foreign.__name__)
async def test_after_a_change_of_another_it_reads_again_and_is_right(
    tmp_path: Path, reads: list[str], foreign: Foreign, call: str, has_tail: bool
) -> None:
    directory = tmp_path / "s"
    async with FileSystemSessionStore(directory) as store:
        held = session("first", "second")
        await store.save(held)
        if has_tail:
            await store.append(held, loop("third"))
        async with FileSystemSessionStore(directory, fsync=False) as other:
            await foreign(directory, other)
        now = await found_by_a_stranger(directory)
        reads.clear()
        held.loops.append(loop(NEW)) if call == "save" else None
        was = held.revision
        assert was is not None
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "append": lambda: store.append(ID, loop(NEW)),
            "append to its own": lambda: store.append(held, loop(NEW)),
            "save": lambda: store.save(held),
            "compact": lambda: store.compact(ID),
            "delete": lambda: store.delete(ID, expect=was),
        }
        result = await result_of(calls[call]())
        after = await found_by_a_stranger(directory)
    expects = call in ("append to its own", "save", "delete")
    if isinstance(now, Exception):
        assert type(result) is type(now)
        assert type(after) is type(now)
        return
    if now is None:
        gone = SessionConflictError if expects and call != "delete" else SessionNotFoundError
        assert type(result) is gone
        assert after is None
        return
    assert reads
    if expects and now.revision != was:
        assert type(result) is SessionConflictError
        assert isinstance(after, Session)
        assert (after.revision, after.loops.ids()) == (now.revision, now.loops.ids())
        return
    assert not isinstance(result, Exception)
    if call == "delete":
        assert after is None
        return
    assert isinstance(after, Session)
    wanted = now.loops.ids() if call == "compact" else [*now.loops.ids(), NEW]
    assert after.loops.ids() == wanted


async def test_stores_that_take_turns_never_act_on_what_is_no_more(tmp_path: Path) -> None:
    chance = random.Random(5)
    loops: list[str] | None = None
    holders: list[Session | None] = [None, None, None]
    stores = [FileSystemSessionStore(tmp_path / "s", fsync=False) for _ in holders]
    conflicts = 0
    for number in range(scaled(400)):
        who = chance.randrange(len(stores))
        store, held = stores[who], holders[who]
        call = chance.choice(["append"] * 6 + ["save"] * 4 + ["compact", "delete", "load"])
        if loops is None:
            holders[who] = session(size=10)
            await store.save(holders[who], expect=Expect.ABSENT)  # type: ignore[arg-type]
            loops = []
        elif call == "append":
            await store.append(ID, loop(str(number)))
            loops.append(str(number))
        elif call == "compact":
            await store.compact(ID)
        elif call == "delete":
            await store.delete(ID)
            loops = None
        elif call == "load" or held is None:
            holders[who] = await store.load(ID)
            assert holders[who].loops.ids() == loops  # type: ignore[union-attr]
        else:
            was = held.loops.ids()
            held.loops.append(loop(str(number)))
            result = await result_of(store.save(held))
            if isinstance(result, SessionConflictError):
                holders[who], conflicts = None, conflicts + 1
                continue
            assert was == loops, "it was held by nobody but this one"
            assert result == held.revision
            loops.append(str(number))
        found = await found_by_a_stranger(tmp_path / "s")
        assert (found.loops.ids() if isinstance(found, Session) else found) == loops
    for store in stores:
        await store.aclose()
    assert conflicts > 10


@pytest.mark.parametrize("name", ["fsync", "replace", "write"])
async def test_after_a_change_that_failed_nothing_is_known(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def broken(*args: Any) -> None:
        raise OSError(5, "broken")

    async with FileSystemSessionStore(tmp_path) as store:
        held = session("first")
        await store.save(held)
        with monkeypatch.context() as patch:
            patch.setattr(os, name, broken)
            with pytest.raises(SessionIOError):
                await store.save(held)
        reads.clear()
        await store.append(ID, loop(NEW))
        assert reads
        assert (await store.load(ID)).loops.ids() == ["first", NEW]


def _state(revision: str) -> Known:
    stamp = Stamp(1, 2, 3)
    return Known(State(revision, revision, None, Bond.NONE, is_own=True, stamp=stamp), None)  # type: ignore[arg-type]


def test_no_more_than_4096_states_are_kept_the_last_ones_written() -> None:
    states = KnownStates()
    for number in range(5000):
        states.keep(f"s-{number}", _state("old"))
    kept = [number for number in range(5000) if f"s-{number}" in states._known]
    assert kept == list(range(5000 - 4096, 5000))
    for number in kept[:100]:  # written again, they are the last
        states.take(f"s-{number}")
        states.keep(f"s-{number}", _state("new"))
    for number in range(5000, 9000 - 4):
        states.keep(f"s-{number}", _state("newer"))
    assert states.take(f"s-{kept[200]}") is None
    assert len(states._known) == 4096
    assert states.take(f"s-{kept[0]}") == _state("new")
    assert states.take(f"s-{kept[0]}") is None


async def test_a_state_that_was_pushed_out_is_read_again(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "_MOST", 3)
    async with FileSystemSessionStore(tmp_path) as store:
        for number in range(5):
            await store.save(Session(f"s-{number}", "agent"))
        reads.clear()
        for number in (0, 4):
            await store.append(f"s-{number}", LoopRecord("new", f"s-{number}", "agent"))
        assert set(reads) == {"s-0.json"}
        assert len(store._directory._known._known) == 3


_FORK = """
import asyncio, os, signal, sys, threading, warnings
from phi_sessions import FileSystemSessionStore, Session
warnings.simplefilter("ignore", DeprecationWarning)  # a process with threads that forks

async def use(store):
    async with store:
        await store.save(Session("child", "agent"))
        await store.save(Session("s", "agent"))

store = FileSystemSessionStore(sys.argv[1])
asyncio.run(store.save(Session("s", "agent")))
held, go_on = threading.Event(), threading.Event()

def hold():
    with store._directory._known._mutex:  # as a worker does for a moment in each change
        held.set()
        go_on.wait(20)

thread = threading.Thread(target=hold)
thread.start()
held.wait(20)
pid = os.fork()
if not pid:
    signal.alarm(8)
    asyncio.run(use(store))
    os._exit(0)
status = os.waitpid(pid, 0)[1]
go_on.set()
thread.join()
asyncio.run(store.aclose())
sys.exit(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_forked_while_a_state_is_written_down_can_use_the_store(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FORK, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
