"""Seeded sessions of a wanted size, such as an agent would record."""

from __future__ import annotations

from random import Random

import msgspec

from phi_sessions import (
    LoopConfigSnapshot,
    LoopEvent,
    LoopRecord,
    LoopStatus,
    Session,
    SessionFormation,
    Timestamp,
    Turn,
    TurnId,
    Usage,
)
from phi_sessions.messages import (
    assistant_message,
    text_content,
    tool_call_content,
    tool_result_message,
    user_message,
)
from phi_sessions.record import enc_hook

__all__ = ["SIZES", "TURN_BYTES", "agent_of", "make_record", "make_session", "make_turn"]

SIZES = {
    "2 KB": (2_000, 1),
    "20 KB": (20_000, 8),
    "200 KB": (200_000, 30),
    "2 MB": (2_000_000, 80),
    "20 MB": (20_000_000, 200),
}
"""Bytes of a session's file, and how many loop records it has."""

TURN_BYTES = 2_000
"""Bytes of the loop record that an agent's latest turn adds."""

_HEAD_BYTES = 330
_LEAST = 1_580
_BEGAN = 1_768_469_400_000_000_000
_STEP = 7_123_456_789
_PROSE = (
    "the a of and to in is that for it with as was on be by at this which or from but not what all "
    "were when we there can an your more has will one about if up out them then she many some so "
    'session turn loop "quoted" path\\to\\file tab\tseparated {"key":[1,2]} naïve Grüße 東京 🙂 '
    "result=42 https://example.com/a?b=c&d=e\n"
)
_WORDS = _PROSE.split(" ")

_encode = msgspec.json.Encoder(enc_hook=enc_hook).encode


def make_session(session_id: str, size: int, *, records: int, seed: int = 1) -> Session:
    """Return a session of `records` loops whose file takes about `size` bytes.

    The last loop takes about `TURN_BYTES` where there are several, the others share the rest.
    """
    random = Random(f"{seed} {session_id} {size}")
    agent_id = agent_of(seed)
    budget = size - _HEAD_BYTES
    sizes = [budget]
    if records > 1:
        sizes = [(budget - TURN_BYTES) // (records - 1)] * (records - 1) + [TURN_BYTES]
    session = Session(
        session_id,
        agent_id,
        created_at=Timestamp.from_nanoseconds(_BEGAN),
        last_active_at=Timestamp.from_nanoseconds(_BEGAN + records * _STEP),
        formation=SessionFormation.by_hand(Timestamp.from_nanoseconds(_BEGAN)),
        metadata={"title": "a benchmark", "tags": ["seeded"]},
    )
    for number, share in enumerate(sizes):
        session.loops.append(make_record(random, session_id, agent_id, number, share))
    return session


def agent_of(seed: int) -> str:
    """Return the agent of the sessions of `seed`."""
    return f"agent-{seed}"


def make_record(
    random: Random, session_id: str, agent_id: str, number: int, size: int
) -> LoopRecord:
    """Return a loop record of about `size` bytes."""
    loop_id = f"{session_id}.default.{number}"
    began = _BEGAN + number * _STEP
    record = LoopRecord(
        loop_id,
        session_id,
        agent_id,
        started_at=Timestamp.from_nanoseconds(began),
        ended_at=Timestamp.from_nanoseconds(began + _STEP),
        status=LoopStatus.COMPLETED,
        config=LoopConfigSnapshot("model-1", "provider-1", "config-1", context_window=200_000),
        usage=_usage(random),
    )
    left = size - len(_encode(record))
    record.messages.append(user_message("", timestamp=began // 1_000_000))
    left -= len(_encode(record.messages[0]))
    while left > _LEAST + 200:
        left -= _add_turn(record, random, min(left, random.randint(_LEAST, 5_000)))
    record.messages[0]["content"] = [text_content(_text(random, max(left - 35, 1)))]
    return record


def make_turn(random: Random, session_id: str, number: int) -> LoopRecord:
    """Return the loop record that an agent's latest turn adds, its `number`th."""
    return make_record(random, session_id, agent_of(1), number, TURN_BYTES)


def _add_turn(record: LoopRecord, random: Random, size: int) -> int:
    index = len(record.turns)
    turn_id = TurnId(record.loop_id, index)
    millis = _BEGAN // 1_000_000 + index
    call = f"call_{index}"
    spent = _usage(random)
    output = assistant_message(
        [tool_call_content(call, "read_file", {"path": f"src/file_{index}.py", "limit": 200})],
        model="model-1",
        provider="provider-1",
        stop_reason="toolUse",
        usage=spent,
        timestamp=millis,
        turn_id=turn_id,
    )
    # The tool's answer stands in the turn and among the messages: half of what is left each.
    answer = _text(random, max((size - _LEAST) // 2, 10))
    result = tool_result_message(call, "read_file", answer, timestamp=millis, turn_id=turn_id)
    began = Timestamp.from_nanoseconds(_BEGAN + index * 1_000_003)
    turn = Turn(
        turn_id, output, tool_results=[result], usage=spent, started_at=began, ended_at=began
    )
    event = LoopEvent(index, {"type": "turnEnd", "loopId": record.loop_id, "turnIndex": index})
    record.turns.append(turn)
    record.messages += [output, result]
    record.events.append(event)
    return len(_encode([turn, output, result, event])) + 2


def _usage(random: Random) -> Usage:
    read, wrote = random.randint(1_000, 99_999), random.randint(100, 9_999)
    return Usage(read, wrote, 0, random.randint(0, 99_999), 0, read + wrote)


def _text(random: Random, size: int) -> str:
    """Return words that take about `size` bytes as JSON."""
    words: list[str] = []
    while size > 0:
        word = random.choice(_WORDS)
        words.append(word)
        size -= len(msgspec.json.encode(word)) - 1
    return " ".join(words)
