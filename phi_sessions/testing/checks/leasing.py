"""Holding a session for a whole run."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import AbstractAsyncContextManager

from ...errors import SessionLockedError
from ...lease import Lease, SupportsLease
from ...promise import Promise
from ...timestamp import Timestamp
from .. import samples
from ..check import check
from ..claims import broken, must, must_equal, must_raise
from ..elsewhere import together
from ..trial import Trial


async def is_held(store: SupportsLease, session_id: str) -> bool:
    """Return whether a lease of the session is refused just now."""
    try:
        async with store.lease(session_id):
            return False
    except SessionLockedError:
        return True


async def _enter(context: AbstractAsyncContextManager[Lease]) -> Lease:
    return await context.__aenter__()


@check(leases=True)
async def a_lease_has_one_holder(trial: Trial) -> None:
    """A second lease of a session is refused at once while there is a first; others are not."""
    name, other = trial.new_ids(2)
    async with trial.leases.lease(name), trial.leases.lease(other):
        for held in (name, other):
            begun = time.monotonic()
            must(await is_held(trial.leases, held), "a session has two holders")
            must(time.monotonic() - begun < 2, "a refusal without a timeout took 2 s")
        must(not await is_held(trial.leases, trial.new_id()), "a third session is held")
    for free in (name, other):
        must(not await is_held(trial.leases, free), "a lease that was left is held")


@check(leases=True)
async def a_refused_lease_tells_the_holder(trial: Trial) -> None:
    """The error names the holder: its owner, process, host, and since when."""
    name, before = trial.new_id(), Timestamp.utc_now()
    async with trial.leases.lease(name, owner="a longer name than the next"):
        pass
    async with trial.leases.lease(name, owner="the first") as lease:
        with must_raise(SessionLockedError, "a second lease") as refusal:
            async with trial.leases.lease(name, owner="the second"):
                broken("a session has two holders")
    must_equal(refusal.error.session_id, name, "the error's session_id")
    must_equal(refusal.error.holder, lease, "the error's holder")
    told = (lease.session_id, lease.owner, lease.pid, lease.host)
    must_equal(told, (name, "the first", os.getpid(), socket.gethostname()), "the lease")
    must(before <= lease.since <= Timestamp.utc_now(), f"the lease is since {lease.since}")


@check(leases=True)
async def an_owner_without_a_name_is_its_process(trial: Trial) -> None:
    """A holder that gives no name is told as host and process."""
    async with trial.leases.lease(trial.new_id()) as lease:
        must_equal(lease.owner, f"{socket.gethostname()}:{os.getpid()}", "the owner")


@check(leases=True)
async def a_lease_waits_as_long_as_it_is_told(trial: Trial) -> None:
    """A lease with a timeout waits it out before it is refused, and says how long it waited."""
    name = trial.new_id()
    async with trial.leases.lease(name):
        begun = time.monotonic()
        with must_raise(SessionLockedError, "a second lease") as refusal:
            async with trial.leases.lease(name, timeout=0.2):
                broken("a session has two holders")
        waited = time.monotonic() - begun
    must(waited >= 0.19, f"a timeout of 0.2 s was over after {waited:.3f} s")
    must(refusal.error.waited >= 0.19, f"the error says it waited {refusal.error.waited:.3f} s")


@check(leases=True)
async def a_waiter_gets_the_lease_when_it_is_free(trial: Trial) -> None:
    """Of those who wait each gets the lease, one at a time."""
    name, inside, held = trial.new_id(), 0, 0

    async def hold() -> None:
        nonlocal inside, held
        async with trial.leases.lease(name, timeout=trial.scale.check_timeout):
            inside += 1
            held += 1
            await asyncio.sleep(0)
            must_equal(inside, 1, "the number of holders")
            inside -= 1

    async with trial.leases.lease(name):
        waiters = [trial.start(hold()) for _ in range(trial.scale.tasks)]
        await asyncio.sleep(0.02)
        must_equal(held, 0, "the number of waiters that got a lease that is held")
    async with trial.promptly("handing a lease from one to the next", trial.scale.lease_expiry):
        await asyncio.gather(*waiters)
    must(not await is_held(trial.leases, name), "a lease that all have left is held")


@check(leases=True)
async def a_lease_is_free_after_its_holder_ends(trial: Trial) -> None:
    """An error or a cancellation inside a lease passes on, and frees it."""
    name, holds = trial.new_id(), asyncio.Event()
    with must_raise(ZeroDivisionError, "an error inside a lease"):
        async with trial.leases.lease(name):
            raise ZeroDivisionError
    must(not await is_held(trial.leases, name), "a lease is held after an error")

    async def hold() -> None:
        async with trial.leases.lease(name):
            holds.set()
            await asyncio.Event().wait()

    task = trial.start(hold())
    await asyncio.wait([task, trial.start(holds.wait())], return_when="FIRST_COMPLETED")
    must(await is_held(trial.leases, name), "a lease is not held while its holder runs")
    task.cancel()
    await asyncio.wait([task])
    must(task.cancelled(), "a cancellation inside a lease did not pass on")
    must(not await is_held(trial.leases, name), "a lease is held after a cancellation")


@check(leases=True)
async def a_lease_that_is_cancelled_while_it_is_taken_is_free(trial: Trial) -> None:
    """A cancellation at any moment of taking a lease, or of waiting for it, leaves it to others."""
    name = trial.new_id()
    for turns in range(trial.scale.cancels):
        context = trial.leases.lease(name)
        task = trial.start(_enter(context))
        for _ in range(turns % 15):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
            await context.__aexit__(None, None, None)
        must(not await is_held(trial.leases, name), f"it is held, cancelled after {turns} turns")

    async def wait() -> None:
        async with trial.leases.lease(name, timeout=trial.scale.check_timeout):
            pass

    async with trial.leases.lease(name):
        waiters = [trial.start(wait()) for _ in range(3)]
        await asyncio.sleep(0.02)
        waiters[0].cancel()
        await asyncio.wait(waiters[:1])
        must(await is_held(trial.leases, name), "a cancelled waiter freed the holder's lease")
    async with trial.promptly("a lease after a waiter was cancelled", trial.scale.lease_expiry):
        await asyncio.gather(*waiters[1:])


@check(leases=True)
async def a_lease_keeps_nobody_from_the_session(trial: Trial) -> None:
    """Loads, saves, appends, updates and deletes do not wait for a lease, and make none free."""
    session, store = trial.a_session(), trial.store
    name = session.session_id
    async with trial.leases.lease(name):
        async with trial.promptly("working on a session that is leased"):
            must(not await store.exists(name), "a lease made a session")
            must_equal(await trial.listed(), [], "the listed ids")
            await store.save(session)
            await store.append(name, samples.a_loop(name, 1))
            await together(
                *(store.update(name, lambda s: s.metadata.update(a=1)) for _ in range(3))
            )
            must_equal(len((await store.load(name)).loops), 2, "the number of loops")
            await store.delete(name)
        must(await is_held(trial.leases, name), "a delete has freed a lease")


@check(needs={Promise.PROCESSES}, leases=True)
async def store_objects_of_one_place_share_leases(trial: Trial) -> None:
    """A lease that was taken through one store object is held against another one's."""
    name, other = trial.new_id(), await trial.open_another()
    assert isinstance(other, SupportsLease)
    async with trial.leases.lease(name, owner="mine"):
        with must_raise(SessionLockedError, "a lease through another store object") as refusal:
            async with other.lease(name):
                broken("a session has two holders")
        must(refusal.error.holder is not None, "the holder is not told")
        must_equal(refusal.error.holder.owner, "mine", "the holder's owner")
    must(not await is_held(other, name), "a lease that was left is held")
