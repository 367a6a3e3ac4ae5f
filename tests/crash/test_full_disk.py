"""A disk that is full, or a file that grows too large, is told and leaves the old state."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_mounts import tmpfs
from crash_sessions import ID, contents, in_flight, lock_is_free, stored, version
from crash_tails import TORN, loop

from phi_sessions import (
    FileSystemSessionStore,
    SaveOutcomeUnknownError,
    Session,
    SessionIOError,
    SessionStore,
)

_LARGE = 300_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with tmpfs(tmp_path / "small", "size=1m,nr_inodes=32") as place:
        yield place


async def _refused(store: SessionStore, directory: Path, size: int, number: int) -> None:
    session = version(2, size=size)
    with pytest.raises(SessionIOError) as raised:
        await store.save(session)
    assert raised.value.errno == number
    assert not isinstance(raised.value, SaveOutcomeUnknownError)
    assert session.revision is None
    assert not in_flight(directory)
    assert lock_is_free(directory)


async def test_a_full_disk_leaves_the_old_state_and_works_again_with_space(
    small_disk: Path,
) -> None:
    directory = small_disk / "sessions"
    async with FileSystemSessionStore(directory) as store:
        await store.save(version(1))
        (small_disk / "filler").write_bytes(b"x" * 900_000)

        await _refused(store, directory, _LARGE, errno.ENOSPC)
        assert stored(directory) == contents(version(1))
        assert await store.list_ids() == [ID]

        (small_disk / "filler").unlink()
        await store.save(version(2, size=_LARGE))
        assert contents(await store.load(ID)) == contents(version(2, size=_LARGE))


async def test_an_append_that_found_no_space_is_no_save(small_disk: Path) -> None:
    directory = small_disk / "sessions"
    async with FileSystemSessionStore(directory) as store:
        for name in ("without-tail", "with-tail", "newest"):
            await store.save(Session(name, "agent"))
            if name == "with-tail":
                await store.append(name, loop("first", session_id=name))
            await asyncio.sleep(0.01)  # so long that a file's time of change is another
        before = [info async for info in store.infos()]
        assert [info.session_id for info in before] == ["newest", "with-tail", "without-tail"]
        for name in ("without-tail", "with-tail"):
            with pytest.raises(SessionIOError):
                await store.append(name, loop("large", 2_000_000, name))
        assert [info async for info in store.infos()] == before
        assert await store.list_ids() == [info.session_id for info in before]


async def test_a_delete_makes_space_on_a_full_disk(small_disk: Path) -> None:
    directory = small_disk / "sessions"
    async with FileSystemSessionStore(directory) as store:
        await store.save(version(1, session_id="large", size=_LARGE))
        with open(small_disk / "filler", "wb", buffering=0) as filler, pytest.raises(OSError):
            while True:
                filler.write(b"x" * 4096)
        await _refused(store, directory, 4000, errno.ENOSPC)
        await store.delete("large")
        await store.save(version(2))
        assert await store.list_ids() == [ID]


async def test_a_disk_without_room_for_another_file_refuses_and_works_again(
    small_disk: Path,
) -> None:
    directory = small_disk / "sessions"
    async with FileSystemSessionStore(directory) as store:
        await store.save(version(1))
        fillers = list(_fill_with_files(small_disk))

        await _refused(store, directory, 4000, errno.ENOSPC)
        assert stored(directory) == contents(version(1))

        fillers[0].unlink()
        await store.save(version(2))
        assert stored(directory) == contents(version(2))


def _fill_with_files(place: Path) -> Iterator[Path]:
    while os.statvfs(place).f_ffree:
        path = place / f"filler-{os.statvfs(place).f_ffree}"
        path.touch()
        yield path


async def test_a_torn_line_that_finds_no_space_of_its_own_leaves_no_files_behind(
    small_disk: Path,
) -> None:
    directory = small_disk / "sessions"
    async with FileSystemSessionStore(directory) as store:
        await store.save(Session(ID, "agent"))
        await store.append(ID, loop("first"))
        with (directory / f"{ID}.json.log").open("ab") as tail:
            tail.write(TORN)
        with pytest.raises(OSError, match="No space"):
            (small_disk / "filler").write_bytes(b"x" * 2_000_000)
        files = sorted(os.listdir(directory))
        for _ in range(2):
            with pytest.raises(SessionIOError) as raised:
                await store.append(ID, loop("second"))
            assert raised.value.errno == errno.ENOSPC
            assert sorted(os.listdir(directory)) == files

        (small_disk / "filler").unlink()
        await store.append(ID, loop("second"))
        assert (await store.load(ID)).loops.ids() == ["first", "second"]
        [aside] = directory.glob("*.aside.*")
        assert aside.read_bytes() == TORN


async def test_a_first_save_on_a_full_disk_is_refused_and_works_again(small_disk: Path) -> None:
    directory = small_disk / "new" / "nested"
    fillers = list(_fill_with_files(small_disk))
    async with FileSystemSessionStore(directory) as store:
        await _refused(store, directory, 4000, errno.ENOSPC)
        assert not await store.exists(ID)
        for filler in fillers:
            filler.unlink()
        await store.save(version(2))
        assert stored(directory) == contents(version(2))


async def test_a_disk_that_became_read_only_refuses_and_works_again(small_disk: Path) -> None:
    directory = small_disk / "sessions"
    remount = ["mount", str(small_disk), "-o"]
    async with FileSystemSessionStore(directory) as store:
        await store.save(version(1))
        subprocess.run([*remount, "remount,ro"], check=True, timeout=30)

        await _refused(store, directory, 4000, errno.EROFS)
        assert contents(await store.load(ID)) == contents(version(1))
        assert await store.list_ids() == [ID]
        with pytest.raises(SessionIOError) as raised:
            await store.delete(ID)
        assert raised.value.errno == errno.EROFS

        subprocess.run([*remount, "remount,rw"], check=True, timeout=30)
        await store.save(version(2))
        assert stored(directory) == contents(version(2))


_LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from crash_sessions import ID, contents, in_flight, lock_is_free, stored, version
from phi_sessions import FileSystemSessionStore, SessionIOError

async def main(directory):
    async with FileSystemSessionStore(directory) as store:
        await store.save(version(1))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            await store.save(version(2, size=300_000))
        except SessionIOError as error:
            print(type(error).__name__, error.errno)
        assert stored(directory) == contents(version(1))
        assert not in_flight(directory) and lock_is_free(directory)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await store.save(version(2, size=300_000))
        assert stored(directory) == contents(version(2, size=300_000))

asyncio.run(main(Path(sys.argv[1])))
"""


def test_a_file_that_may_not_grow_is_refused_and_works_again(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", _LIMITED, str(tmp_path / "sessions")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr) == (f"SessionIOError {errno.EFBIG}\n", "")
