"""What type checkers make of the public names. Never run, only checked."""
# pyright: strict

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, assert_type

from phi_sessions import (
    Expect,
    FileSystemSessionStore,
    LoopRecord,
    LoopStatus,
    MemorySessionStore,
    Revision,
    Session,
    SessionConflictError,
    SessionInfo,
    SessionIOError,
    SessionLockedError,
    SessionNotFoundError,
    SessionStore,
    Timestamp,
    Turn,
    TurnId,
    Usage,
    list_session_ids,
    load_session,
    load_sessions_for_agent,
    save_session,
)
from phi_sessions.messages import (
    AssistantMessage,
    StopReason,
    ToolCallContent,
    assistant_message,
    is_assistant_message,
    text_of,
    tool_calls_of,
    user_message,
)


async def stores(store: SessionStore) -> None:
    """A store's methods take and give what the contract says."""
    session = Session("s-1", "agent-1", metadata={"topic": "refund"})
    assert_type(await store.save(session), Revision)
    assert_type(await store.save(session, expect=Expect.ABSENT), Revision)
    assert_type(await store.save(session, expect=Revision("r")), Revision)
    assert_type(await store.load("s-1"), Session)
    assert_type(await store.find("s-1"), Session | None)
    assert_type(await store.exists("s-1"), bool)
    assert_type(await store.list_ids(), list[str])
    assert_type(await store.list_for_agent("agent-1", on_error="skip"), list[Session])
    infos = store.infos(agent_id="agent-1", active_after=datetime.now(UTC), limit=3)
    assert_type(infos, AsyncIterator[SessionInfo])
    assert_type([info async for info in infos], list[SessionInfo])
    await store.delete("s-1", expect=Expect.ANYTHING)
    await store.aclose()


async def opened() -> None:
    """`async with` gives the store's own type."""
    async with FileSystemSessionStore(Path("sessions"), fsync=False, indent=2) as store:
        assert_type(store, FileSystemSessionStore)
        assert_type(store.dir, Path)
    async with MemorySessionStore() as memory:
        assert_type(memory, MemorySessionStore)


def sessions(session: Session, info: SessionInfo) -> None:
    """Sessions behave as lists of typed loop records."""
    session.loops.append(LoopRecord("l", "s", "a", messages=[user_message("hi")]))
    session.loops += [LoopRecord("m", "s", "a")]
    loop = session.loops[0]
    assert_type(loop, LoopRecord)
    assert_type(session.loops[1:], list[LoopRecord])
    assert_type([each.loop_id for each in session.loops], list[str])
    assert_type(session.revision, Revision | None)
    assert_type(session.created_at, Timestamp)
    assert_type(session.created_at.nanosecond, int)
    assert_type(session.total_usage(), Usage)
    assert_type(Usage(1, 2) + Usage(3, 4), Usage)
    assert_type(session.root_loops(), list[LoopRecord])
    assert_type(session.get_loop("l"), LoopRecord | None)
    assert_type(session.loop_chain_to("l"), list[str])
    assert_type(session.all_messages(), list[dict[str, Any]])
    assert_type(loop.status, LoopStatus)
    assert_type(loop.get_turn(0), Turn | None)
    assert_type(loop.turns, list[Turn])
    assert_type(Turn(TurnId("l", 0), user_message("hi")).duration, timedelta)
    assert_type(info.saved_at, Timestamp | None)
    assert_type(info.size, int | None)


def messages() -> None:
    """A message is a plain object until a test narrows it."""
    message = assistant_message("hi", model="m", provider="p", usage=Usage(1, 2))
    assert_type(message, dict[str, Any])
    assert_type(text_of(message), str)
    assert_type(tool_calls_of(message), list[ToolCallContent])
    if is_assistant_message(message):
        answer: AssistantMessage = message
        assert_type(answer["stopReason"], StopReason)
        assert_type(answer["timestamp"], int)


def functions() -> None:
    """The synchronous functions take any path."""
    assert_type(save_session(Session("s", "a"), "sessions"), Path)
    assert_type(load_session("s", Path("sessions")), Session)
    assert_type(list_session_ids("sessions"), list[str])
    assert_type(load_sessions_for_agent("a", "sessions"), list[Session])


def failures(
    conflict: SessionConflictError,
    held: SessionLockedError,
    io: SessionIOError,
    missing: SessionNotFoundError,
) -> None:
    """Errors carry typed facts, and are what they extend."""
    assert_type(conflict.session_id, str | None)
    assert_type(conflict.found, str | None)
    assert_type(held.waited, float)
    assert_type(io.errno, int | None)
    errors: list[TimeoutError | OSError | LookupError] = [held, io, missing]
    assert_type(errors, list[TimeoutError | OSError | LookupError])
