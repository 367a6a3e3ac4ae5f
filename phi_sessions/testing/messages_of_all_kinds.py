"""Messages and contents of every kind that phi-core writes."""

from __future__ import annotations

from ..messages import (
    StopReason,
    assistant_message,
    extension_message,
    image_content,
    text_content,
    thinking_content,
    tool_call_content,
    tool_result_message,
    user_message,
)
from ..record import JSONObject
from ..turn import TurnId, Usage

__all__ = ["contents", "messages"]

_STOP_REASONS: tuple[StopReason, ...] = (
    "stop",
    "length",
    "toolUse",
    "error",
    "aborted",
    "maxTurns",
    "userStop",
    "handoff",
    "guardRail",
    "contextCompacted",
    "paused",
)


def contents() -> list[JSONObject]:
    """Return a content of each kind."""
    return [
        text_content("plain, \u05e2\u05d1\u05e8\u05d9\u05ea, \U0001f701"),
        image_content("R0lGODlhAQABAAAAACw=", "image/gif"),
        thinking_content("hm", "c2lnbmVk"),
        thinking_content("unsigned"),
        tool_call_content("call-1", "search", {"query": "q", "depth": 2}),
        tool_call_content("call-2", "wait", None),
    ]


def messages(number: int) -> list[JSONObject]:
    """Return a message of each kind; `number` picks among the ways to stop."""
    turn_id = TurnId("main.0", number)
    tags = [
        {"kind": "lesson", "text": "t", "created_at_turn": 0, "abandoned_node_ids": [2**64 - 1]}
    ]
    return [
        user_message(contents()[:2], timestamp=1_900_000_000_000, turn_id=turn_id),
        assistant_message(
            contents(),
            model="opus-4",
            provider="acme",
            stop_reason=_STOP_REASONS[number % len(_STOP_REASONS)],
            usage=Usage(input=number),
            timestamp=0,
            error_message="none really" if number % 2 else None,
            turn_id=turn_id,
        )
        | {"nodeId": 2**64 - 1, "parentId": 0, "tags": tags},
        tool_result_message(
            "call-1", "search", "found", is_error=bool(number % 2), timestamp=1, turn_id=turn_id
        ),
        extension_message("progress-bar", {"at": [number, 0.25, None, True, []], "empty": {}}),
        extension_message("note", None, role="narrator"),
        {"role": "of a later version", "what": {"nobody": "knows"}},
    ]
