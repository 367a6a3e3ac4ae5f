"""Acknowledged changes survive a real file system that stops without writing anything more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import scaled
from crash_mounts import cut_the_power, disk, make_image
from crash_sessions import contents, stored, version

from phi_sessions import FileSystemSessionStore, delete_session, list_session_ids, save_session

_WRITER = """
import sys
from crash_sessions import version
from phi_sessions import SessionIOError, save_session

directory, session_id = sys.argv[1:]
number = 0
while True:
    number += 1
    try:
        save_session(version(number, session_id=session_id), directory)
    except SessionIOError:
        break
    print(number, flush=True)
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    made = tmp_path / "disk.img"
    make_image(made)
    return made


async def test_acknowledged_saves_survive_a_power_cut(tmp_path: Path, image: Path) -> None:
    count = scaled(20)
    with disk(image, tmp_path / "disk") as place:
        directory = place / "new" / "nested"
        async with FileSystemSessionStore(directory) as store:
            for number in range(count):
                await store.save(version(1, session_id=f"s-{number}"))
                await store.save(version(2, session_id=f"s-{number}"))
            cut_the_power(place)
    with disk(image, tmp_path / "disk"):
        assert len(list_session_ids(directory)) == count
        for number in range(count):
            expected = contents(version(2, session_id=f"s-{number}"))
            assert stored(directory, f"s-{number}") == expected


def test_acknowledged_deletes_survive_a_power_cut(tmp_path: Path, image: Path) -> None:
    with disk(image, tmp_path / "disk") as place:
        for number in range(10):
            save_session(version(1, session_id=f"s-{number}"), place / "sessions")
        for number in range(5):
            delete_session(f"s-{number}", place / "sessions")
        cut_the_power(place)
    with disk(image, tmp_path / "disk") as place:
        assert sorted(list_session_ids(place / "sessions")) == [f"s-{n}" for n in range(5, 10)]


async def test_without_fsync_a_power_cut_undoes_saves(tmp_path: Path, image: Path) -> None:
    with disk(image, tmp_path / "disk") as place:
        directory = place / "sessions"
        save_session(version(1), directory)
        async with FileSystemSessionStore(directory, fsync=False) as store:
            await store.save(version(2))
            await store.save(version(2, session_id="another"))
            cut_the_power(place)
    with disk(image, tmp_path / "disk"):
        assert stored(directory) == contents(version(1))
        assert list_session_ids(directory) == ["s"]


def test_a_power_cut_while_processes_save_leaves_what_was_acknowledged_or_newer(
    tmp_path: Path, image: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    for enough in (1, 7, 20):
        with disk(image, tmp_path / "disk") as place:
            directory = place / "sessions"
            writers = [
                subprocess.Popen(
                    [sys.executable, "-P", "-c", _WRITER, str(directory), f"s-{number}"],
                    stdout=subprocess.PIPE,
                    text=True,
                    env=environment,
                )
                for number in range(3)
            ]
            try:
                for writer in writers:
                    assert writer.stdout is not None
                    for _ in range(enough):
                        assert writer.stdout.readline()
                cut_the_power(place)
                said = [writer.stdout.read().split() for writer in writers if writer.stdout]
            finally:
                for writer in writers:
                    writer.kill()
                    writer.communicate(timeout=30)
        acknowledged = [int(lines[-1]) if lines else enough for lines in said]
        with disk(image, tmp_path / "disk"):
            for number, least in enumerate(acknowledged):
                session_id = f"s-{number}"
                found = stored(directory, session_id)
                assert found in [
                    contents(version(least, session_id=session_id)),
                    contents(version(least + 1, session_id=session_id)),
                ]
