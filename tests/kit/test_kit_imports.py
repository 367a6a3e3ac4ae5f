"""The kit can be used where no test runner is installed."""

from __future__ import annotations

import subprocess
import sys

from phi_sessions.testing import catalogue

_LIST = """
import sys
import phi_sessions.testing
tops = {name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names
print(*sorted(top for top in tops if not top.startswith("_")))
"""

_RUN = """
import asyncio, sys
for name in ("pytest", "_pytest", "hypothesis", "unittest"):
    sys.modules[name] = None  # as if it were not installed
from phi_sessions import MemorySessionStore
from phi_sessions.testing import check_store
report = asyncio.run(check_store(MemorySessionStore, only=["unknown_keys_are_kept"]))
print(report.ok, len(report.passed))
"""


def printed(code: str, *options: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.split()


def test_the_import_loads_no_test_runner_and_nothing_but_the_core_needs() -> None:
    loaded = set(printed(_LIST)) - {"typing_extensions"}
    assert loaded == {"phi_sessions", "aiofiles", "msgspec"}


def test_checks_run_without_a_test_runner() -> None:
    assert printed(_RUN) == ["True", "1"]


def test_checks_hold_though_assertions_are_left_out() -> None:
    code = _RUN.replace("check_store(MemorySessionStore", "check_store(Broken").replace(
        "report =",
        "class Broken(MemorySessionStore):\n"
        "    async def load(self, session_id):\n"
        "        session = await super().load(session_id)\n"
        "        session.extra = {}\n"
        "        return session\n"
        "report =",
    )
    assert printed(code, "-O") == ["False", "0"]


def test_every_theme_is_in_the_catalogue() -> None:
    from pathlib import Path

    folder = Path(catalogue.__file__).parent / "checks"
    themes = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert {check.theme for check in catalogue.CHECKS} == themes
