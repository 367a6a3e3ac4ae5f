"""What must be stored for a change to be made."""

from __future__ import annotations

from ...errors import (
    SessionConflictError,
    SessionError,
    SessionExistsError,
    SessionNotFoundError,
)
from ...model import Revision, Session
from ...store import Expect, Expectation
from .. import samples
from ..check import check
from ..claims import must, must_be_the_same, must_equal, must_raise
from ..trial import Trial

_NEVER_STORED = Revision("0123456789abcdef")


class _Case:
    """A session that is stored, or not, and those who hold an object of it."""

    def __init__(self, trial: Trial) -> None:
        self.id = trial.new_id()
        self.by_hand = trial.a_session(self.id, metadata={"by": "hand"})
        self.holders = {"a session built by hand": self.by_hand}
        self.revisions: dict[str, Expectation] = {"another revision": _NEVER_STORED}
        self.stored: Revision | None = None

    async def prepare(self, trial: Trial, *, present: bool) -> None:
        """Store the session, with a holder that is current and one that is stale, or delete it."""
        first = trial.a_session(self.id)
        old = await trial.store.save(first)
        self.revisions["the old revision"] = old
        self.holders["a stale holder"] = await trial.store.load(self.id)
        current = await trial.store.save(first)
        self.revisions["the last revision"] = current
        self.holders["the last holder"] = await trial.store.load(self.id)
        if present:
            self.stored = current
        else:
            await trial.store.delete(self.id)


def _verdict(
    stored: Revision | None, held: Revision | None, expect: Expectation
) -> type[SessionError] | None:
    """Return the error that a save must end with, None if it must be made."""
    if expect is Expect.ANYTHING or (expect is Expect.UNCHANGED and held is None):
        return None
    if expect is Expect.ABSENT:
        return None if stored is None else SessionExistsError
    wanted = held if expect is Expect.UNCHANGED else expect
    return None if stored == wanted else SessionConflictError


@check()
async def a_save_is_made_exactly_when_its_expectation_holds(trial: Trial) -> None:
    """Each `Expect` and each revision is held against what is stored, whoever holds what."""
    for present in (True, False):
        for holder in ("a session built by hand", "a stale holder", "the last holder"):
            for name in (*Expect, "the old revision", "the last revision", "another revision"):
                case = _Case(trial)
                await case.prepare(trial, present=present)
                expect = name if isinstance(name, Expect) else case.revisions[name]
                where = f"save of {holder} where one is {'stored' if present else 'deleted'}"
                await _try_to_save(trial, case, case.holders[holder], expect, f"{where}, {name!r}")


async def _try_to_save(
    trial: Trial, case: _Case, session: Session, expect: Expectation, what: str
) -> None:
    held, before = session.revision, await trial.store.find(case.id)
    session.metadata["by"] = "the save"
    wanted = samples.plain(session)
    error = _verdict(case.stored, held, expect)
    if error is None:
        revision = await trial.store.save(session, expect=expect)
        must_equal(session.revision, revision, f"the object's revision after a {what}")
        stored = await trial.store.load(case.id)
        must_be_the_same(samples.plain(stored), wanted, f"what is stored after a {what},")
        return
    with must_raise(error, what) as refusal:
        await trial.store.save(session, expect=expect)
    must_equal(refusal.error.session_id, case.id, f"the error's session_id after a {what}")
    must_equal(session.revision, held, f"the object's revision after a refused {what}")
    after = await trial.store.find(case.id)
    must_equal(after, before, f"what is stored after a refused {what}")
    if isinstance(refusal.error, SessionConflictError):
        expected = held if expect is Expect.UNCHANGED else expect
        told = (refusal.error.expected, refusal.error.found)
        must_equal(told, (expected, case.stored), f"what the conflict of a {what} tells")


@check()
async def a_delete_is_made_exactly_when_its_expectation_holds(trial: Trial) -> None:
    """Each `Expect` and each revision is held against what a delete would remove."""
    for name in (*Expect, "the old revision", "the last revision", "another revision"):
        case = _Case(trial)
        await case.prepare(trial, present=True)
        expect = name if isinstance(name, Expect) else case.revisions[name]
        error = _verdict(case.stored, None, expect)
        if error is None:
            await trial.store.delete(case.id, expect=expect)
            must(not await trial.store.exists(case.id), f"a delete, {name!r}, removed nothing")
        else:
            before = await trial.store.load(case.id)
            with must_raise(error, f"a delete, {name!r}"):
                await trial.store.delete(case.id, expect=expect)
            must_equal(await trial.store.load(case.id), before, "what a refused delete left")
            await trial.store.delete(case.id)
        with must_raise(SessionNotFoundError, f"a delete of nothing, {name!r}"):
            await trial.store.delete(case.id, expect=expect)


