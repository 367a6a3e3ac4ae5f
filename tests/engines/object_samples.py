"""Sessions to store in a bucket."""

from __future__ import annotations

from typing import Any

from phi_sessions import LoopRecord, Session

__all__ = ["a_loop", "a_session", "ids_of", "text_of"]


def a_loop(session_id: str, number: int = 0, *, agent_id: str = "agent-1", text: str = "") -> Any:
    """Return a loop record, whose size is that of `text` and a little."""
    message = {"role": "assistant", "content": [{"type": "text", "text": text or f"r {number}"}]}
    loop_id = f"{session_id}.loop.{number}"
    return LoopRecord(loop_id, session_id, agent_id, messages=[message])


def a_session(
    session_id: str = "s-1",
    agent_id: str = "agent-1",
    *,
    loops: int = 1,
    text: str = "",
    **fields: Any,
) -> Session:
    """Return a session built by hand."""
    records = [a_loop(session_id, n, agent_id=agent_id, text=text) for n in range(loops)]
    return Session(session_id, agent_id, loops=records, **fields)


def ids_of(session: Session) -> list[str]:
    """Return the ids of a session's loop records in order."""
    return session.loops.ids()  # type: ignore[attr-defined]


def text_of(session: Session, number: int) -> str:
    """Return the text of one of a session's loop records."""
    text: str = session.loops[number].messages[0]["content"][0]["text"]
    return text
