"""Deleting what is old."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

from ...timestamp import Timestamp
from .. import samples
from ..check import check
from ..claims import must_equal
from ..trial import Trial

_LONG_AGO = Timestamp.from_datetime(datetime(2020, 1, 1, tzinfo=UTC))
_YET_TO_COME = Timestamp.from_datetime(datetime(2100, 1, 1, tzinfo=UTC))
_NONE = timedelta(0)


async def _fill(trial: Trial, agent: str, count: int = 5) -> list[str]:
    """Save so many sessions that may be pruned from now on; return their ids, newest first."""
    names = trial.new_ids(count)
    for name in names:
        await trial.store.save(trial.a_session(name, agent, last_active_at=_LONG_AGO))
    await _come_of_age(trial, agent, names[::-1])
    return names[::-1]


async def _come_of_age(trial: Trial, agent: str, names: list[str]) -> None:
    """Wait until the clock has passed the saves: a store's clock may tick slowly, or go ahead."""
    async for info in trial.store.infos(agent_id=agent):
        if info.saved_at is None:
            trial.skip("the store's cards do not tell when a session was saved: none is too old")
    deadline = time.monotonic() + trial.scale.promptly
    while time.monotonic() < deadline:
        if await trial.store.prune(older_than=_NONE, agent_id=agent, dry_run=True) == names:
            return
        await asyncio.sleep(0.001)
    told = await trial.store.prune(older_than=_NONE, agent_id=agent, dry_run=True)
    must_equal(told, names, "the old sessions that a dry run tells of")


@check()
async def prune_deletes_what_is_old(trial: Trial) -> None:
    """Old sessions are deleted and named, newest first; what is active or just saved stays."""
    names = await _fill(trial, trial.agent)
    kept = await trial.store.prune(older_than=timedelta(hours=1), agent_id=trial.agent)
    must_equal(kept, [], "what was pruned though it had just been saved")
    active = trial.a_session(last_active_at=_YET_TO_COME)
    await trial.store.save(active)
    pruned = await trial.store.prune(older_than=_NONE, agent_id=trial.agent)
    must_equal(pruned, names, "what was pruned")
    must_equal(await trial.listed(), [active.session_id], "what is left")


@check()
async def a_dry_run_deletes_nothing(trial: Trial) -> None:
    """A dry run tells what would be deleted, of one agent or of all, and deletes nothing."""
    names = await _fill(trial, trial.agent)
    told = await trial.store.prune(older_than=_NONE, dry_run=True)
    mine = [name for name in told if name in names]
    must_equal(mine, names, "the sessions that a dry run over all agents tells of")
    must_equal(await trial.listed(), names, "what is left after dry runs")


@check()
async def the_last_sessions_are_kept(trial: Trial) -> None:
    """`keep_last` spares the most recently saved or appended to, and a dry run tells the same."""
    names = await _fill(trial, trial.agent)
    last = names.pop()
    await trial.clock_moves()
    await trial.store.append(last, samples.a_loop(last, 1))
    names.insert(0, last)
    await _come_of_age(trial, trial.agent, names)
    for keep_last in (len(names) + 1, len(names), 2):
        for dry_run in (True, False):
            pruned = await trial.store.prune(
                older_than=_NONE, agent_id=trial.agent, keep_last=keep_last, dry_run=dry_run
            )
            must_equal(pruned, names[keep_last:], f"what was pruned with keep_last={keep_last}")
        must_equal(await trial.listed(), names[:keep_last], "what is left")


@check()
async def only_the_agents_sessions_are_pruned(trial: Trial) -> None:
    """With `agent_id` no other agent's session is touched."""
    other = trial.new_agent("other")
    theirs = await _fill(trial, other)
    mine = await _fill(trial, trial.agent)
    pruned = await trial.store.prune(older_than=_NONE, agent_id=trial.agent)
    must_equal(pruned, mine, "what was pruned")
    must_equal(await trial.listed(), theirs, "what is left")
    nobody = trial.new_agent("nobody")
    pruned = await trial.store.prune(older_than=_NONE, agent_id=nobody)
    must_equal(pruned, [], "what was pruned of an agent without sessions")
