"""Sixteen processes that all want one session, all the time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conftest import scaled
from racing_processes import race, script

from phi_sessions import FileSystemSessionStore

PROCESSES = 16


def _hammer(directory: Path, *, seconds: int, kilobytes: int) -> list[dict[str, Any]]:
    commands = [
        script("hammer.py", directory, "shared", f"process {number}", seconds, kilobytes)
        for number in range(PROCESSES)
    ]
    return race(commands, timeout=60 + 2 * seconds)


async def test_small_saves_of_sixteen_processes_are_never_refused_and_none_is_shut_out(
    tmp_path: Path,
) -> None:
    seconds = scaled(9)
    results = _hammer(tmp_path, seconds=seconds, kilobytes=2)

    assert [refusal for result in results for refusal in result["refused"]] == []
    assert max(result["longest"] for result in results) < 5.0  # the lock timeout

    # Whoever began last is not left out, nor anybody at any time later.
    begun = max(result["begun"] for result in results)
    width = seconds / 3
    for number in range(3):
        start = begun + number * width
        end = start + width if number < 2 else float("inf")
        saved = [sum(start <= at < end for at in result["ends"]) for result in results]
        assert min(saved) > 0, f"in slice {number}: {saved}"

    async with FileSystemSessionStore(tmp_path) as store:
        session = await store.load("shared")
    assert session.loops[0].agent_id == session.agent_id
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shared.json", "shared.json.lock"]


async def test_large_saves_of_sixteen_processes_are_never_refused(tmp_path: Path) -> None:
    # Whoever has waited longest must not become the one who asks least often.
    results = _hammer(tmp_path, seconds=scaled(7), kilobytes=2048)

    assert [refusal for result in results for refusal in result["refused"]] == []
    assert max(result["longest"] for result in results) < 5.0  # the lock timeout
