"""Processes that all change one session lose nothing as long as they heed conflicts."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import scaled
from racing_processes import race, script

from phi_sessions import (
    FileSystemSessionStore,
    Session,
    SessionConflictError,
    SessionNotFoundError,
)

PROCESSES = 4


async def test_rounds_that_retry_on_conflicts_lose_none_of_eight_hundred(tmp_path: Path) -> None:
    rounds = scaled(200)
    async with FileSystemSessionStore(tmp_path) as store:
        await store.save(Session("shared", "agent", metadata={"rounds": 0}))
        results = race(
            [
                script("conflict_rounds.py", tmp_path, "shared", f"p{n}", rounds)
                for n in range(PROCESSES)
            ],
            timeout=120 * rounds / 200,
        )
        kept = await store.load("shared")

    assert kept.metadata == {"rounds": PROCESSES * rounds}
    assert sorted(kept.loops.ids()) == sorted(
        f"p{n}.{number}" for n in range(PROCESSES) for number in range(rounds)
    )
    for n in range(PROCESSES):  # each process's own in the order in which it saved them
        own = [loop_id for loop_id in kept.loops.ids() if loop_id.startswith(f"p{n}.")]
        assert own == [f"p{n}.{number}" for number in range(rounds)]
    assert sum(result["conflicts"] for result in results) > 0  # they did race


async def test_a_stale_save_is_refused_whoever_saved_meanwhile(tmp_path: Path) -> None:
    async with FileSystemSessionStore(tmp_path) as ours, FileSystemSessionStore(tmp_path) as theirs:
        await ours.save(Session("s", "agent"))
        stale, fresh = await ours.load("s"), await theirs.load("s")
        fresh.metadata["by"] = "them"
        await theirs.save(fresh)
        stored = (tmp_path / "s.json").read_bytes()

        stale.metadata["by"] = "us"
        with pytest.raises(SessionConflictError) as caught:
            await ours.save(stale)
        assert caught.value.expected == stale.revision
        assert caught.value.found == fresh.revision
        with pytest.raises(SessionConflictError):
            await ours.save(stale)  # a refusal does not make it fresh
        assert stale.revision is not None
        with pytest.raises(SessionConflictError):
            await ours.delete("s", expect=stale.revision)
        assert (tmp_path / "s.json").read_bytes() == stored


async def test_a_stale_save_does_not_bring_a_deleted_session_back(tmp_path: Path) -> None:
    async with FileSystemSessionStore(tmp_path) as ours, FileSystemSessionStore(tmp_path) as theirs:
        await ours.save(Session("s", "agent"))
        stale = await ours.load("s")
        await theirs.delete("s")
        with pytest.raises(SessionConflictError) as caught:
            await ours.save(stale)
        assert caught.value.found is None
        with pytest.raises(SessionNotFoundError):
            await ours.load("s")
        # nor does it take the place of a later session of the same id
        later = Session("s", "agent", metadata={"later": True})
        await theirs.save(later)
        with pytest.raises(SessionConflictError):
            await ours.save(stale)
        assert (await ours.load("s")).metadata == {"later": True}
