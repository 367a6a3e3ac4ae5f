"""The pytest class, in the five lines that a third party writes, in a pytest of its own."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import phi_sessions.testing
from phi_sessions import FileSystemSessionStore
from phi_sessions.testing import CHECKS, check_store

HERE = Path(__file__).parent
PLUGINS = {
    "no plugin": ["-p", "no:asyncio"],
    "auto": ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"],
    "strict": ["-o", "asyncio_mode=strict", "-o", "asyncio_default_fixture_loop_scope=function"],
}

FIVE_LINES = """
from broken_stores import {store}
from phi_sessions.testing import StoreConformance
class TestMyStore(StoreConformance):
    {how} open_store(self):
        return {store}()
"""

IN_FILES = """
import pytest
from phi_sessions import FileSystemSessionStore
from phi_sessions.testing import Scale, StoreConformance

class TestMyStore(StoreConformance):
    scale = Scale(processes=2, kills=1, rounds=3)

    @pytest.fixture(autouse=True)
    def place(self, tmp_path):
        self.folder = tmp_path

    async def open_store(self):
        return FileSystemSessionStore(self.folder)
"""


def run_pytest(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on a test file in a folder of its own, without this project's settings."""
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (folder / "test_my_store.py").write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def outcomes(printed: str) -> dict[str, str]:
    """Return how each test ended, by its id."""
    return dict(re.findall(r"::(TestMyStore::\S+) (PASSED|FAILED|SKIPPED)", printed))


def test_five_lines_make_a_test_of_each_check(tmp_path: Path) -> None:
    text = FIVE_LINES.format(store="FourMethods", how="def")
    done = run_pytest(tmp_path, text, "--collect-only", "-q", *PLUGINS["no plugin"])
    collected = re.findall(r"::TestMyStore::test_promise\[(\w+)\]", done.stdout)
    assert collected == [check.name for check in CHECKS]
    done = run_pytest(tmp_path, text, "-v", "-k", "list or lease", *PLUGINS["no plugin"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(outcomes(done.stdout).values()) == {"PASSED", "SKIPPED"}
    assert "the store has no leases" in done.stdout


def test_one_check_can_be_picked_and_its_failure_tells_the_promise(tmp_path: Path) -> None:
    for plugin, options in PLUGINS.items():
        text = FIVE_LINES.format(store="LastWriterWins", how="async def")
        names = "a_stale_save_is_refused or unknown_keys"
        done = run_pytest(tmp_path, text, "-v", "-k", names, *options)
        assert done.returncode == 1, plugin + done.stdout + done.stderr
        assert outcomes(done.stdout) == {
            "TestMyStore::test_promise[a_stale_save_is_refused]": "FAILED",
            "TestMyStore::test_promise[unknown_keys_are_kept]": "PASSED",
        }
        assert "Promised: A session that came from a store replaces only" in done.stdout


def test_child_processes_open_what_the_class_opens(tmp_path: Path) -> None:
    names = "processes or killed or reopen"
    done = run_pytest(tmp_path, IN_FILES, "-v", "-k", names, *PLUGINS["auto"])
    assert done.returncode == 0, done.stdout + done.stderr
    found = outcomes(done.stdout)
    assert len(found) >= 8
    assert set(found.values()) == {"PASSED"}


async def test_the_examples_in_the_documentation_work(tmp_path: Path) -> None:
    docs = phi_sessions.testing.__doc__ or ""
    docs = docs.replace('"a place that the checks may fill"', repr(str(tmp_path / "place")))
    example, program = re.findall(r"```python\n(.*?)```", docs, re.DOTALL)
    filled = f"from phi_sessions import FileSystemSessionStore as MyStore\n{example}"
    assert len(example.strip().splitlines()) == 5
    names = "unknown_keys or updates_of_many_processes"
    done = run_pytest(tmp_path, filled, "-k", names, *PLUGINS["no plugin"])
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    names_there: dict[str, Any] = {
        "partial": partial,
        "MyStore": FileSystemSessionStore,
        "check_store": partial(check_store, only=["unknown_keys_are_kept"]),
    }
    await eval(compile(program, "docs", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names_there)
    assert len(names_there["report"].passed) == 1


def test_a_class_that_does_not_say_how_to_open_is_told(tmp_path: Path) -> None:
    text = (
        "from phi_sessions.testing import StoreConformance\n"
        "class TestMyStore(StoreConformance): pass\n"
    )
    done = run_pytest(tmp_path, text, "-k", "unknown_keys", *PLUGINS["auto"])
    assert done.returncode == 1
    assert "TestMyStore has no method open_store" in done.stdout
