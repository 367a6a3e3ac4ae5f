"""Makes the session files beside it, in the layout and with the keys of phi-core's writer.

`python tests/data/make.py` writes them anew; the seed makes each run give the same bytes. Nothing
here uses the package under test: the shapes are written out by hand.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

U32 = 2**32 - 1
U64 = 2**64 - 1

SCOPES = ("ephemeral", "persistent")
STATUSES = ("Pending", "Running", "Completed", "Rejected", "Aborted")
CONTINUATIONS: tuple[Any, ...] = (
    "Initial",
    "Default",
    {"Rerun": {"tag": "2031-07-19T04:05:06.070809+00:00"}},
    {"Branch": {"tag": "try the other parser"}},
    "Compaction",
)
TRIGGERS = ("User", "SubAgent", "Continuation", "FollowUp", "Branch")
STOP_REASONS = (
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
TAG_KINDS = ("lesson", "finding", "outcome", "checkpoint")
REVERT_CATEGORIES = ("failure", "tangent", "completion", "step-summary")
THINKING_LEVELS = ("off", "minimal", "low", "medium", "high")
PROTOCOLS = (
    "anthropic_messages",
    "open_ai_completions",
    "open_ai_responses",
    "azure_open_ai_responses",
    "google_generative_ai",
    "google_vertex",
    "bedrock_converse_stream",
)
PROVENANCE_ROLES = ("user-message", "assistant-response", "tool-call-request", "tool-call-result")
FRACTIONS = ("", ".5", ".480", ".123456", ".987654321", ".000000001")
WORDS = (
    "harbour",
    "lantern",
    "quartz",
    "meadow",
    "violet",
    "engine",
    "copper",
    "willow",
    "thunder",
)
WORDS += ("saffron", "pebble", "orbit", "größer", "Ωmega", "漢字", "наука", "עברית", "🜁", "façade")


class Maker:
    """Makes parts of sessions; each call draws new values from the seeded generator."""

    def __init__(self, name: str) -> None:
        self.random = random.Random(name)
        self.name = name

    # Plain values

    def text(self, words: int = 3) -> str:
        return " ".join(self.random.choice(WORDS) for _ in range(words))

    def number(self) -> int:
        return self.random.randrange(100_000)

    def time(self, digits: int = 9) -> str:
        r = self.random
        day = f"20{r.randrange(30, 60)}-{r.randrange(1, 13):02}-{r.randrange(1, 29):02}"
        clock = f"{r.randrange(24):02}:{r.randrange(60):02}:{r.randrange(60):02}"
        fraction = "".join(r.choice("123456789") for _ in range(digits))
        return f"{day}T{clock}{'.' + fraction if fraction else ''}Z"

    def millis(self) -> int:
        return 1_900_000_000_000 + self.number()

    def opaque(self) -> Any:
        return {"note": self.text(), "list": [self.number(), 0.25, None, True, []], "empty": {}}

    # Small records

    def usage(self) -> dict[str, Any]:
        names = ("input", "output", "reasoning", "cache_read", "cache_write", "total_tokens")
        return {name: self.number() for name in names}

    def turn_id(self) -> dict[str, Any]:
        return {"loopId": f"{self.name}.main.1", "turnIndex": self.random.randrange(40)}

    def spawn_ref(self) -> dict[str, Any]:
        return {
            "parent_session_id": "parent of " + self.name,
            "parent_loop_id": "parent.main.7",
            "tool_call_id": "toolu_" + str(self.number()),
            "tool_name": "ask_colleague",
        }

    def child_ref(self) -> dict[str, Any]:
        return {
            "tool_call_id": "toolu_" + str(self.number()),
            "tool_name": "ask_colleague",
            "child_loop_id": "child.helper.1",
            "child_session_id": "child",
        }

    def group(self, ids: list[str], selected: int, own: str) -> dict[str, Any]:
        return {
            "all_loop_ids": ids,
            "selected_loop_id": ids[selected],
            "selected_config_index": selected,
            "evaluation_usage": self.usage(),
            "is_selected": own == ids[selected],
        }

    def config(self, **more: Any) -> dict[str, Any]:
        return {"model": "opus-" + str(self.number()), "provider": "acme", "config_id": None} | more

    def full_config(self, api: str, level: str) -> dict[str, Any]:
        return self.config(
            config_id="nightly",
            name=self.text(),
            api=api,
            base_url="https://models.example/v2",
            reasoning=self.random.random() < 0.5,
            context_window=U32,
            max_tokens=self.number(),
            thinking_level=level,
            temperature=self.random.choice((0.0, 0.7, 1.0, 1.25)),
        )

    # Messages

    def contents(self) -> list[dict[str, Any]]:
        return [
            {"type": "text", "text": self.text()},
            {"type": "image", "data": "R0lGODlhAQABAAAAACw=", "mimeType": "image/gif"},
            {"type": "thinking", "thinking": self.text(), "signature": "c2lnbmVk"},
            {"type": "thinking", "thinking": self.text()},
            self.tool_call({"query": self.text(), "depth": 2}),
            self.tool_call(None),
        ]

    def tool_call(self, arguments: Any) -> dict[str, Any]:
        call = "toolu_" + str(self.number())
        return {"type": "toolCall", "id": call, "name": "search", "arguments": arguments}

    def user(self, **more: Any) -> dict[str, Any]:
        content = [{"type": "text", "text": self.text()}]
        return {"role": "user", "content": content, "timestamp": self.millis()} | more

    def assistant(self, stop: str = "stop", **more: Any) -> dict[str, Any]:
        return {
            "role": "assistant",
            "content": self.contents(),
            "stopReason": stop,
            "model": "opus-4",
            "provider": "acme",
            "usage": self.usage(),
            "timestamp": self.millis(),
        } | more

    def tool_result(self, *, is_error: bool = False, **more: Any) -> dict[str, Any]:
        return {
            "role": "toolResult",
            "toolCallId": "toolu_" + str(self.number()),
            "toolName": "search",
            "content": self.contents()[:2],
            "isError": is_error,
            "timestamp": self.millis(),
        } | more

    def extension(self, data: Any, role: str = "extension") -> dict[str, Any]:
        return {"role": role, "kind": "progress-bar", "data": data}

    def tags(self) -> list[dict[str, Any]]:
        return [
            {
                "kind": kind,
                "text": self.text(),
                "created_at_turn": self.random.randrange(9),
                "abandoned_node_ids": [self.number(), U64][:length],
            }
            for length, kind in enumerate(TAG_KINDS)
        ]

    def provenances(self) -> list[dict[str, Any]]:
        return [
            {"kind": "system-prompt"},
            {"kind": "identity-block", "name": self.text(1), "order": 7},
            {"kind": "memory-tier", "tier": "weekly", "record_id": "notes/" + self.text(1)},
            *(
                {"kind": "loop-turn", "turn_index": n, "role": role, "message_index": 2 * n}
                for n, role in enumerate(PROVENANCE_ROLES)
            ),
            {"kind": "steering"},
            {"kind": "follow-up"},
            {"kind": "unknown"},
        ]

    # Turns and events

    def payload(self, response_format: dict[str, Any], *, bare: bool) -> dict[str, Any]:
        tool = {"name": "search", "description": self.text(), "parameters": {"type": "object"}}
        return {
            "system_prompt": self.text(6),
            "messages": [] if bare else [self.user(), self.assistant(), self.tool_result()],
            "provenance": [] if bare else self.provenances(),
            "tools": [] if bare else [tool, {"name": "wait", "description": "", "parameters": {}}],
            "model_id": "opus-4",
            "thinking_level": self.random.choice(THINKING_LEVELS),
            "max_tokens": None if bare else U32,
            "temperature": None if bare else 0.35,
            "response_format": response_format,
        }

    def payloads(self) -> list[dict[str, Any]]:
        schema = {"type": "object", "properties": {"city": {"type": "string"}}}
        return [
            self.payload({"kind": "text"}, bare=True),
            self.payload({"kind": "json-object"}, bare=False),
            self.payload(
                {"kind": "json-schema", "schema": schema, "name": "trip", "strict": True},
                bare=False,
            ),
        ]

    def turn(self, trigger: str, payload: dict[str, Any] | None = None) -> dict[str, Any]:
        turn = {
            "turn_id": self.turn_id(),
            "triggered_by": trigger,
            "usage": self.usage(),
            "input_messages": [self.user(turnId=self.turn_id())],
            "output_message": self.assistant("toolUse", turnId=self.turn_id()),
            "tool_results": [self.tool_result(turnId=self.turn_id())] if payload else [],
            "started_at": self.time(),
            "ended_at": self.time(6),
        }
        return turn | ({"request_payload": payload} if payload else {})

    def events(self) -> list[dict[str, Any]]:
        loop, session = {"loop_id": self.name + ".main.1"}, {"session_id": self.name}
        tool = {"tool_call_id": "toolu_5", "tool_name": "search"}
        result = {"content": self.contents(), "details": {"exit": 3}, "child_loop_id": "child.1"}
        bare = {"content": [], "details": None}
        agent = {"type": "AgentStart", "agent_id": "agent " + self.text(1)} | session | loop
        update = {"type": "MessageUpdate"} | loop
        revert = {"type": "RevertApplied"} | loop
        return [
            agent
            | {"parent_loop_id": None, "continuation_kind": "Initial", "timestamp": self.time()}
            | {"metadata": None},
            agent
            | {"parent_loop_id": "main.0", "continuation_kind": CONTINUATIONS[2]}
            | {"timestamp": self.time(0), "metadata": self.opaque()}
            | {"config_snapshot": self.full_config("google_vertex", "low")},
            {"type": "TurnStart"}
            | loop
            | {"turn_index": U32, "timestamp": self.time(3), "triggered_by": "SubAgent"},
            {"type": "TurnRequest"}
            | loop
            | {"turn_index": 0, "payload": self.payloads()[2], "timestamp": self.time()},
            {"type": "MessageStart"} | loop | {"message": self.user(nodeId=1)},
            update | {"message": self.assistant(), "delta": {"Text": {"delta": self.text(1)}}},
            update | {"message": self.assistant(), "delta": {"Thinking": {"delta": ""}}},
            update | {"message": self.assistant(), "delta": {"ToolCallDelta": {"delta": '{"q'}}},
            {"type": "MessageEnd"} | loop | {"message": self.extension([1, {"a": None}])},
            {"type": "ToolExecutionStart"} | loop | tool | {"args": {"q": self.text()}},
            {"type": "ToolExecutionUpdate"} | loop | tool | {"partial_result": bare},
            {"type": "ToolExecutionEnd"}
            | loop
            | tool
            | {"result": result, "is_error": False, "child_loop_id": "child.1"},
            {"type": "ToolExecutionEnd"}
            | loop
            | tool
            | {"result": bare, "is_error": True, "child_loop_id": None},
            {"type": "ProgressMessage"} | loop | tool | {"text": "…" + self.text()},
            {"type": "TurnEnd"}
            | loop
            | {"message": self.assistant("toolUse"), "usage": self.usage()}
            | {"timestamp": self.time(), "tool_results": [self.tool_result(is_error=True)]},
            {"type": "InputRejected"} | loop | {"reason": self.text()},
            {"type": "ParallelLoopStart"}
            | session
            | {"loop_ids": ["left.1", "right.1"], "timestamp": self.time()},
            {"type": "ParallelLoopEnd"}
            | session
            | {"selected_loop_id": "right.1", "selected_config_index": 1}
            | {"evaluation_usage": self.usage(), "timestamp": self.time(6)},
            {"type": "CompactionStarted"}
            | loop
            | {"estimated_tokens": U64, "message_count": 17, "timestamp": self.time()},
            *(
                {"type": "PrunApplied"}
                | loop
                | {"tokens_removed": 900, "messages_removed": 2, "memo": memo}
                | {"pruned_timestamps": [U64, 0], "timestamp": self.time()}
                for memo in (None, self.text())
            ),
            *(
                revert
                | {"category": category, "target": target, "abandoned_node_ids": [4, U64]}
                | {"summary": summary, "applied": target is not None, "reason": reason}
                | {"timestamp": self.time()}
                for category, target, summary, reason in zip(
                    REVERT_CATEGORIES,
                    (None, 0, 12, U64),
                    (None, self.text(), "", None),
                    (self.text(), None, None, None),
                    strict=True,
                )
            ),
            {"type": "CompactionEnded"}
            | loop
            | {"messages_before": 90, "messages_after": 11, "estimated_tokens_before": U64}
            | {"estimated_tokens_after": 0, "loops_compacted": 4, "timestamp": self.time()},
            *(
                {"type": "AgentEnd"}
                | loop
                | {"messages": [self.user(), self.extension(None)], "usage": self.usage()}
                | {"timestamp": self.time(), "rejection": rejection}
                for rejection in (None, self.text())
            ),
        ]

    # Loops and sessions

    def loop(self, number: int = 1, **more: Any) -> dict[str, Any]:
        return {
            "loop_id": f"{self.name}.main.{number}",
            "session_id": self.name,
            "agent_id": "agent " + self.name,
            "parent_loop_id": None,
            "continuation_kind": "Initial",
            "started_at": self.time(),
            "ended_at": None,
            "status": "Pending",
            "rejection": None,
            "config": None,
            "messages": [],
            "turns": [],
            "usage": self.usage(),
            "metadata": None,
            "events": [],
            "children_loop_ids": [],
            "child_loop_refs": [],
            "parallel_group": None,
        } | more

    def session(self, *loops: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {
            "session_id": self.name,
            "agent_id": "agent " + self.name,
            "created_at": self.time(),
            "last_active_at": self.time(3),
            "formation": {"Explicit": {"timestamp": self.time()}},
            "parent_spawn_ref": None,
            "scope": "ephemeral",
            "loops": list(loops),
        } | more


def minimal(make: Maker) -> dict[str, Any]:
    return make.session()


def first_loop(make: Maker) -> dict[str, Any]:
    return make.session(make.loop(), formation={"FirstLoop": {"timestamp": make.time()}})


def spawned(make: Maker) -> dict[str, Any]:
    timeout = {"threshold_secs": U64, "previous_session_id": "before", "timestamp": make.time()}
    return make.session(
        make.loop(parent_loop_id="parent.main.7", continuation_kind="Default"),
        formation={"InactivityTimeout": timeout},
        parent_spawn_ref=make.spawn_ref(),
        scope="persistent",
    )


def timed_out(make: Maker) -> dict[str, Any]:
    timeout = {"threshold_secs": 0, "previous_session_id": None, "timestamp": make.time(0)}
    return make.session(formation={"InactivityTimeout": timeout})


def loops(make: Maker) -> dict[str, Any]:
    first = [
        make.loop(
            number,
            continuation_kind=kind,
            status=status,
            parent_loop_id=None if number == 0 else f"{make.name}.main.{number - 1}",
            ended_at=make.time() if number else None,
            rejection=make.text() if status == "Rejected" else None,
            children_loop_ids=[f"{make.name}.main.{number + 1}"],
            metadata=metadata,
        )
        for number, (kind, status, metadata) in enumerate(
            zip(CONTINUATIONS, STATUSES, (None, {}, [], "text", False), strict=True)
        )
    ]
    ids = ["left.1", "middle.1", "right.1"]
    group = [
        make.loop(loop_id=own, parallel_group=make.group(ids, 2, own), status="Completed")
        for own in ids
    ]
    parent = make.loop(50, child_loop_refs=[make.child_ref(), make.child_ref()])
    return make.session(*first, *group, parent)


def configs(make: Maker) -> dict[str, Any]:
    level = iter(THINKING_LEVELS * 2)
    found = [make.full_config(api, next(level)) for api in PROTOCOLS]
    found += [
        make.config(),
        make.config(temperature=0.0),
        make.config(temperature=3.4028235e38, reasoning=False),
        make.config(temperature=1e-45, context_window=0),
        make.config(temperature=-1.5, max_tokens=0, name=""),
    ]
    return make.session(*(make.loop(n, config=config) for n, config in enumerate(found)))


def compactions(make: Maker) -> dict[str, Any]:
    section = {
        "range": {"startTurn": 2, "endTurn": U32},
        "messages": [make.user(), make.extension({})],
    }
    recent = {"range": {"startTurn": 9, "endTurn": 9}, "messages": []}
    blocks = [
        {
            "keep_first": {"startTurn": 0, "endTurn": 1},
            "keep_recent": recent,
            "keep_compacted": section,
            "createdAt": make.time(),
        },
        {"keep_compacted": section, "createdAt": make.time(6)},
        {"createdAt": make.time(0)},
    ]
    return make.session(*(make.loop(n, compaction_block=b) for n, b in enumerate(blocks)))


def messages(make: Maker) -> dict[str, Any]:
    found = [
        make.user(),
        make.user(content=[], turnId=make.turn_id()),
        *(make.assistant(stop) for stop in STOP_REASONS),
        make.assistant("error", error_message=make.text(), content=[]),
        make.assistant(nodeId=U64, parentId=0, tags=make.tags(), turnId=make.turn_id()),
        *(make.assistant(content=[], provenanceHint=hint) for hint in make.provenances()),
        make.tool_result(),
        make.tool_result(is_error=True, nodeId=3, content=[]),
        *(make.extension(data) for data in (None, 0, "text", [], {}, make.opaque())),
        make.extension({"a": 1}, role="narrator"),
    ]
    return make.session(make.loop(messages=found))


def turns(make: Maker) -> dict[str, Any]:
    found = [make.turn(trigger) for trigger in TRIGGERS]
    found += [make.turn("User", payload) for payload in make.payloads()]
    return make.session(make.loop(turns=found, status="Completed", ended_at=make.time()))


def events(make: Maker) -> dict[str, Any]:
    found = [{"sequence": n * n, "event": event} for n, event in enumerate(make.events())]
    later = {"type": "QuotaGranted", "loop_id": "x", "amount": 12.5, "by": {"who": [None]}}
    found += [{"sequence": U64 - 1, "event": later}, {"sequence": U64, "event": {"type": "Quiet"}}]
    return make.session(make.loop(events=found))


def values(make: Maker) -> dict[str, Any]:
    deep: Any = "bottom"
    for level in range(40):
        deep = [deep] if level % 2 else {"down": deep}
    numbers = {
        "integers": [0, -1, 2**53, 2**53 + 1, -(2**63), 2**63 - 1, 2**63, U64],
        "floats": [0.0, -0.0, 1.0, -2.5, 1e16, 1e-7, 5e-324, 1.7976931348623157e308, 0.1, 1 / 3],
        "mixed": [1, 1.0, True, "1", None],
    }
    keys = {"": 1, " ": 2, "~extra": {"~extra": 3}, "a.b": 4, "ключ": 5, "\u0000": 6, "loops": 7}
    found = [numbers, keys, deep, make.opaque(), 18446744073709551615, -0.5, "", [[[]]], [{}, {}]]
    return make.session(
        make.loop(
            1,
            metadata={"all": found},
            messages=[
                *(make.extension(value) for value in found),
                make.assistant(content=[make.tool_call(value) for value in found]),
            ],
            events=[{"sequence": n, "event": {"type": "Any", "v": v}} for n, v in enumerate(found)],
        ),
        *(make.loop(n, metadata=value) for n, value in enumerate(found, 2)),
    )


def unicode(make: Maker) -> dict[str, Any]:
    strings = [
        "".join(map(chr, range(0x20))),
        '"\\/\b\f\n\r\t\x7f\x80\x9f',
        "\u2028\u2029\ufeff\ufffe\uffff\u200e\u202e",
        "e\u0301 \u00e9 A\u030a \u212b ﬁ",
        "🜁👩\u200d🚀\U0010ffff\U00010000",
        "\ue000\u0378",
        make.text(20),
    ]
    return make.session(
        make.loop(
            loop_id=strings[4],
            agent_id=strings[0],
            rejection=strings[1],
            messages=[make.user(content=[{"type": "text", "text": s}]) for s in strings],
            metadata={s: s for s in strings},
            events=[{"sequence": 1, "event": {"type": strings[2], strings[3]: strings[5]}}],
        ),
        agent_id=strings[2],
    )


def times(make: Maker) -> dict[str, Any]:
    days = (
        "1970-01-01T00:00:00",
        "0000-01-01T00:00:00",
        "0001-01-01T00:00:00",
        "9999-12-31T23:59:59",
        "2000-02-29T12:00:00",
        "1969-12-31T23:59:59",
        "+10000-01-01T00:00:00",
        "-0001-06-30T01:02:03",
        "2016-12-31T23:59:60",
    )
    stamps = [f"{day}{fraction}Z" for day in days for fraction in FRACTIONS]
    return make.session(
        *(make.loop(n, started_at=s, ended_at=s) for n, s in enumerate(stamps)),
        make.loop(900, turns=[make.turn("User") | {"started_at": s} for s in stamps[4::6]]),
        created_at=stamps[1],
        last_active_at=stamps[4],
    )


def unknown_keys(make: Maker) -> dict[str, Any]:
    new: dict[str, Any] = {"added_later": [1, {"deep": 2.0}], "Ünknown": None, "~extra": {"k": 0}}
    section = {
        "range": {"startTurn": 0, "endTurn": 4} | new,
        "messages": [make.user(**new)],
    } | new
    block = {
        "keep_first": {"startTurn": 0, "endTurn": 1} | new,
        "keep_recent": section,
        "createdAt": make.time(),
    } | new
    turn = make.turn("User") | new
    turn["turn_id"] |= new
    turn["usage"] |= new
    group = make.group(["a", "b"], 0, "a") | new
    group["evaluation_usage"] |= new
    loop = make.loop(
        continuation_kind={"Rerun": {"tag": "t"} | new},
        config=make.full_config("anthropic_messages", "high") | new,
        turns=[turn],
        events=[{"sequence": 3, "event": {"type": "TurnStart"} | new} | new],
        child_loop_refs=[make.child_ref() | new],
        parallel_group=group,
        compaction_block=block,
        usage=make.usage() | new,
        metadata=new,
        **new,
    )
    return make.session(
        loop,
        formation={"FirstLoop": {"timestamp": make.time()} | new},
        parent_spawn_ref=make.spawn_ref() | new,
        metadata={"title": make.text()} | new,
        **new,
    )


def later_version(make: Maker) -> dict[str, Any]:
    config = make.full_config("mistral_chat", "extreme")
    return make.session(
        make.loop(1, status="Suspended", continuation_kind="Merge", config=config),
        make.loop(2, continuation_kind={"Fork": {"tag": "t", "from": 3}}),
        make.loop(3, turns=[make.turn("Timer")]),
        formation={"Scheduled": {"timestamp": make.time(), "cron": "0 4 * * *"}},
        scope="archived",
    )


FILES = {
    "compactions": compactions,
    "configs": configs,
    "events": events,
    "first-loop": first_loop,
    "later-version": later_version,
    "loops": loops,
    "messages": messages,
    "minimal": minimal,
    "spawned": spawned,
    "timed-out": timed_out,
    "times": times,
    "turns": turns,
    "unicode": unicode,
    "unknown-keys": unknown_keys,
    "values": values,
}


def documents() -> dict[str, str]:
    """Return the text of each file under its name."""
    return {
        f"{name}.json": json.dumps(make(Maker(name)), indent=2, ensure_ascii=False)
        for name, make in FILES.items()
    }


if __name__ == "__main__":
    for name, text in documents().items():
        Path(__file__).with_name(name).write_text(text, encoding="utf-8", newline="\n")
