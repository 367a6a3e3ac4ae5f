"""The project's own gates, each a test of its own: format, lint, types, import order."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = Path(sysconfig.get_path("scripts"))


def check(*command: str | Path) -> None:
    """Run a tool in the project's root; show what it prints when it finds something."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, f"\n{done.stdout}{done.stderr}"


def sources() -> list[Path]:
    """Return all of the project's Python files, virtual environments left out."""
    folders = ("phi_sessions", "tests", "benchmarks", "examples")
    return sorted(path for name in folders for path in (ROOT / name).rglob("*.py"))


def test_every_file_is_formatted() -> None:
    check(sys.executable, "-m", "ruff", "format", "--check", *sources())


def test_the_linter_finds_nothing() -> None:
    check(sys.executable, "-m", "ruff", "check", *sources())


def test_mypy_finds_nothing() -> None:
    check(sys.executable, "-m", "mypy")


def test_pyright_finds_nothing() -> None:
    check(sys.executable, "-m", "pyright", "--pythonpath", sys.executable)


def test_imports_run_downhill() -> None:
    check(BIN / "lint-imports", "--no-cache")
