"""A session document with all that phi-core writes, and files with such texts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from phi_sessions import FileSystemSessionStore, Session, SessionCorruptError

TIME = "2031-07-19T04:05:06.123456789Z"
USAGE = dict.fromkeys(["input", "output", "reasoning", "cache_read", "cache_write"], 1)
USAGE["total_tokens"] = 1


def document() -> dict[str, Any]:
    """A file with one of every record."""
    turn = {
        "turn_id": {"loopId": "l", "turnIndex": 0},
        "triggered_by": "User",
        "usage": dict(USAGE),
        "input_messages": [],
        "output_message": {"role": "x"},
        "tool_results": [],
        "started_at": TIME,
        "ended_at": TIME,
        "request_payload": {"model_id": "m"},
    }
    loop = {
        "loop_id": "l",
        "session_id": "s",
        "agent_id": "a",
        "parent_loop_id": None,
        "continuation_kind": {"Branch": {"tag": "t"}},
        "started_at": TIME,
        "ended_at": None,
        "status": "Pending",
        "rejection": None,
        "config": {"model": "m", "provider": "p", "config_id": None},
        "messages": [{"role": "x"}],
        "turns": [turn],
        "usage": dict(USAGE),
        "metadata": {"k": 1},
        "events": [{"sequence": 1, "event": {"type": "x"}}],
        "children_loop_ids": [],
        "child_loop_refs": [
            {"tool_call_id": "t", "tool_name": "n", "child_loop_id": "c", "child_session_id": "c"}
        ],
        "parallel_group": {
            "all_loop_ids": ["l"],
            "selected_loop_id": "l",
            "selected_config_index": 0,
            "evaluation_usage": dict(USAGE),
            "is_selected": True,
        },
        "compaction_block": {
            "keep_first": {"startTurn": 0, "endTurn": 1},
            "keep_recent": {"range": {"startTurn": 2, "endTurn": 3}, "messages": [{"role": "x"}]},
            "createdAt": TIME,
        },
    }
    return {
        "session_id": "s",
        "agent_id": "a",
        "created_at": TIME,
        "last_active_at": TIME,
        "formation": {"Explicit": {"timestamp": TIME}},
        "parent_spawn_ref": {
            "parent_session_id": "p",
            "parent_loop_id": "p.1",
            "tool_call_id": "t",
            "tool_name": "n",
        },
        "scope": "ephemeral",
        "metadata": {"title": "trip"},
        "loops": [loop],
    }


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def put_file(store: FileSystemSessionStore, text: str | bytes) -> Path:
    store.dir.mkdir(exist_ok=True)
    path = store.dir / "s.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read_file(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_bytes())
    value.pop("revision", None)
    return value


async def assert_damaged(store: FileSystemSessionStore, text: str | bytes) -> None:
    """Assert that loading says so, names the file and leaves it alone."""
    path = put_file(store, text)
    before = path.read_bytes()
    with pytest.raises(SessionCorruptError) as caught:
        await store.load("s")
    assert caught.value.session_id == "s"
    assert caught.value.path == str(path)
    assert caught.value.reason
    assert path.read_bytes() == before


async def those_that_load(
    store: FileSystemSessionStore, files: dict[str, str | bytes]
) -> list[str]:
    """Put each text into a file of its own; return the names of those that load and can be read.

    All are loaded at once, as a damaged file is looked at a second time a moment later.
    """
    store.dir.mkdir(exist_ok=True)
    paths = [store.dir / f"s{number}.json" for number in range(len(files))]
    for number, (path, text) in enumerate(zip(paths, files.values(), strict=True)):
        data = text.encode() if isinstance(text, str) else text
        path.write_bytes(data.replace(b'"session_id": "s"', b'"session_id": "s%d"' % number, 1))
    before = [path.read_bytes() for path in paths]
    found = await asyncio.gather(*(store.load(path.stem) for path in paths), return_exceptions=True)
    assert [path.read_bytes() for path in paths] == before
    loaded: list[str] = []
    for name, path, result in zip(files, paths, found, strict=True):
        if not isinstance(result, SessionCorruptError):
            assert isinstance(result, Session), (name, result)
            loaded.append(name)
            continue
        assert result.session_id == path.stem
        assert result.path == str(path)
        assert result.reason
    return loaded
