"""What phi-core, which reads the session file alone, sees of appends and small changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from phi_sessions import FileSystemSessionStore, LoopRecord, Session


def seen(directory: Path) -> list[str]:
    return [loop["loop_id"] for loop in json.loads((directory / "s.json").read_bytes())["loops"]]


@pytest.mark.parametrize("size", [10, 200_000], ids=["small", "large"])
async def test_without_tails_every_change_is_in_the_session_file(tmp_path: Path, size: int) -> None:
    async with FileSystemSessionStore(tmp_path, tails=False) as store:
        session = Session("s", "a", loops=[LoopRecord("0", "s", "a", metadata="x" * size)])
        await store.save(session)
        await store.append("s", LoopRecord("1", "s", "a"))
        assert seen(tmp_path) == ["0", "1"]
        session = await store.load("s")
        session.loops.append(LoopRecord("2", "s", "a"))
        await store.save(session)
    assert seen(tmp_path) == ["0", "1", "2"]
    assert not (tmp_path / "s.json.log").exists()


async def test_what_was_appended_is_in_the_session_file_once_it_is_compacted(
    tmp_path: Path,
) -> None:
    async with FileSystemSessionStore(tmp_path) as store:
        await store.save(Session("s", "a"))
        await store.append("s", LoopRecord("1", "s", "a"))
        assert seen(tmp_path) == []
        await store.compact("s")
    assert seen(tmp_path) == ["1"]
