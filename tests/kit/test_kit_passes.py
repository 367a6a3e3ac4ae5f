"""Sound stores keep every promise that they make."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from broken_stores import FourMethods

from phi_sessions import FileSystemSessionStore, MemorySessionStore, Promise, Session, SessionStore
from phi_sessions.testing import CHECKS, Report, Scale, check_store


def needing(*promises: Promise) -> set[str]:
    """Return the names of the checks that cannot be made without one of these promises."""
    return {
        check.name
        for check in CHECKS
        if check.needs & set(promises) or (check.reopens and Promise.RESTART in promises)
    }


def skipped(report: Report) -> set[str]:
    """Return the names of the checks that were skipped."""
    return {check.name for check in report.skipped}


async def test_the_file_store_keeps_every_promise(tmp_path: Path) -> None:
    report = await check_store(partial(FileSystemSessionStore, tmp_path / "sessions"))
    assert report.ok, str(report)
    assert skipped(report) == set()
    assert list((tmp_path / "sessions").glob("*.json")) == []


async def test_the_memory_store_keeps_every_promise_that_it_makes() -> None:
    report = await check_store(MemorySessionStore, scale=Scale(settling=0.02))
    assert report.ok, str(report)
    assert skipped(report) == needing(Promise.PROCESSES, Promise.RESTART)
    assert {check.reason for check in report.skipped} == {
        "the store does not promise 'processes'",
        "the store does not promise 'restart'",
    }


async def test_a_store_of_four_methods_keeps_every_promise_that_it_makes() -> None:
    report = await check_store(FourMethods, scale=Scale(settling=0.02))
    assert report.ok, str(report)
    reasons = {check.reason or "" for check in report.skipped}
    assert "the store has no leases" in reasons
    assert any("cards do not tell when a session was saved" in reason for reason in reasons)


async def test_reopen_makes_the_checks_of_a_store_that_can_be_opened_again(tmp_path: Path) -> None:
    def open_store() -> SessionStore:
        return FileSystemSessionStore(tmp_path)

    class NoPromises(FileSystemSessionStore):
        lacks = frozenset(Promise)

    reopening = {check.name for check in CHECKS if check.reopens}
    without = await check_store(lambda: NoPromises(tmp_path), only=reopening)
    assert skipped(without) == reopening
    given = await check_store(lambda: NoPromises(tmp_path), reopen=open_store, only=reopening)
    assert {check.name for check in given.passed} == reopening, str(given)


async def test_a_place_that_is_in_use_is_left_as_it_was(tmp_path: Path) -> None:
    themes = ("identifiers", "hostile_content", "listing", "pruning", "closing", "finding")
    names = {check.name for check in CHECKS if check.theme in themes}
    async with FileSystemSessionStore(tmp_path) as store:
        for name in ("mine", "..", "case", "0"):
            await store.save(Session(name, "somebody", metadata={"mine": name}))
        before = [await store.load(name) for name in await store.list_ids()]
        report = await check_store(partial(FileSystemSessionStore, tmp_path), only=names)
        assert report.ok, str(report)
        assert [await store.load(name) for name in await store.list_ids()] == before
