"""phi-core's messages and contents: functions that build them, types and tests that read them.

To the store a message is plain JSON. These are dictionaries of exactly phi-core's shape, typed, so
that a checker knows their keys:

```python
loop.messages.append(user_message("What is in the file?"))
for message in loop.messages:
    if is_assistant_message(message):
        print(message["model"], text_of(message), tool_calls_of(message))
```
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NotRequired, TypedDict, TypeGuard, cast

from .record import JSONObject
from .turn import TurnId, Usage

__all__ = [
    "AssistantMessage",
    "Content",
    "ExtensionMessage",
    "ImageContent",
    "Message",
    "StopReason",
    "TextContent",
    "ThinkingContent",
    "ToolCallContent",
    "ToolResultMessage",
    "UserMessage",
    "assistant_message",
    "extension_message",
    "image_content",
    "is_assistant_message",
    "is_extension_message",
    "is_tool_result_message",
    "is_user_message",
    "text_content",
    "text_of",
    "thinking_content",
    "tool_call_content",
    "tool_calls_of",
    "tool_result_message",
    "user_message",
]

StopReason = Literal[
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
]


class TextContent(TypedDict):
    """A piece of text."""

    type: Literal["text"]
    text: str


class ImageContent(TypedDict):
    """A picture, base64."""

    type: Literal["image"]
    data: str
    mimeType: str


class ThinkingContent(TypedDict):
    """What the model thought, with the provider's signature of it where there is one."""

    type: Literal["thinking"]
    thinking: str
    signature: NotRequired[str]


class ToolCallContent(TypedDict):
    """The model's request to run a tool."""

    type: Literal["toolCall"]
    id: str
    name: str
    arguments: Any


Content = TextContent | ImageContent | ThinkingContent | ToolCallContent


class _InTurn(TypedDict):
    turnId: NotRequired[JSONObject]
    nodeId: NotRequired[int]
    parentId: NotRequired[int]
    tags: NotRequired[list[JSONObject]]
    provenanceHint: NotRequired[JSONObject]


class UserMessage(_InTurn):
    """What the user said; `timestamp` is milliseconds since 1970."""

    role: Literal["user"]
    content: list[Content]
    timestamp: int


class AssistantMessage(_InTurn):
    """What the model answered; `timestamp` is milliseconds since 1970."""

    role: Literal["assistant"]
    content: list[Content]
    stopReason: StopReason
    model: str
    provider: str
    usage: dict[str, int]
    timestamp: int
    error_message: NotRequired[str]


class ToolResultMessage(_InTurn):
    """What a tool gave back; `timestamp` is milliseconds since 1970."""

    role: Literal["toolResult"]
    toolCallId: str
    toolName: str
    content: list[Content]
    isError: bool
    timestamp: int


class ExtensionMessage(TypedDict):
    """A message of the application's own."""

    role: str
    kind: str
    data: Any


Message = UserMessage | AssistantMessage | ToolResultMessage | ExtensionMessage


# Building ----------------------------------------------------------------------------------------


def text_content(text: str) -> JSONObject:
    """Return a piece of text."""
    return {"type": "text", "text": text}


def image_content(data: str, mime_type: str) -> JSONObject:
    """Return a picture; `data` is base64."""
    return {"type": "image", "data": data, "mimeType": mime_type}


def thinking_content(thinking: str, signature: str | None = None) -> JSONObject:
    """Return a piece of the model's thinking."""
    return _without_none({"type": "thinking", "thinking": thinking, "signature": signature})


def tool_call_content(id: str, name: str, arguments: Any) -> JSONObject:
    """Return a request to run a tool; `arguments` is any JSON."""
    return {"type": "toolCall", "id": id, "name": name, "arguments": arguments}


def user_message(
    content: str | Iterable[JSONObject],
    *,
    timestamp: int | None = None,
    turn_id: TurnId | None = None,
) -> JSONObject:
    """Return a user's message.

    Args:
        content: Text, or contents.
        timestamp: Milliseconds since 1970; now by default.
        turn_id: The turn that the message belongs to.
    """
    message = {"role": "user", "content": _contents(content), "timestamp": _millis(timestamp)}
    return message | _turn(turn_id)


