"""Adding loop records to what is stored."""

from __future__ import annotations

from ...errors import (
    SessionConflictError,
    SessionExistsError,
)
from ...model import LoopRecord, Session
from .. import samples
from ..check import check
from ..claims import must, must_be_the_same, must_equal, must_raise
from ..elsewhere import together
from ..samples import a_loop
from ..trial import Trial


def _numbers(session: Session) -> list[int]:
    """Return the numbers of a session's loops, in order."""
    return [loop.metadata["number"] for loop in session.loops]


def _said(loop: LoopRecord) -> str:
    return str(loop.messages[1]["content"][0]["text"])


@check()
async def an_append_is_there_for_the_next_load(trial: Trial) -> None:
    """Loops that are appended by id or by object come after those that were there, in order."""
    session = trial.a_session(loops=2, metadata={"kept": True})
    name = session.session_id
    revisions = [await trial.store.save(session)]
    for n in range(2, 8, 2):
        before = await trial.store.load(name)  # seen by whoever keeps what was loaded
        loops = [a_loop(name, n), a_loop(name, n + 1)]
        if n == 4:
            revisions.append(await trial.store.append(before, *loops))
            must_equal(before.revision, revisions[-1], "the object's revision after an append")
            must_equal(_numbers(before), list(range(6)), "the object's loops after an append")
        else:
            revisions.append(await trial.store.append(name, *loops))
        stored = await trial.store.load(name)
        must_equal(stored.revision, revisions[-1], "the stored revision after an append")
        must_equal(_numbers(stored), list(range(n + 2)), "the stored loops after an append")
        must_equal(stored.loops[n:], loops, "the loops that were appended")
        must_equal(stored.metadata, {"kept": True}, "the metadata after an append")
    must_equal(len(set(revisions)), 4, "the number of different revisions")


@check()
async def a_loop_with_the_same_id_is_replaced_in_its_place(trial: Trial) -> None:
    """A record whose `loop_id` is there takes that one's place; new ones go to the end."""
    session = trial.a_session(loops=3)
    name = session.session_id
    await trial.store.save(session)
    await trial.store.append(name, a_loop(name, 1, text="by id"))
    stored = await trial.store.load(name)
    must_equal([_said(x) for x in stored.loops], ["reply 0", "by id", "reply 2"], "the loops")
    await trial.store.append(stored, a_loop(name, 7), a_loop(name, 0, text="by object"))
    again = await trial.store.load(name)
    expected = ["by object", "by id", "reply 2", "reply 7"]
    must_equal([_said(loop) for loop in again.loops], expected, "the loops")
    must_be_the_same(samples.plain(stored), samples.plain(again), "the object that was appended to")


@check()
async def the_same_append_twice_leaves_the_same_session(trial: Trial) -> None:
    """An append is idempotent: whoever does not know whether it was made makes it again."""
    name = trial.new_id()
    await trial.store.save(trial.a_session(name))
    loops = [a_loop(name, 1), a_loop(name, 0, text="new"), a_loop(name, 2)]
    await trial.store.append(name, *loops)
    once = samples.plain(await trial.store.load(name))
    for _ in range(3):
        await trial.store.append(name, *loops)
    must_be_the_same(samples.plain(await trial.store.load(name)), once, "the session")


@check()
async def of_several_with_one_id_the_last_counts(trial: Trial) -> None:
    """Of several records with one `loop_id` in one append the last is stored, once."""
    session = trial.a_session(loops=1)
    name = session.session_id
    await trial.store.save(session)
    twice = [a_loop(name, n, text=f"{n} {said}") for said in ("first", "last") for n in (1, 0, 2)]
    await trial.store.append(session, *twice)
    for found in (session, await trial.store.load(name)):
        must_equal([_said(x) for x in found.loops], ["0 last", "1 last", "2 last"], "the loops")


@check()
async def appending_nothing_changes_nothing(trial: Trial) -> None:
    """An append of no loops leaves the session as it is and returns the stored revision."""
    session = trial.a_session(loops=2)
    await trial.store.save(session)
    before = samples.plain(session)
    for by_id in (True, False):
        what = session.session_id if by_id else session
        revision = await trial.store.append(what)
        stored = await trial.store.load(session.session_id)
        must_be_the_same(samples.plain(stored), before, "the session")
        must_equal(stored.revision, revision, "the stored revision")
        session = stored


@check()
async def a_stale_object_is_refused_and_stays_as_it_was(trial: Trial) -> None:
    """An append by an object from before another's append is refused; nothing has changed."""
    session = trial.a_session()
    name = session.session_id
    await trial.store.save(session)
    holder = await trial.store.load(name)
    held, found = holder.revision, await trial.store.append(name, a_loop(name, 1))
    with must_raise(SessionConflictError, "an append by a stale object") as refusal:
        await trial.store.append(holder, a_loop(name, 2))
    told = (refusal.error.expected, refusal.error.found)
    must_equal(told, (held, found), "what the conflict tells")
    must_equal((holder.revision, _numbers(holder)), (held, [0]), "the object")
    must_equal(_numbers(await trial.store.load(name)), [0, 1], "the stored loops")


