"""Sessions to store, and a way to compare them."""

from __future__ import annotations

from typing import Any

import msgspec

from phi_sessions import LoopRecord, LoopStatus, Session, SessionStore, Turn, TurnId, Usage


def a_loop(session_id: str, number: int = 0, *, agent_id: str = "agent-1", text: str = "") -> Any:
    """Return a loop record with a turn, messages and usage."""
    loop_id = f"{session_id}.loop.{number}"
    reply = {"role": "assistant", "content": [{"type": "text", "text": text or f"reply {number}"}]}
    return LoopRecord(
        loop_id,
        session_id,
        agent_id,
        status=LoopStatus.COMPLETED,
        messages=[{"role": "user", "content": f"question {number}"}, reply],
        turns=[Turn(TurnId(loop_id, 0), reply, usage=Usage(input=number, output=1))],
        usage=Usage(input=number, output=1, total_tokens=number + 1),
        metadata={"number": number},
    )


def a_session(
    session_id: str = "s-1", agent_id: str = "agent-1", *, loops: int = 1, **fields: Any
) -> Session:
    """Return a session built by hand."""
    records = [a_loop(session_id, number, agent_id=agent_id) for number in range(loops)]
    return Session(session_id, agent_id, loops=records, **fields)


def content(session: Session) -> Session:
    """Return `session` without its revision, to be compared with another."""
    return msgspec.structs.replace(session, revision=None)


async def state(store: SessionStore) -> list[tuple[Session, Any]]:
    """Return all that a store holds, newest first, with the revisions."""
    sessions = [await store.load(session_id) for session_id in await store.list_ids()]
    return [(content(session), session.revision) for session in sessions]
