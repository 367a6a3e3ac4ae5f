"""Messages are built in exactly phi-core's shapes and read as phi-core reads them."""

from __future__ import annotations

import time
from typing import Any, get_args

import pytest

from phi_sessions import LoopRecord, Session, SessionStore, TurnId, Usage
from phi_sessions.messages import (
    StopReason,
    assistant_message,
    extension_message,
    image_content,
    is_assistant_message,
    is_extension_message,
    is_tool_result_message,
    is_user_message,
    text_content,
    text_of,
    thinking_content,
    tool_call_content,
    tool_calls_of,
    tool_result_message,
    user_message,
)

TURN = TurnId("l.1", 3)
GUARDS = {
    "user": is_user_message,
    "assistant": is_assistant_message,
    "toolResult": is_tool_result_message,
    "extension": is_extension_message,
}
NO_USAGE = {
    "input": 0,
    "output": 0,
    "reasoning": 0,
    "cache_read": 0,
    "cache_write": 0,
    "total_tokens": 0,
}


def read_as(message: dict[str, Any]) -> list[str]:
    return [name for name, guard in GUARDS.items() if guard(message)]


# Building -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (text_content("hi"), {"type": "text", "text": "hi"}),
        (
            image_content("R0lG", "image/gif"),
            {"type": "image", "data": "R0lG", "mimeType": "image/gif"},
        ),
        (thinking_content("hm"), {"type": "thinking", "thinking": "hm"}),
        (
            thinking_content("hm", "c2ln"),
            {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        ),
        (
            tool_call_content("c1", "search", {"q": 1}),
            {"type": "toolCall", "id": "c1", "name": "search", "arguments": {"q": 1}},
        ),
        (
            tool_call_content("c1", "search", None),
            {"type": "toolCall", "id": "c1", "name": "search", "arguments": None},
        ),
    ],
)
def test_contents(content: dict[str, Any], expected: dict[str, Any]) -> None:
    assert content == expected


def test_user_messages() -> None:
    assert user_message("hi", timestamp=5) == {
        "role": "user",
        "content": [{"type": "text", "text": "hi"}],
        "timestamp": 5,
    }
    parts = (text_content("a"), image_content("R0lG", "image/gif"))
    assert user_message(parts, timestamp=0, turn_id=TURN) == {
        "role": "user",
        "content": list(parts),
        "timestamp": 0,
        "turnId": {"loopId": "l.1", "turnIndex": 3},
    }


def test_assistant_messages() -> None:
    assert assistant_message("ok", model="m", provider="p", timestamp=5) == {
        "role": "assistant",
        "content": [{"type": "text", "text": "ok"}],
        "stopReason": "stop",
        "model": "m",
        "provider": "p",
        "usage": NO_USAGE,
        "timestamp": 5,
    }
    full = assistant_message(
        (part for part in [tool_call_content("c1", "search", [])]),
        model="m",
        provider="p",
        stop_reason="toolUse",
        usage=Usage(1, 2, 3, 4, 5, 6),
        timestamp=2**64 - 1,
        error_message="boom",
        turn_id=TURN,
    )
    assert full == {
        "role": "assistant",
        "content": [{"type": "toolCall", "id": "c1", "name": "search", "arguments": []}],
        "stopReason": "toolUse",
        "model": "m",
        "provider": "p",
        "usage": dict(zip(NO_USAGE, (1, 2, 3, 4, 5, 6), strict=True)),
        "timestamp": 2**64 - 1,
        "error_message": "boom",
        "turnId": {"loopId": "l.1", "turnIndex": 3},
    }


def test_tool_results() -> None:
    assert tool_result_message("c1", "search", "out", timestamp=5) == {
        "role": "toolResult",
        "toolCallId": "c1",
        "toolName": "search",
        "content": [{"type": "text", "text": "out"}],
        "isError": False,
        "timestamp": 5,
    }
    full = tool_result_message("c1", "search", [], is_error=True, timestamp=5, turn_id=TURN)
    assert full == {
        "role": "toolResult",
        "toolCallId": "c1",
        "toolName": "search",
        "content": [],
        "isError": True,
        "timestamp": 5,
        "turnId": {"loopId": "l.1", "turnIndex": 3},
    }