def assistant_message(
    content: str | Iterable[JSONObject],
    *,
    model: str,
    provider: str,
    stop_reason: StopReason = "stop",
    usage: Usage | None = None,
    timestamp: int | None = None,
    error_message: str | None = None,
    turn_id: TurnId | None = None,
) -> JSONObject:
    """Return the model's answer; arguments as for `user_message`."""
    spent = usage or Usage()
    message = {
        "role": "assistant",
        "content": _contents(content),
        "stopReason": stop_reason,
        "model": model,
        "provider": provider,
        "usage": {
            name: getattr(spent, name) for name in Usage.__struct_fields__ if name != "extra"
        },
        "timestamp": _millis(timestamp),
        "error_message": error_message,
    }
    return _without_none(message) | _turn(turn_id)


def tool_result_message(
    tool_call_id: str,
    tool_name: str,
    content: str | Iterable[JSONObject],
    *,
    is_error: bool = False,
    timestamp: int | None = None,
    turn_id: TurnId | None = None,
) -> JSONObject:
    """Return what a tool gave back; arguments as for `user_message`."""
    message = {
        "role": "toolResult",
        "toolCallId": tool_call_id,
        "toolName": tool_name,
        "content": _contents(content),
        "isError": is_error,
        "timestamp": _millis(timestamp),
    }
    return message | _turn(turn_id)


def extension_message(kind: str, data: Any, *, role: str = "extension") -> JSONObject:
    """Return a message of the application's own; `data` is any JSON."""
    return {"role": role, "kind": kind, "data": data}


# Reading -----------------------------------------------------------------------------------------
# As in phi-core, the shape decides, not the role alone: what lacks a required key of its role and
# has `kind` and `data` is an extension.


def is_user_message(message: Mapping[str, Any]) -> TypeGuard[UserMessage]:
    """Whether phi-core reads `message` as a user's."""
    return message.get("role") == "user" and _has(message, UserMessage)


def is_assistant_message(message: Mapping[str, Any]) -> TypeGuard[AssistantMessage]:
    """Whether phi-core reads `message` as the model's."""
    return message.get("role") == "assistant" and _has(message, AssistantMessage)


def is_tool_result_message(message: Mapping[str, Any]) -> TypeGuard[ToolResultMessage]:
    """Whether phi-core reads `message` as a tool's."""
    return message.get("role") == "toolResult" and _has(message, ToolResultMessage)


def is_extension_message(message: Mapping[str, Any]) -> TypeGuard[ExtensionMessage]:
    """Whether phi-core reads `message` as the application's own."""
    return _has(message, ExtensionMessage) and not (
        is_user_message(message) or is_assistant_message(message) or is_tool_result_message(message)
    )


def text_of(message: Mapping[str, Any]) -> str:
    """Return the text contents of a message, joined; empty if it has none."""
    return "".join(part.get("text", "") for part in _parts(message, "text"))


def tool_calls_of(message: Mapping[str, Any]) -> list[ToolCallContent]:
    """Return the tool calls in a message, in order."""
    return [cast("ToolCallContent", part) for part in _parts(message, "toolCall")]


def _parts(message: Mapping[str, Any], kind: str) -> list[JSONObject]:
    content = message.get("content")
    if not isinstance(content, list):
        return []
    parts = cast("list[object]", content)
    objects = [cast("JSONObject", part) for part in parts if isinstance(part, dict)]
    return [part for part in objects if part.get("type") == kind]


def _has(message: Mapping[str, Any], kind: type) -> bool:
    return cast("frozenset[str]", vars(kind)["__required_keys__"]) <= message.keys()


def _contents(content: str | Iterable[JSONObject]) -> list[JSONObject]:
    return [text_content(content)] if isinstance(content, str) else list(content)


def _millis(timestamp: int | None) -> int:
    return time.time_ns() // 1_000_000 if timestamp is None else timestamp


def _turn(turn_id: TurnId | None) -> JSONObject:
    if turn_id is None:
        return {}
    return {"turnId": {"loopId": turn_id.loop_id, "turnIndex": turn_id.turn_index}}


def _without_none(obj: JSONObject) -> JSONObject:
    return {key: value for key, value in obj.items() if value is not None}
