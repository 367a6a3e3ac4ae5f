"""Each broken store is caught by the check that is named after what it breaks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import broken_calls
import broken_files
import broken_stores
import pytest

from phi_sessions import MemorySessionStore, SessionStore
from phi_sessions.testing import CHECKS, Scale, check_store

QUICK = Scale(promptly=0.5, settling=0.05, lease_expiry=0.5, check_timeout=20)
SLOW = Scale(tasks=1)

BROKEN: list[tuple[type[SessionStore], list[str]]] = [
    (
        broken_stores.LastWriterWins,
        [
            "a_stale_save_is_refused",
            "a_save_is_made_exactly_when_its_expectation_holds",
            "of_many_holders_of_one_state_one_succeeds",
            "of_many_creators_one_succeeds",
            "updates_of_many_tasks_are_all_kept",
        ],
    ),
    (broken_stores.Resurrects, ["a_deleted_session_is_not_brought_back"]),
    (broken_stores.ChecksAndThenWrites, ["no_addition_is_lost_by_those_who_try_again"]),
    (broken_stores.MarksBeforeItChecks, ["a_stale_save_is_refused"]),
    (broken_stores.DropsUnknownKeys, ["unknown_keys_are_kept"]),
    (broken_stores.KeepsMicroseconds, ["times_keep_nine_digits"]),
    (broken_stores.CountsInFloats, ["numbers_keep_their_size_and_kind"]),
    (
        broken_stores.SharesObjects,
        [
            "each_load_gives_a_fresh_object",
            "a_change_after_the_save_is_not_stored",
            "a_session_that_cannot_be_read_again_is_refused",
            "what_cannot_be_an_id_is_refused",
        ],
    ),
    (broken_stores.CachesLoads, ["an_append_is_there_for_the_next_load"]),
    (
        broken_stores.FoldsCase,
        ["ids_that_look_alike_are_apart", "any_id_is_kept_apart_or_refused"],
    ),
    (broken_stores.LosesAppends, ["appends_of_many_tasks_are_all_kept"]),
    (
        broken_stores.AppendsAtTheEnd,
        [
            "a_loop_with_the_same_id_is_replaced_in_its_place",
            "the_same_append_twice_leaves_the_same_session",
        ],
    ),
    (
        broken_stores.AppendsInSilence,
        ["a_save_or_delete_from_before_an_append_is_refused"],
    ),
    (broken_stores.UpdatesOnce, ["updates_of_many_tasks_are_all_kept"]),
    (broken_stores.ListsByName, ["the_most_recently_saved_is_listed_first"]),
    (
        broken_stores.ListsByPages,
        ["list_ids_has_each_session_once_while_others_write"],
    ),
    (
        broken_stores.CardsByPages,
        ["a_session_that_moves_up_while_cards_are_read_has_one_card"],
    ),
    (broken_stores.HoldsWhileListing, ["whoever_has_seen_enough_may_stop"]),
    (
        broken_stores.FindsAgentsByPattern,
        ["hostile_agents_have_their_own_sessions", "an_agent_that_no_session_can_have_has_none"],
    ),
    (broken_stores.PrunesInDryRuns, ["a_dry_run_deletes_nothing"]),
    (
        broken_calls.LeavesTasks,
        ["a_cancelled_save_leaves_the_old_session_or_the_new", "a_cancelled_call_holds_no_lock"],
    ),
    (broken_calls.LeavesThreads, ["a_cancelled_save_leaves_the_old_session_or_the_new"]),
    (broken_calls.LeavesLocks, ["a_cancelled_call_holds_no_lock"]),
    (
        broken_calls.SwallowsCancels,
        ["a_cancelled_save_leaves_the_old_session_or_the_new"],
    ),
    (broken_calls.WritesInTwoSteps, ["loads_during_saves_see_one_whole_state"]),
    (broken_calls.Sleeps, ["no_blocking_call_is_made_on_the_loop"]),
    (broken_calls.SyncsOnTheLoop, ["no_blocking_call_is_made_on_the_loop"]),
    (broken_calls.WaitsForAThread, ["the_event_loop_never_stands_still"]),
    (broken_calls.Computes, ["the_event_loop_never_stands_still"]),
    (broken_calls.BelongsToOneLoop, ["two_runs_share_a_store"]),
    (broken_calls.NeverCloses, ["every_call_after_close_is_refused"]),
    (broken_calls.ClosesOnce, ["closing_twice_is_harmless"]),
    (broken_calls.LeasesToAll, ["a_lease_has_one_holder"]),
    (broken_calls.LeasesForGood, ["a_lease_is_free_after_its_holder_ends"]),
    (broken_calls.RaisesItsOwn, ["errors_tell_their_session_and_can_be_pickled"]),
    (
        broken_calls.TakesAnything,
        ["a_session_that_cannot_be_read_again_is_refused"],
    ),
]

BROKEN_FILES: list[tuple[type[SessionStore], str]] = [
    (broken_files.PickleFiles, "updates_of_many_processes_are_all_kept"),
    (broken_files.OverwritesFiles, "a_killed_saver_leaves_what_it_had_acknowledged"),
    (broken_files.WritesLater, "a_killed_saver_leaves_what_it_had_acknowledged"),
    (broken_files.NeverWrites, "what_was_stored_is_there_after_a_reopen"),
    (broken_files.CachesFiles, "store_objects_of_one_place_see_each_other_at_once"),
    (broken_files.LeasesOutliveHolders, "the_lease_of_a_killed_process_is_free"),
]


@pytest.mark.parametrize(("store", "checks"), BROKEN, ids=[store.__name__ for store, _ in BROKEN])
async def test_a_broken_store_is_caught_by_name(
    store: type[SessionStore], checks: list[str]
) -> None:
    scale = SLOW if "the_event_loop_never_stands_still" in checks else QUICK
    report = await check_store(store, processes=False, only=checks, scale=scale)
    assert {result.name for result in report.failed} == set(checks), str(report)


@pytest.mark.parametrize(
    ("store", "check"), BROKEN_FILES, ids=[store.__name__ for store, _ in BROKEN_FILES]
)
async def test_a_broken_store_of_files_is_caught_by_name(
    store: Any, check: str, tmp_path: Path
) -> None:
    scale = Scale(promptly=0.5, lease_expiry=0.5, processes=3, kills=3)
    report = await check_store(partial(store, tmp_path / "place"), only=[check], scale=scale)
    assert [result.name for result in report.failed] == [check], str(report)


async def test_a_sound_store_passes_all_that_a_broken_one_fails() -> None:
    names = {name for _, checks in BROKEN for name in checks}
    report = await check_store(MemorySessionStore, only=names, scale=QUICK)
    assert len(report.passed) == len(names), str(report)
    assert {check.name for check in CHECKS} >= names | {name for _, name in BROKEN_FILES}


@pytest.mark.parametrize(
    "store",
    [broken_stores.SharesObjects, broken_calls.LeavesLocks],
)
async def test_all_checks_come_to_an_end_however_broken_the_store_is(
    store: type[SessionStore],
) -> None:
    report = await check_store(store, processes=False, scale=QUICK)
    assert len(report.checks) == len(CHECKS)
    assert report.passed
    assert report.failed


KEPT_BY_NOTHING = {
    "a_mistaken_filter_is_an_error",
    "calls_under_way_at_a_close_end_or_are_refused",
    "closing_twice_is_harmless",
    "what_is_saved_during_a_close_is_there_if_it_was_acknowledged",
}
"""What a store keeps that does nothing: the contract's own filter, and what forbids an error."""


async def test_no_check_is_passed_by_a_store_that_does_nothing() -> None:
    scale = Scale(promptly=0.5, settling=0.0, processes=2, kills=1, check_timeout=3)
    report = await check_store(broken_calls.DoesNothing, scale=scale)
    assert {check.name for check in report.passed} == KEPT_BY_NOTHING, str(report)
    assert report.skipped == []
    unclear = [c.error for c in report.failed if "BrokenPromiseError: " not in (c.error or "")]
    assert unclear == []  # each failure says what was promised and what was found
