"""What the file store tells of a session by its files: its time, and whether it was written."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from phi_sessions import (
    FileSystemSessionStore,
    LoopRecord,
    SaveOutcomeUnknownError,
    Session,
    SessionEncodeError,
    SessionExistsError,
    SessionInfo,
)
from phi_sessions.stores.filesystem import disk

DAY = 86_400_000_000_000  # nanoseconds


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FileSystemSessionStore]:
    async with FileSystemSessionStore(tmp_path) as made:
        yield made


def loop(loop_id: str, session_id: str, *, size: int = 10) -> LoopRecord:
    return LoopRecord(loop_id, session_id, "a", metadata={"x": "x" * size})


async def card(store: FileSystemSessionStore, session_id: str) -> SessionInfo:
    [info] = [info async for info in store.infos() if info.session_id == session_id]
    return info


@pytest.mark.parametrize("which", ["session file", "tail"])
async def test_a_session_that_is_compacted_was_saved_when_it_was(
    store: FileSystemSessionStore, which: str
) -> None:
    for name in ("old", "new"):
        await store.save(Session(name, "a", loops=[loop("0", name)]))
        await store.append(name, loop("1", name))
    then = (await card(store, "new")).saved_at.nanoseconds - DAY  # type: ignore[union-attr]
    earlier = then - DAY
    times = (then, earlier) if which == "session file" else (earlier, then)
    for suffix, when in zip(("json", "json.log"), times, strict=True):
        os.utime(store.dir / f"old.{suffix}", ns=(when, when))
    before = await card(store, "old")
    assert before.saved_at is not None
    assert before.saved_at.nanoseconds == then
    await store.compact("old")
    assert not (store.dir / "old.json.log").exists()
    after = await card(store, "old")
    assert after.saved_at is not None
    assert 0 <= after.saved_at.nanoseconds - then <= 1
    assert after.revision == before.revision
    assert await store.list_ids() == ["new", "old"]
    old = timedelta(hours=12)
    async with FileSystemSessionStore(store.dir) as other:
        session = await other.load("old")
        assert session.loops.ids() == ["0", "1"]
    assert await store.prune(older_than=old) == []  # it was active just now


async def test_cutting_a_torn_line_is_no_save(store: FileSystemSessionStore) -> None:
    await store.save(Session("s", "a", loops=[loop("0", "s")]))
    await store.append("s", loop("1", "s"))
    tail = store.dir / "s.json.log"
    with tail.open("ab") as file:
        file.write(b"torn")
    then = tail.stat().st_mtime_ns + DAY
    os.utime(tail, ns=(then, then))
    assert [finding.mended for finding in await store.check(repair=True)] == [True]
    assert tail.stat().st_mtime_ns == then


async def test_a_first_append_whose_outcome_is_unknown_can_be_made_again(
    store: FileSystemSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.save(Session("other", "a"))  # the directory is there
    real = disk.sync_directory

    def fails(fd: int) -> None:
        raise OSError(errno.EIO, "broken")

    session = Session("s", "a")
    monkeypatch.setattr(disk, "sync_directory", fails)
    with pytest.raises(SaveOutcomeUnknownError):
        await store.append(session, loop("0", "s"))
    monkeypatch.setattr(disk, "sync_directory", real)
    assert session.revision == (await store.load("s")).revision
    await store.append(session, loop("0", "s"))
    await store.append(session, loop("1", "s"))
    assert (await store.load("s")).loops.ids() == session.loops.ids() == ["0", "1"]
    with pytest.raises(SessionExistsError):
        await store.append(Session("s", "a"), loop("2", "s"))


async def test_what_fits_a_tail_fits_the_session_file(tmp_path: Path) -> None:
    async with FileSystemSessionStore(tmp_path, max_bytes=100_000) as store:
        await store.save(Session("s", "a", loops=[loop("0", "s", size=40_000)]))
        added = 0
        for size in (300, 30, 3, 1):  # as close to the limit as it goes
            for _ in range(200):
                loops = [loop(f"{added}-{n}", "s", size=0) for n in range(size)]
                try:
                    await store.append("s", *loops)
                except SessionEncodeError:
                    break
                added += 1
        before = await store.load("s")
        await store.compact("s")
        assert await store.load("s") == before
