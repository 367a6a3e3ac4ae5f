"""The agent loop example is killed in the middle of its work, and goes on."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import scaled
from example_runner import EXAMPLES, PATIENCE, run_example

from phi_sessions import load_session
from phi_sessions.messages import text_of

TURNS = 40


def run_and_kill(directory: Path, acknowledgements: int, delay: float) -> list[str]:
    """Kill the agent `delay` seconds after it has acknowledged so many turns.

    Returns:
        The lines that it had printed by then.
    """
    command = [sys.executable, str(EXAMPLES / "agent_loop.py"), str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as agent:
        watchdog = threading.Timer(PATIENCE, agent.kill)
        watchdog.start()
        try:
            assert agent.stdout is not None
            heard = "".join(agent.stdout.readline() for _ in range(acknowledgements + 1))
            time.sleep(delay)
            agent.kill()
            return (heard + agent.stdout.read()).splitlines()
        finally:
            watchdog.cancel()
            agent.kill()


@pytest.mark.parametrize("seed", range(scaled(4)))
def test_no_acknowledged_turn_is_lost_to_a_kill(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    directory = tmp_path / "sessions"
    whole = [f"turn {index} is safe: {(index + 1) ** 2}" for index in range(TURNS)]
    end = f"Completed: {TURNS} turns"
    kept = 0
    for _ in range(3):
        first, *acknowledged = run_and_kill(directory, chance.randint(2, 5), chance.random() / 60)
        assert first == f"{kept} turns are there"
        assert acknowledged == [*whole, end][kept : kept + len(acknowledged)]
        safe = min(kept + len(acknowledged), TURNS)
        stored = load_session("squares", directory).loops[0].turns
        texts = [f"turn {t.index} is safe: {text_of(t.output_message)}" for t in stored]
        # The kill may have come after a turn was saved and before that was said.
        assert texts in (whole[:safe], whole[: safe + 1])
        kept = len(texts)
    assert run_example("agent_loop.py", str(directory)) == [
        f"{kept} turns are there",
        *whole[kept:],
        end,
    ]