@check()
async def a_save_or_delete_from_before_an_append_is_refused(trial: Trial) -> None:
    """An append makes a new revision: whoever holds the old one can no longer save or delete."""
    session = trial.a_session()
    old = await trial.store.save(session)
    name = session.session_id
    found = await trial.store.append(name, a_loop(name, 1))
    session.metadata["stale"] = True
    with must_raise(SessionConflictError, "a save from before an append") as refusal:
        await trial.store.save(session)
    must_equal(refusal.error.found, found, "the error's `found`")
    with must_raise(SessionConflictError, "a delete from before an append"):
        await trial.store.delete(name, expect=old)
    must_equal(_numbers(await trial.store.load(name)), [0, 1], "the stored loops")
    await trial.store.delete(name, expect=found)


@check()
async def a_session_that_was_never_stored_is_stored_by_an_append(trial: Trial) -> None:
    """An append by an object built by hand stores it whole, if nothing is there."""
    session = trial.a_session(metadata={"new": True})
    name = session.session_id
    revision = await trial.store.append(session, a_loop(name, 1))
    must_equal(session.revision, revision, "the object's revision")
    must_equal(await trial.store.load(name), session, "what is stored")
    other = trial.a_session(name, loops=0)
    with must_raise(SessionExistsError, "an append by an object built by hand, to what is there"):
        await trial.store.append(other, a_loop(name, 2))
    must_equal((len(other.loops), other.revision), (0, None), "the object that was refused")
    must_equal(_numbers(await trial.store.load(name)), [0, 1], "the stored loops")


@check()
async def unsaved_changes_of_the_object_are_stored_by_its_next_save(trial: Trial) -> None:
    """An append by object takes nothing away from its other changes, which its next save stores."""
    session = trial.a_session(loops=2)
    name = session.session_id
    await trial.store.save(session)
    session.metadata["mine"] = 1
    session.loops[0].messages.clear()
    session.loops.append(a_loop(name, 5))
    await trial.store.append(session, a_loop(name, 6))
    must_equal(_numbers(session), [0, 1, 5, 6], "the object's loops")
    must_equal(session.metadata, {"mine": 1}, "the object's metadata")
    stored = await trial.store.load(name)
    must(6 in _numbers(stored), "what was appended is not stored")
    await trial.store.save(session)
    stored = await trial.store.load(name)
    must_be_the_same(samples.plain(stored), samples.plain(session), "what the next save stored")


@check()
async def what_was_appended_is_not_shared_with_the_caller(trial: Trial) -> None:
    """Changing an appended record afterwards changes nothing that is stored."""
    name = trial.new_id()
    await trial.store.save(trial.a_session(name))
    loop = a_loop(name, 1)
    await trial.store.append(name, loop)
    loop.metadata["number"] = "changed later"
    must_equal(_numbers(await trial.store.load(name)), [0, 1], "the stored loops")


@check()
async def a_long_session_is_the_sum_of_its_appends(trial: Trial) -> None:
    """Appends and saves in turns, of small and large records, leave all of them in order."""
    session = trial.a_session(loops=0)
    name = session.session_id
    await trial.store.save(session)
    for n in range(trial.scale.rounds * 6):
        loop = a_loop(name, n, text="x" * (3_000 if n % 5 == 0 else 10))
        if n % 3:
            await trial.store.append(session, loop)
        else:
            session.loops.append(loop)
            await trial.store.save(session)
    stored = await trial.store.load(name)
    must_be_the_same(samples.plain(stored), samples.plain(session), "the session")
    must_equal(_numbers(stored), list(range(trial.scale.rounds * 6)), "the loops")


@check()
async def appends_of_many_tasks_are_all_kept(trial: Trial) -> None:
    """Appends by id never conflict, however many tasks make them: each is kept, each once."""
    tasks, rounds = trial.scale.tasks, trial.scale.rounds
    session = trial.a_session(loops=0)
    name = session.session_id
    await trial.store.save(session)

    async def work(task: int) -> list[str]:
        numbers = range(task * rounds, task * rounds + rounds)
        return [await trial.store.append(name, a_loop(name, n)) for n in numbers]

    revisions = sum(await together(*map(work, range(tasks))), list[str]())
    stored = await trial.store.load(name)
    must_equal(sorted(_numbers(stored)), list(range(tasks * rounds)), "the loops that were kept")
    must_equal(len(set(revisions)), tasks * rounds, "the number of different revisions")
    must_equal(stored.revision in revisions, True, "whether the stored revision was returned")
    for task in range(tasks):
        own = [n for n in _numbers(stored) if n // rounds == task]
        must_equal(own, sorted(own), "the order of one task's loops")
