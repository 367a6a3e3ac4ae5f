"""Content that would be trouble if it were taken for something else."""

from __future__ import annotations

from typing import Any, Final

from ...model import LoopRecord, Session
from .. import samples
from ..check import check
from ..claims import must_be_the_same, must_equal
from ..trial import Trial

TROUBLE: Final = (
    "'; DROP TABLE sessions; --",
    '"; DELETE FROM loops WHERE "1"="1',
    "\x00",
    "a\x00b",
    '{"loops": [], "revision": "0123456789abcdef"}',
    '"}],"loops":[{"loop_id":"injected"}]}',
    "*[?]{}%_\\",
    "\r\nSET kit injected\r\n",
    "$1 :name %s ?",
    "../../etc/passwd",
    "\u202e\u2066\ufeff",
    "]]>&<!--",
    "x" * 5_000,
    "\U0001f600" * 500,
    "",
    " ",
)


@check()
async def hostile_text_is_only_text(trial: Trial) -> None:
    """Text in messages, metadata and keys is kept as it is, whatever language it speaks."""
    name, fence = trial.new_id(), trial.a_session()
    await trial.store.save(fence)
    session = trial.a_session(name, metadata={text: text for text in TROUBLE})
    session.loops += [samples.a_loop(name, n, text=text) for n, text in enumerate(TROUBLE, 1)]
    await trial.store.save(session)
    loaded = await trial.store.load(name)
    must_be_the_same(samples.plain(loaded), samples.plain(session), "a hostile session")
    stored = await trial.store.load(fence.session_id)
    must_be_the_same(samples.plain(stored), samples.plain(fence), "the session beside it")


@check()
async def hostile_agents_have_their_own_sessions(trial: Trial) -> None:
    """Any text is an agent's id, also empty, long, or with NUL: each finds its own sessions."""
    agents = [*(trial.agent + text for text in TROUBLE), trial.agent.upper(), f" {trial.agent}", ""]
    ids = trial.new_ids(len(agents))
    for name, agent in zip(ids, agents, strict=True):
        await trial.store.save(trial.a_session(name, agent))
    for name, agent in zip(ids, agents, strict=True):
        found = await trial.store.list_for_agent(agent)
        told = [each.session_id for each in found if each.session_id in ids]
        must_equal(told, [name], f"the sessions of the agent {agent!a}")
        must_equal({each.agent_id for each in found}, {agent}, "the agents of these sessions")
        cards = [info async for info in trial.store.infos(agent_id=agent)]
        told = [info.session_id for info in cards if info.session_id in ids]
        must_equal(told, [name], f"the cards of the agent {agent!a}")
        must_equal({info.agent_id for info in cards}, {agent}, "the agents on these cards")


@check()
async def an_agent_that_no_session_can_have_has_none(trial: Trial) -> None:
    """Asking for an agent whose id no session can have, a lone surrogate, finds nothing."""
    await trial.store.save(trial.a_session())
    must_equal(len(await trial.store.list_for_agent(trial.agent)), 1, "the agent's sessions")
    for agent in ("\ud800", f"{trial.agent}\udfff", f"{trial.agent}%", f"{trial.agent}*"):
        must_equal(await trial.store.list_for_agent(agent), [], f"the sessions of {agent!a}")
        cards = [info async for info in trial.store.infos(agent_id=agent)]
        must_equal(cards, [], f"the cards of {agent!a}")


@check()
async def hostile_loop_ids_are_kept_apart(trial: Trial) -> None:
    """Any text names a loop record: it is kept, replaced and added to by that very text."""
    session = Session(trial.new_id(), trial.agent)
    alike = ["a", "A", "a ", "a\u0301", "á", "0", "00", "a\x00", "a\x00a"]
    for text in (*TROUBLE, *alike):
        session.loops.append(LoopRecord(text, session.session_id, trial.agent, metadata=text))
    await trial.store.save(session)
    for n, text in enumerate((*TROUBLE, *alike)):
        changed: Any = {"now": text}
        session.loops[n] = LoopRecord(text, session.session_id, trial.agent, metadata=changed)
        await trial.store.append(session.session_id, session.loops[n])
    loaded = await trial.store.load(session.session_id)
    must_equal(loaded.loops.ids(), [*TROUBLE, *alike], "the loop ids")
    must_be_the_same(samples.plain(loaded), samples.plain(session), "the session")
