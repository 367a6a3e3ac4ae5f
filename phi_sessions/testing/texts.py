"""Sessions as phi-core writes them, shortened, and as a later version of it may write them.

They were written by hand after phi-core's layout, so that nothing of this package had a part in
them. `sessions_of_texts` gives them the ids that a check wants.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from .. import codec
from ..codec import Origin, StoredRecord
from ..model import Revision, Session
from ..record import JSONObject

__all__ = ["TEXTS", "session_of_text", "sessions_of_texts"]

_LOOP: Final = """
  "session_id": "SESSION", "agent_id": "AGENT", "parent_loop_id": null,
  "continuation_kind": "Initial", "started_at": "2031-01-19T01:01:42.685369487Z", "ended_at": null,
  "status": "Pending", "rejection": null, "config": null, "messages": [], "turns": [],
  "usage": {"input": 1, "output": 2, "reasoning": 3, "cache_read": 4, "cache_write": 5,
            "total_tokens": 18446744073709551615},
  "metadata": null, "events": [], "children_loop_ids": [], "child_loop_refs": [],
  "parallel_group": null
"""

_HEAD: Final = """
  "session_id": "SESSION", "agent_id": "AGENT", "created_at": "2049-11-02T01:14:31.566986585Z",
  "last_active_at": "2042-10-13T07:28:54.189Z",
  "formation": {"Explicit": {"timestamp": "2042-10-13T07:28:54Z"}}, "parent_spawn_ref": null,
  "scope": "ephemeral"