def test_extension_messages() -> None:
    assert extension_message("note", None) == {"role": "extension", "kind": "note", "data": None}
    assert extension_message("note", [1], role="narrator") == {
        "role": "narrator",
        "kind": "note",
        "data": [1],
    }


def test_the_time_is_now_in_milliseconds_by_default() -> None:
    before = time.time_ns() // 1_000_000
    stamps = [
        user_message("x")["timestamp"],
        assistant_message("x", model="m", provider="p")["timestamp"],
        tool_result_message("c", "n", "x")["timestamp"],
    ]
    after = time.time_ns() // 1_000_000
    assert all(type(stamp) is int and before <= stamp <= after for stamp in stamps)


def test_the_stop_reasons_are_phi_cores() -> None:
    expected = "stop length toolUse error aborted maxTurns userStop handoff guardRail "
    expected += "contextCompacted paused"
    assert list(get_args(StopReason)) == expected.split()


async def test_built_messages_come_back_as_they_were(store: SessionStore) -> None:
    messages = [
        user_message("hi", turn_id=TURN),
        assistant_message([thinking_content("hm")], model="m", provider="p", error_message="e"),
        tool_result_message("c", "n", "x", is_error=True),
        extension_message("k", {"x": [1.5]}),
    ]
    record = LoopRecord("l", "s", "a", messages=messages)
    await store.save(Session("s", "a", loops=[record]))
    assert (await store.load("s")).all_messages() == messages


# Reading ------------------------------------------------------------------------------------------

BUILT = {
    "user": user_message("x", timestamp=1),
    "assistant": assistant_message("x", model="m", provider="p", timestamp=1),
    "toolResult": tool_result_message("c", "n", "x", timestamp=1),
    "extension": extension_message("k", None),
}


@pytest.mark.parametrize("role", BUILT)
def test_a_message_is_of_the_kind_that_it_was_built_as(role: str) -> None:
    assert read_as(BUILT[role]) == [role]


@pytest.mark.parametrize("role", ["user", "assistant", "toolResult"])
def test_optional_keys_do_not_change_the_kind(role: str) -> None:
    optional = {
        "turnId": {"loopId": "l", "turnIndex": 0},
        "nodeId": 1,
        "parentId": 0,
        "tags": [],
        "provenanceHint": {"kind": "steering"},
        "something": "new",
    }
    for key, value in optional.items():
        assert read_as(BUILT[role] | {key: value}) == [role]
    assert read_as(BUILT[role] | optional) == [role]


@pytest.mark.parametrize("role", BUILT)
def test_a_message_that_lacks_a_required_key_is_of_no_kind(role: str) -> None:
    for key in BUILT[role]:
        damaged = {k: v for k, v in BUILT[role].items() if k != key}
        assert read_as(damaged) == []


def test_the_shape_decides_not_the_role_alone() -> None:
    extension = {"kind": "k", "data": 7}
    no_model = {"role": "assistant", "content": [], "timestamp": 1}
    assert read_as(no_model | extension) == ["extension"]
    assert read_as(BUILT["user"] | extension) == ["user"]
    assert read_as({"role": "anything"} | extension) == ["extension"]
    assert read_as({}) == []
    assert read_as({"role": "robot", "content": [], "timestamp": 1}) == []


def test_text_is_joined_and_other_contents_are_passed_over() -> None:
    message = assistant_message(
        [text_content("a"), thinking_content("no"), text_content("b"), text_content("")],
        model="m",
        provider="p",
    )
    assert text_of(message) == "ab"
    assert text_of(user_message("é")) == "é"
    for other in ({}, {"content": None}, {"content": "text"}, {"content": [1, "x", None, {}]}):
        assert text_of(other) == ""
        assert tool_calls_of(other) == []
    assert text_of(extension_message("k", "text")) == ""


def test_tool_calls_come_in_order() -> None:
    calls = [tool_call_content(str(n), "search", {"n": n}) for n in range(3)]
    message = assistant_message(
        [calls[0], text_content("and"), *calls[1:]], model="m", provider="p", stop_reason="toolUse"
    )
    assert tool_calls_of(message) == calls
    assert [call["arguments"]["n"] for call in tool_calls_of(message)] == [0, 1, 2]
    assert tool_calls_of(user_message("x")) == []
