"""Writes a session as phi-core's store does: MODE PATH NAME COUNT.

`store`: under flock, aside and renamed, laid out with two spaces. `legacy`: truncated and written
in place, slowly, as its older function may; says when it wrote. `torn`: the same, left half done.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def value(path: Path, name: str, number: int) -> dict[str, Any]:
    session_id = path.name.removesuffix(".json")
    at = "2026-01-15T09:30:00.123456789Z"
    usage = dict.fromkeys(
        ("input", "output", "reasoning", "cache_read", "cache_write", "total_tokens"), number
    )
    loops = [
        {
            "loop_id": f"{name}.{number}.{loop}",
            "session_id": session_id,
            "agent_id": name,
            "parent_loop_id": None,
            "continuation_kind": "Initial",
            "started_at": at,
            "ended_at": at,
            "status": "Completed",
            "rejection": None,
            "config": None,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Grüße " * 20}]}],
            "turns": [],
            "usage": usage,
            "metadata": None,
            "events": [],
            "children_loop_ids": [],
            "child_loop_refs": [],
            "parallel_group": None,
        }
        for loop in range(number % 7)
    ]
    return {
        "session_id": session_id,
        "agent_id": name,
        "created_at": at,
        "last_active_at": at,
        "formation": {"FirstLoop": {"timestamp": at}},
        "parent_spawn_ref": None,
        "scope": "ephemeral",
        "loops": loops,
    }


def store(path: Path, name: str, number: int) -> None:
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(0.003)
    try:
        temporary = f"{path}.tmp.{os.getpid()}.{time.time_ns()}"
        text = json.dumps(value(path, name, number), indent=2, ensure_ascii=False)
        Path(temporary).write_text(text, encoding="utf-8")
        os.rename(temporary, path)
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)


def legacy(path: Path, name: str, number: int, parts: int, share: float) -> list[float]:
    text = json.dumps(value(path, name, number), indent=2, ensure_ascii=False).encode()
    text = text[: int(len(text) * share)]
    wrote = []
    with path.open("wb", buffering=0) as file:
        wrote.append(time.monotonic())
        for part in range(parts):
            time.sleep(0.004)
            file.write(text[len(text) * part // parts : len(text) * (part + 1) // parts])
            wrote.append(time.monotonic())
    return wrote


def main(mode: str, path: str, name: str, count: str) -> None:
    print("ready", flush=True)
    sys.stdin.readline()
    wrote: list[float] = []
    for number in range(1, int(count) + 1):
        if mode == "store":
            store(Path(path), name, number)
        else:
            wrote += legacy(Path(path), name, number, 30, 1.0)
            time.sleep(0.08)  # in which it can be read
    if mode == "torn":
        wrote += legacy(Path(path), name, 6, 10, 0.6)
    print(json.dumps({"wrote": wrote}))


main(*sys.argv[1:])
