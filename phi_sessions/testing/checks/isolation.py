"""What happens to one session or agent leaves the others alone."""

from __future__ import annotations

from ...promise import Promise
from .. import samples
from ..check import check
from ..claims import must_be_the_same, must_equal
from ..trial import Trial


@check()
async def sessions_do_not_touch_each_other(trial: Trial) -> None:
    """Saving, appending to and deleting one session changes nothing of another."""
    kept = [trial.a_session(loops=2, metadata={"n": n}) for n in range(5)]
    for session in kept:
        await trial.store.save(session)
    await trial.store.save(trial.a_session(kept[2].session_id, metadata={"n": "replaced"}))
    await trial.store.delete(kept[3].session_id)
    await trial.store.append(kept[2].session_id, samples.a_loop(kept[2].session_id, 0, text="new"))
    for n in (0, 1, 4):
        loaded = await trial.store.load(kept[n].session_id)
        must_be_the_same(samples.plain(loaded), samples.plain(kept[n]), f"session {n}")
        must_equal(loaded.revision, kept[n].revision, f"the revision of session {n}")


@check()
async def agents_see_their_own_sessions_only(trial: Trial) -> None:
    """An agent's listing has its sessions, as a load gives them, and no other agent's."""
    agents = [trial.new_agent() for _ in range(3)]
    sessions = [trial.a_session(agent_id=agents[n % 3], loops=2) for n in range(9)]
    for session in sessions:
        await trial.store.save(session)
    for n, agent in enumerate(agents):
        found = await trial.store.list_for_agent(agent)
        expected = [each.session_id for each in sessions[n::3]][::-1]
        must_equal([each.session_id for each in found], expected, "an agent's sessions")
        for each in found:
            loaded = await trial.store.load(each.session_id)
            must_equal(each, loaded, "a listed session")
            each.metadata["changed"] = True
            await trial.store.save(each)  # what a listing gave can be saved


@check()
async def a_session_that_changes_hands_is_its_new_agents(trial: Trial) -> None:
    """A session that is saved with another agent is listed for that one and not for the old."""
    for loops in (1, 400):  # a large session may be saved by what changed
        old, new = trial.new_agent("old"), trial.new_agent("new")
        session = trial.a_session(agent_id=old, loops=loops)
        await trial.store.save(session)
        session.agent_id = new
        await trial.store.save(session)
        must_equal(await trial.store.list_for_agent(old), [], "the old agent's sessions")
        must_equal([i async for i in trial.store.infos(agent_id=old)], [], "the old agent's cards")
        found = await trial.store.list_for_agent(new)
        must_equal([each.session_id for each in found], [session.session_id], "the new agent's")
        cards = [info.session_id async for info in trial.store.infos(agent_id=new)]
        must_equal(cards, [session.session_id], "the new agent's cards")


@check(needs={Promise.PROCESSES})
async def store_objects_of_one_place_see_each_other_at_once(trial: Trial) -> None:
    """What one store object has saved, appended or deleted, another one sees with its next call."""
    one, two = trial.store, await trial.open_another()
    session = trial.a_session(metadata={"n": 0})
    name = session.session_id
    await one.save(session)
    for n in range(1, trial.scale.rounds + 1):
        seen = await two.load(name)
        must_equal(seen, session, "what the other store object loads")
        must_equal(name in await two.list_ids(), True, "whether the other one lists it")
        cards = [info.revision async for info in two.infos(agent_id=trial.agent)]
        must_equal(cards, [session.revision], "the revision on the card that it sees")
        seen.metadata["n"] = n
        await two.save(seen)
        session = await one.load(name)
        must_equal(session, seen, "what the first store object loads")
        await one.append(session, samples.a_loop(name, n))
    await two.delete(name)
    must_equal(await one.find(name), None, "what the first finds after the other's delete")
    must_equal(await trial.listed(), [], "the listed ids")
