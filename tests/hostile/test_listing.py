"""Listing a directory while other processes save and delete in it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from conftest import scaled

from phi_sessions import FileSystemSessionStore, Session, list_session_ids, save_session

CHURN = Path(__file__).parent / "churn.py"


@pytest.fixture(params=["memory", "disk"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A directory on tmpfs, whose listings pass over what is being replaced, and on a disk."""
    if request.param == "disk":
        yield tmp_path
        return
    if not Path("/dev/shm").is_dir():
        pytest.skip("tmpfs is not at /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory)


@contextmanager
def churning(kind: str, directory: Path, count: int, seed: int) -> Iterator[None]:
    """Run churn.py, which must have done something by the end of the block."""
    child = subprocess.Popen(
        [sys.executable, str(CHURN), kind, str(directory), str(count), str(seed)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield
        stdout, _ = child.communicate("stop\n", timeout=30)
        assert child.returncode == 0
        assert json.loads(stdout)["done"] >= 4
    finally:
        child.kill()
        child.communicate()


def _fill(directory: Path, count: int, *, sidecars: bool) -> set[str]:
    """Make lasting sessions; without lock files they are as a backup leaves them."""
    path = save_session(Session("lasting-0", "agent"), directory)
    text = path.read_text()
    for number in range(1, count):
        session_id = f"lasting-{number}"
        (directory / f"{session_id}.json").write_text(text.replace("lasting-0", session_id))
        if sidecars:
            (directory / f"{session_id}.json.lock").touch(0o600)
    return {f"lasting-{number}" for number in range(count)}


async def _missed_and_doubled(
    directory: Path, lasting: set[str], listings: int
) -> tuple[set[str], list[str], set[str]]:
    missed: set[str] = set()
    doubled: list[str] = []
    strange: set[str] = set()
    async with FileSystemSessionStore(directory) as store:
        for number in range(listings):
            if number % 10 == 9:
                ids = list_session_ids(directory)
            elif number % 10 == 4:
                ids = [info.session_id async for info in store.infos(agent_id="agent")]
            else:
                ids = await store.list_ids()
            missed |= lasting - set(ids)
            doubled += [session_id for session_id, n in Counter(ids).items() if n > 1]
            strange |= {i for i in ids if not i.startswith(("lasting-", "passing-"))}
    return missed, doubled, strange


@pytest.mark.parametrize("sidecars", [True, False], ids=["saved here", "copied here"])
async def test_no_session_that_exists_all_the_time_is_missed_and_none_appears_twice(
    place: Path, sidecars: bool
) -> None:
    count = scaled(2000)
    directory = place / "sessions"
    lasting = _fill(directory, count, sidecars=sidecars)
    with ExitStack() as stack:
        stack.enter_context(churning("resave", directory, count, 1))
        stack.enter_context(churning("churn", directory, 50, 2))
        missed, doubled, strange = await _missed_and_doubled(directory, lasting, scaled(25))
    assert missed == set()
    assert doubled == []
    assert strange == set()


async def test_listings_leave_files_in_flight_of_living_writers_alone(place: Path) -> None:
    directory = place / "sessions"
    lasting = _fill(directory, 5, sidecars=True)
    with ExitStack() as stack:
        for seed in range(3):  # they save the same few, so that some file is always in flight
            stack.enter_context(churning("resave", directory, 5, seed))
        missed, doubled, _ = await _missed_and_doubled(directory, lasting, scaled(300))
    assert missed == set()
    assert doubled == []
    assert list(directory.glob("*.tmp.*")) == []
