"""The examples print what they say they do, and look as examples should."""

from __future__ import annotations

import ast
import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from example_runner import EXAMPLES, run_example

ALL = sorted(EXAMPLES.glob("*.py"))


def test_the_quickstart_prints_that_everything_was_kept() -> None:
    assert run_example("quickstart.py") == [
        "loaded   release-notes: 10144 tokens",
        "saved    every value as it was: True",
        "listed   ['chat', '6f1c9a52-3b7e-4d0a-9c41-2e8d5b7a90f3']",
        "refused  a stale save",
        "raced    4 processes: 40 of 40 additions kept",
    ]


def test_two_processes_answer_each_question_once() -> None:
    assert run_example("two_processes.py") == ["answered: 100", "answered once: 100"]


def test_the_agent_loop_runs_to_its_end_and_knows_it(tmp_path: Path) -> None:
    turns = [f"turn {index} is safe: {(index + 1) ** 2}" for index in range(40)]
    directory = str(tmp_path / "sessions")
    whole = ["0 turns are there", *turns, "Completed: 40 turns"]
    assert run_example("agent_loop.py", directory) == whole
    assert run_example("agent_loop.py", directory) == ["40 turns are there", "Completed: 40 turns"]


def test_a_long_chat_is_appended_to_and_made_one_file() -> None:
    assert run_example("long_chat.py") == [
        "after the last turn: chat.json, chat.json.lock, chat.json.log",
        "500 turns, the last: 499 squared is 249001.",
        "the holder is up to date: True",
        "made one: chat.json, chat.json.lock",
        "still the same: True",
    ]


def test_two_workers_lose_neither_counts_nor_answers() -> None:
    assert run_example("two_workers.py") == [
        "counted: 100 of 100",
        "worker 0: 50 answers, in order: True",
        "worker 1: 50 answers, in order: True",
    ]


def test_a_leased_run_turns_one_away_and_lets_one_wait() -> None:
    assert run_example("leased_run.py") == [
        "third run goes: the first has it, in this process: True",
        "first run ends after 3 steps",
        "second run ends after 6 steps",
        "first.0, first.1, first.2, second.0, second.1, second.2",
    ]


def test_there_are_examples() -> None:
    assert len(ALL) >= 7


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_an_example_is_short_has_one_main_and_says_what_it_shows(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    assert len(text.splitlines()) < 60
    assert [n.name for n in ast.walk(tree) if isinstance(n, functions)].count("main") == 1
    assert ast.get_docstring(tree)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_an_example_uses_public_names_only(path: Path) -> None:
    modules = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)]
    ours = {n.module for n in modules if n.module and n.module.startswith("phi_sessions")}
    assert ours <= {"phi_sessions", "phi_sessions.messages"}


def test_the_shipped_session_is_laid_out_as_phi_core_writes_it() -> None:
    text = (EXAMPLES / "data" / "session.json").read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False)


def test_four_processes_share_one_sqlite_file() -> None:
    assert run_example("store_sqlite.py") == [
        "added    4 processes: 100 of 100 additions kept",
        "listed   the newest by counter: 100 additions",
        "deleted  it is there: False",
    ]


async def test_workers_share_a_postgres_database(postgres_url: str) -> None:
    assert await asyncio.to_thread(run_example, "store_postgres.py", postgres_url) == [
        "noted    8 workers: 80 of 80 notes kept",
        "reports  1 worker has the session, 7 are turned away by the one who has it",
    ]


def test_idle_chats_vanish_from_redis(shared_redis: Any) -> None:
    assert run_example("store_redis.py", shared_redis.url) == [
        "chatted  20 visitors, 3 questions each: 60 answers kept",
        "idle     10 chats are there, the others have vanished",
    ]


def test_a_directory_is_archived_in_object_storage(s3_url: str) -> None:
    assert run_example("store_s3.py", s3_url) == [
        "archived  copied 12, replaced 0, equal 0",
        "again     copied 1, replaced 1, equal 11",
        "listed    in the order of the directory: True",
    ]
