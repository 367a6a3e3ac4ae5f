"""A file system that knows no fractions of a second: there two states may look the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_mounts import disk, make_image

from phi_sessions import FileSystemSessionStore, Session, SessionConflictError


@pytest.fixture
def whole_seconds(tmp_path: Path) -> Iterator[Path]:
    make_image(tmp_path / "image", "-I", "128")  # inodes too small for fractions
    with disk(tmp_path / "image", tmp_path / "disk") as place:
        yield place


async def test_a_stale_save_is_refused_where_times_have_no_fractions(whole_seconds: Path) -> None:
    async with (
        FileSystemSessionStore(whole_seconds / "s") as store,
        FileSystemSessionStore(whole_seconds / "s") as other,
    ):
        for number in range(5):
            session = Session(f"s-{number}", "agent", metadata={"by": "-"})
            await store.save(session)
            theirs = await other.load(session.session_id)
            for by in ("x", "y"):  # the second file gets the inode of the first
                theirs.metadata["by"] = by
                await other.save(theirs)
            session.metadata["by"] = "z"
            with pytest.raises(SessionConflictError):
                await store.save(session)
            assert (await store.load(session.session_id)).metadata == {"by": "y"}