@check()
async def an_append_by_object_is_made_exactly_when_the_object_is_current(trial: Trial) -> None:
    """An append by object needs the state that the object came from; one by hand needs nothing."""
    for present in (True, False):
        for holder in ("a session built by hand", "a stale holder", "the last holder"):
            case = _Case(trial)
            await case.prepare(trial, present=present)
            session = case.holders[holder]
            held, before = session.revision, await trial.store.find(case.id)
            what = f"append to {holder} where one is {'stored' if present else 'deleted'}"
            error = _verdict(case.stored, held, held or Expect.ABSENT)
            if error is None:
                await trial.store.append(session, samples.a_loop(case.id, 5))
                stored = await trial.store.load(case.id)
                must_equal(stored, session, f"what is stored after an {what}")
            else:
                with must_raise(error, f"an {what}"):
                    await trial.store.append(session, samples.a_loop(case.id, 5))
                must_equal(await trial.store.find(case.id), before, f"what a refused {what} left")
                must_equal(session.revision, held, f"the object's revision after a refused {what}")
                must_equal(len(session.loops), 1, f"the object's loops after a refused {what}")


@check()
async def a_stale_save_is_refused(trial: Trial) -> None:
    """A session that came from a store replaces only the very state that it came from."""
    session = trial.a_session()
    await trial.store.save(session)
    stale, fresh = [await trial.store.load(session.session_id) for _ in range(2)]
    fresh.metadata["by"] = "fresh"
    await trial.store.save(fresh)
    stale.metadata["by"] = "stale"
    for _ in range(2):  # trying again does not help
        with must_raise(SessionConflictError, "a stale save"):
            await trial.store.save(stale)
        stored = await trial.store.load(session.session_id)
        must_equal(stored.metadata, {"by": "fresh"}, "what is stored after a stale save")
    with must_raise(SessionConflictError, "a save of the object that was saved first"):
        await trial.store.save(session)


@check()
async def a_refused_save_changes_nothing(trial: Trial) -> None:
    """After a refused save the store, its listings and the object are what they were."""
    old = trial.a_session(metadata={"by": "the first"})
    await trial.store.save(old)
    held = old.revision
    await trial.store.save(trial.a_session(old.session_id))
    await trial.store.save(trial.a_session())
    before, order = await trial.states(), await trial.listed()
    with must_raise(SessionConflictError, "a stale save"):
        await trial.store.save(old)
    with must_raise(SessionExistsError, "a creation of what is there"):
        await trial.store.save(old, expect=Expect.ABSENT)
    with must_raise(SessionConflictError, "a stale delete"):
        await trial.store.delete(old.session_id, expect=held or _NEVER_STORED)
    must_equal(await trial.states(), before, "what is stored")
    must_equal(await trial.listed(), order, "the order of the listing")
    must_equal(old.revision, held, "the object's revision")


@check()
async def a_deleted_session_is_not_brought_back(trial: Trial) -> None:
    """No save, append or update of a stale holder brings a deleted session back."""
    saved_by_hand = trial.a_session()
    name = saved_by_hand.session_id
    await trial.store.save(saved_by_hand)
    loaded = await trial.store.load(name)
    await trial.store.delete(name)
    for stale in (loaded, saved_by_hand):
        with must_raise(SessionConflictError, "a save after a delete") as refusal:
            await trial.store.save(stale)
        must_equal(refusal.error.found, None, "the error's `found`")
        with must_raise(SessionConflictError, "an append after a delete"):
            await trial.store.append(stale, samples.a_loop(name, 1))
    with must_raise(SessionNotFoundError, "an append by id after a delete"):
        await trial.store.append(name, samples.a_loop(name, 1))
    with must_raise(SessionNotFoundError, "an update after a delete"):
        await trial.store.update(name, lambda session: session.metadata.update(n=1))
    must(not await trial.store.exists(name), "the deleted session is there again")
    must_equal(await trial.listed(), [], "the listed ids")


@check()
async def one_that_was_made_anew_is_another(trial: Trial) -> None:
    """A holder from before a delete is stale even if the session was made anew, just the same."""
    first = trial.a_session(metadata={"n": 0})
    await trial.store.save(first)
    await trial.store.delete(first.session_id)
    second = samples.a_session(first.session_id, trial.agent, metadata={"n": 0})
    await trial.store.save(second, expect=Expect.ABSENT)
    with must_raise(SessionConflictError, "a save of the holder from before"):
        await trial.store.save(first)
    await trial.store.save(second)


@check()
async def one_holder_saves_again_and_again(trial: Trial) -> None:
    """After each save the object is the holder of the new state, and a load is not needed."""
    session = trial.a_session(loops=0)
    for n in range(trial.scale.rounds):
        session.loops.append(samples.a_loop(session.session_id, n))
        await trial.store.save(session)
    stored = await trial.store.load(session.session_id)
    must_equal(stored, session, "what is stored")


@check()
async def a_saved_card_serves_as_a_precondition(trial: Trial) -> None:
    """The revision on a session's card is the one that a save or delete may expect."""
    session = trial.a_session()
    await trial.store.save(session)
    info = await trial.card()
    await trial.store.save(trial.a_session(session.session_id), expect=info.revision)
    with must_raise(SessionConflictError, "a delete that expects the card from before"):
        await trial.store.delete(session.session_id, expect=info.revision)
    info = await trial.card()
    await trial.store.delete(session.session_id, expect=info.revision)
