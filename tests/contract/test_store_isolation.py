"""What happens to one session or agent leaves the others alone."""

from __future__ import annotations

import pytest
from contract_samples import a_session, content

from phi_sessions import SessionStore


async def test_sessions_do_not_touch_each_other(store: SessionStore) -> None:
    kept = [a_session(f"s-{n}", loops=2, metadata={"n": n}) for n in range(5)]
    for session in kept:
        await store.save(session)
    await store.save(a_session("s-2", metadata={"n": "replaced"}))
    await store.delete("s-3")
    for n in (0, 1, 4):
        loaded = await store.load(f"s-{n}")
        assert content(loaded) == content(kept[n])
        assert loaded.revision == kept[n].revision


async def test_ids_that_look_alike_are_apart(store: SessionStore) -> None:
    alike = ["a", "A", "a ", " a", "a.", "a.json", "a.json.lock", "%61", "\uff41", "a\u0301", "á"]
    for n, session_id in enumerate(alike):
        await store.save(a_session(session_id, metadata={"n": n}))
    await store.delete("a")
    for n, session_id in enumerate(alike[1:], start=1):
        assert (await store.load(session_id)).metadata == {"n": n}
    assert not await store.exists("a")


async def test_agents_see_their_own_sessions_only(store: SessionStore) -> None:
    agents = ["a", "A", "a b", "", "a\u0301", "á", '"', "\\", "a\x00"]
    for n, agent_id in enumerate(agents * 2):
        await store.save(a_session(f"s-{n:02}", agent_id))
    for n, agent_id in enumerate(agents):
        expected = [f"s-{n + len(agents):02}", f"s-{n:02}"]
        found = await store.list_for_agent(agent_id)
        assert [session.session_id for session in found] == expected
        assert {session.agent_id for session in found} == {agent_id}
        assert [i.session_id async for i in store.infos(agent_id=agent_id)] == expected


async def test_an_agents_sessions_are_listed_as_load_gives_them(store: SessionStore) -> None:
    for n in range(3):
        await store.save(a_session(f"s-{n}", loops=2))
    for session in await store.list_for_agent("agent-1"):
        assert session == await store.load(session.session_id)
        session.metadata["changed"] = True
        await store.save(session)


@pytest.mark.parametrize("loops", [1, 400])
@pytest.mark.parametrize("new", ["new", '"', "old+"])
async def test_a_session_that_changes_hands_is_listed_for_its_new_agent(
    store: SessionStore, new: str, loops: int
) -> None:
    session = a_session("s-1", "old", loops=loops)
    await store.save(session)
    session.agent_id = new
    await store.save(session)
    assert await store.list_for_agent("old") == []
    assert [s.session_id for s in await store.list_for_agent(new)] == ["s-1"]
    assert [i.session_id async for i in store.infos(agent_id=new)] == ["s-1"]