"""

TEXTS: Final = {
    "minimal": r"""{%HEAD%, "loops": []}""",
    "parallel group": r"""{%HEAD%, "loops": [
        {"loop_id": "left.1", %LOOP%, "status": "Completed",
         "parallel_group": {"all_loop_ids": ["left.1", "right.1"], "selected_loop_id": "right.1",
          "selected_config_index": 1, "evaluation_usage": {"input": 7, "output": 0, "reasoning": 0,
          "cache_read": 0, "cache_write": 0, "total_tokens": 7}, "is_selected": false}},
        {"loop_id": "right.1", %LOOP%, "continuation_kind": {"Branch": {"tag": "the other"}},
         "children_loop_ids": ["left.1"], "child_loop_refs": [{"tool_call_id": "toolu_1",
          "tool_name": "ask", "child_loop_id": "child.1", "child_session_id": "child"}]}]}""",
    "events": r"""{%HEAD%, "loops": [{"loop_id": "main.1", %LOOP%, "events": [
        {"sequence": 0, "event": {"type": "AgentStart", "agent_id": "a", "metadata": {"k": [1]},
         "timestamp": "2042-10-13T07:28:54Z", "continuation_kind": {"Rerun": {"tag": "t"}}}},
        {"sequence": 3, "event": {"type": "MessageUpdate", "loop_id": "main.1",
         "message": {"role": "user", "content": [], "timestamp": 0},
         "delta": {"ToolCallDelta": {"delta": "{\"q"}}}},
        {"sequence": 4, "event": {"type": "RevertApplied", "target": 18446744073709551615,
         "abandoned_node_ids": [4, 18446744073709551615], "summary": "", "reason": null}},
        {"sequence": 18446744073709551615, "event": {"type": "Quiet"}}]}]}""",
    "turns and compaction": r"""{%HEAD%, "loops": [{"loop_id": "main.1", %LOOP%,
        "turns": [{"turn_id": {"loopId": "main.1", "turnIndex": 4294967295},
          "triggered_by": "SubAgent", "usage": {"input": 0, "output": 0, "reasoning": 0,
          "cache_read": 0, "cache_write": 0, "total_tokens": 0}, "input_messages": [],
          "output_message": {"role": "assistant", "content": [{"type": "toolCall", "id": "1",
            "name": "n", "arguments": {"a": [{}, [], "", null, true, 1.5]}}],
            "stopReason": "toolUse", "model": "m", "provider": "p", "usage": {}, "timestamp": 1},
          "tool_results": [], "started_at": "2030-01-01T00:00:00.5Z",
          "ended_at": "2030-01-01T00:00:00.480Z",
          "request_payload": {"system_prompt": "s", "temperature": 0.35, "tools": []}}],
        "compaction_block": {"keep_first": {"startTurn": 0, "endTurn": 1},
          "keep_compacted": {"range": {"startTurn": 2, "endTurn": 4294967295}, "messages": []},
          "createdAt": "2030-01-01T00:00:00.000000001Z"}}]}""",
    "times": r"""{%HEAD%, "loops": [
        {"loop_id": "1", %LOOP%, "started_at": "0000-01-01T00:00:00Z"},
        {"loop_id": "2", %LOOP%, "started_at": "9999-12-31T23:59:59.987654321Z"},
        {"loop_id": "3", %LOOP%, "started_at": "+10000-01-01T00:00:00.000000001Z"},
        {"loop_id": "4", %LOOP%, "started_at": "2016-12-31T23:59:60.123456Z"},
        {"loop_id": "5", %LOOP%, "started_at": "2024-03-01T00:00:00.100200300+05:30"}]}""",
    "values": r"""{%HEAD%, "metadata": {"": 1, "~extra": {"~extra": 2}, "loops": [], "\u0000": 3},
        "loops": [{"loop_id": "main.1", %LOOP%, "metadata": [0, -1, 9007199254740993,
          -9223372036854775808, 18446744073709551615, 0.0, -0.0, 1.0, 1e16, 1e-07, 5e-324,
          1.7976931348623157e+308, 0.1, true, "1", null, [[[]]], [{}, {}],
          "{\"loops\": [], \"revision\": \"x\"}"]}]}""",
    "unicode": r"""{%HEAD%, "loops": [{"loop_id": "\ud83d\udc69\u200d\ud83d\ude80\udbff\udfff",
        %LOOP%, "rejection": "\"\\\/\b\f\n\r\t\u007f\u0080\u009f\u0000\u001f",
        "metadata": {"\u2028\u2029\ufeff\ufffe\uffff\u200e\u202e": "e\u0301 \u00e9 A\u030a \u212b"}
        }]}""",
    "unknown keys": r"""{%HEAD%, "added": {"deep": [2.0]}, "loops": [{"loop_id": "main.1", %LOOP%,
        "added": null, "continuation_kind": {"Rerun": {"tag": "t", "added": 1}},
        "config": {"model": "m", "provider": "p", "config_id": null, "added": [{}]},
        "events": [{"sequence": 1, "event": {"type": "T"}, "added": "x", "Ünknown": {}}]}]}""",
    "a later version": r"""{%HEAD%, "formation": {"Scheduled": {"cron": "0 4 * * *"}},
        "scope": "archived", "loops": [
        {"loop_id": "main.1", %LOOP%, "status": "Suspended", "continuation_kind": "Merge"},
        {"loop_id": "main.2", %LOOP%, "continuation_kind": {"Fork": {"tag": "t", "from": 3}}}]}""",
}
"""Each text under the name of what it is about; of a key that occurs twice the last counts."""


def session_of_text(text: str, session_id: str, agent_id: str) -> Session:
    """Return the session that one of `TEXTS` tells, with these ids."""
    document: JSONObject = json.loads(text.replace("%HEAD%", _HEAD).replace("%LOOP%", _LOOP))
    document |= {"session_id": session_id, "agent_id": agent_id}
    loops = [loop | {"session_id": session_id} for loop in document.pop("loops")]
    head, texts = _compact(document), [_compact(loop) for loop in loops]
    records = [StoredRecord(codec.check_record(text), text) for text in texts]
    session = codec.decode(codec.decode_head(head), Origin(Revision(""), head, records))
    session.revision, session.loops.origin = None, None
    return session


def sessions_of_texts(agent_id: str, ids: Iterator[str]) -> dict[str, Session]:
    """Return all sessions by what they are about, each with the next of the ids."""
    return {
        about: session_of_text(text, session_id, agent_id)
        for (about, text), session_id in zip(TEXTS.items(), ids, strict=False)
    }


def _compact(value: JSONObject) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
