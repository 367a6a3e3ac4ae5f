"""Both type checkers see the public names as a caller is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PUBLIC = Path(__file__).with_name("public_types.py")
CHECKERS = {
    "mypy": ["mypy", "--strict", "--cache-dir"],
    "pyright": ["pyright", "--pythonpath", sys.executable],
}


def findings(checker: str, cache: Path, *files: Path) -> str:
    """Return what a checker prints about files, with its own settings; empty if all is well."""
    arguments = CHECKERS[checker] + ([str(cache)] if checker == "mypy" else [])
    done = subprocess.run(
        [sys.executable, "-m", *arguments, *map(str, files)],
        cwd=cache,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mypy's cache, kept out of the project."""
    return tmp_path_factory.mktemp("mypy")


@pytest.mark.parametrize("checker", CHECKERS)
def test_public_names_have_the_promised_types(checker: str, tmp_path: Path, cache: Path) -> None:
    copy = tmp_path / PUBLIC.name
    copy.write_text(PUBLIC.read_text())
    assert findings(checker, cache, copy) == ""


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_wrong_use_is_found(checker: str, tmp_path: Path, cache: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from phi_sessions import MemorySessionStore, Session\n"
        "async def main(store: MemorySessionStore) -> None:\n"
        "    await store.save('s-1')\n"
        "    text: str = await store.load('s-1')\n"
        "    Session('s-1')\n"
        "    await store.save(Session('s-1', 'a'), expect='unchanged')\n"
    )
    found = findings(checker, cache, wrong)
    assert all(f"wrong.py:{line}" in found for line in (3, 4, 5, 6)), found


def test_the_examples_are_well_typed(cache: Path) -> None:
    examples = sorted((ROOT / "examples").glob("*.py"))
    assert examples
    assert findings("mypy", cache, *examples) == ""
