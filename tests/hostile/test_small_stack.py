"""Nesting without end does not overflow the stack of a small thread."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from damaged_texts import IN_HEAD, IN_RECORD, SOUND, deep, for_session

SCRIPT = Path(__file__).parent / "small_stack.py"


def test_deep_texts_are_called_damaged_in_a_thread_with_a_small_stack(
    tmp_path: Path,
) -> None:
    text = SOUND["compact"]
    without_end = {f"deep-{number}": damaged for number, damaged in enumerate(deep(text).values())}
    sound = {
        "sound": text,
        # As deep as a session may be: 127 levels, those around the spot included.
        "deepest-head": text.replace(IN_HEAD, b"[" * 125 + b"]" * 125),
        "deepest-record": text.replace(IN_RECORD, b"[" * 123 + b"]" * 123),
    }
    for session_id, content in {**without_end, **sound}.items():
        (tmp_path / f"{session_id}.json").write_bytes(for_session(content, session_id))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), *without_end, *sound],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr}"
    seen = json.loads(done.stdout)
    cards = seen.pop("cards")
    # by load_session, and by the store
    assert {i: seen[i] for i in sound} == dict.fromkeys(sound, ["fine"] * 2)
    assert {tuple(seen[i]) for i in without_end} == {("SessionCorruptError",) * 2}
    assert set(sound) <= set(cards)
