"""Acknowledged changes survive a real file system that stops without writing anything more."""

from __future__ import annotations

import asyncio
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from awaiting import eventually
from conftest import scaled
from sqlite_places import cut_the_power, disk, make_image
from sqlite_samples import TIMEOUT, assert_sound, end, number, record, start, version

from phi_sessions import Expect, SessionError, SessionIOError
from phi_sessions.stores.sqlite import SQLiteSessionStore


@pytest.fixture
def image(tmp_path: Path) -> Path:
    made = tmp_path / "disk.img"
    make_image(made)
    return made


@pytest.mark.parametrize("count", [1, 2, 20])
async def test_acknowledged_changes_survive_a_power_cut(
    tmp_path: Path, image: Path, count: int
) -> None:
    with disk(image, tmp_path / "disk") as place:
        path = place / "new" / "nested" / "sessions.db"
        async with SQLiteSessionStore(path) as store:
            for n in range(count):
                await store.save(version(n, f"s-{n}"))
                await store.append(f"s-{n}", record("appended", f"s-{n}"))
            await store.save(version(0, "gone"))
            await store.delete("gone")
            cut_the_power(place)
    with disk(image, tmp_path / "disk"):
        async with SQLiteSessionStore(path) as store:
            assert await store.list_ids() == [f"s-{n}" for n in reversed(range(count))]
            for n in range(count):
                session = await store.load(f"s-{n}")
                assert (session.metadata["n"], len(session.loops)) == (n, 2)
        assert_sound(path)


async def test_changes_that_share_a_transaction_survive_a_power_cut(
    tmp_path: Path, image: Path
) -> None:
    with disk(image, tmp_path / "disk") as place:
        path = place / "sessions.db"
        async with SQLiteSessionStore(path) as store:
            for n in range(scaled(5)):
                await asyncio.gather(*(store.save(version(n, f"s-{k}")) for k in range(50)))
            cut_the_power(place)
    with disk(image, tmp_path / "disk"):
        async with SQLiteSessionStore(path) as store:
            assert len(await store.list_ids()) == 50
            assert {number(session) for session in await store.list_for_agent("a")} == {
                scaled(5) - 1
            }


async def test_the_log_is_taken_in_so_that_a_power_cut_loses_nothing(
    tmp_path: Path, image: Path
) -> None:
    with disk(image, tmp_path / "disk") as place:
        path = place / "sessions.db"
        async with SQLiteSessionStore(path) as store:
            for n in range(60):  # the log begins anew once and again
                await store.save(version(n, f"s-{n % 7}", size=100), expect=Expect.ANYTHING)
            assert path.stat().st_size > 500_000
            cut_the_power(place)
    with disk(image, tmp_path / "disk"):
        async with SQLiteSessionStore(path) as store:
            for k in range(7):
                assert number(await store.load(f"s-{k}")) == max(n for n in range(60) if n % 7 == k)
        assert_sound(path)


async def test_after_a_power_cut_every_call_fails_and_says_so(tmp_path: Path, image: Path) -> None:
    with disk(image, tmp_path / "disk") as place:
        async with SQLiteSessionStore(place / "sessions.db") as store:
            await store.save(version(1))
            session = await store.load("s-1")
            cut_the_power(place)
            changes = [
                store.save(session),
                store.save(version(1, "s-2")),
                store.append("s-1", record("x")),
                store.delete("s-1"),
            ]
            for error in await asyncio.gather(*changes, return_exceptions=True):
                assert isinstance(error, SessionIOError)
                assert error.session_id is not None
            with pytest.raises(SessionError):
                await store.append("s-1", record("y"))


async def test_a_power_cut_while_processes_change_leaves_what_was_acknowledged_or_newer(
    tmp_path: Path, image: Path
) -> None:
    for enough in (1, 7, 20):
        with disk(image, tmp_path / "disk") as place:
            path = place / "sessions.db"
            writers = [start("save_until_refused", path, f"s-{n}") for n in range(3)]
            try:
                said = [bytearray() for _ in writers]
                for writer, lines in zip(writers, said, strict=True):
                    _wait_for(writer, lines, enough)
                # Nothing is asked of those that are acknowledged while the file system stops: an
                # fsync that is under way then may succeed for nothing.
                least = [_said(writer, lines) for writer, lines in zip(writers, said, strict=True)]
                cut_the_power(place)
                for writer in writers:
                    writer.wait(TIMEOUT)
            finally:
                for writer in writers:
                    end(writer)
        with disk(image, tmp_path / "disk"):
            async with SQLiteSessionStore(path) as store:
                for n in range(3):
                    assert number(await store.load(f"s-{n}")) >= least[n]
            assert_sound(path)


def _wait_for(writer: subprocess.Popen[str], lines: bytearray, count: int) -> None:
    eventually(lambda: _said(writer, lines) >= count)


def _said(writer: subprocess.Popen[str], lines: bytearray) -> int:
    """Return the last number that a writer has said so far."""
    assert writer.stdout is not None
    os.set_blocking(writer.stdout.fileno(), False)
    with suppress(BlockingIOError):
        while part := os.read(writer.stdout.fileno(), 65536):
            lines += part
    return lines.count(b"\n")
