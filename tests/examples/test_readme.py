"""What README shows works as it is shown."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from example_runner import PATIENCE, ROOT

from phi_sessions import FileSystemSessionStore, SessionStore, errors

README = (ROOT / "README.md").read_text(encoding="utf-8")


class Block(NamedTuple):
    """A fenced block of README."""

    language: str
    text: str


BLOCKS = [
    Block(*found)
    for found in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
]
SHELL = [block.text for block in BLOCKS if block.language == "sh"]

# As `python -m asyncio` does: each block is compiled with `await` allowed outside of a coroutine.
_RUN = """
import ast, asyncio, inspect, sys, types
names = {}
async def main():
    for text in sys.argv[1:]:
        code = compile(text, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = types.FunctionType(code, names)()
        if inspect.iscoroutine(result):
            await result
        print("-- end of block")
asyncio.run(main())
"""


def test_the_python_blocks_print_what_is_shown_below_them(tmp_path: Path) -> None:
    blocks = [block.text for block in BLOCKS if block.language == "python"]
    shown = [
        following.text if following.language == "text" else ""
        for block, following in zip(BLOCKS, [*BLOCKS[1:], Block("", "")], strict=True)
        if block.language == "python"
    ]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _RUN, *blocks],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("-- end of block\n")[:-1] == shown
    assert len(blocks) >= 4


def test_the_first_python_block_is_five_lines_and_comes_early() -> None:
    first = next(block for block in BLOCKS if block.language == "python")
    assert len(first.text.splitlines()) == 5
    assert README[: README.index(first.text)].count("\n") < 30


@pytest.mark.parametrize("number", [0, 1])
def test_a_set_up_line_is_one_line_that_makes_its_own_environment(number: int) -> None:
    line = SHELL[number]
    assert line.count("\n") == 1
    made = re.match(r"python3 -m venv (\S+) && (\S+)/bin/pip install -q ", line)
    assert made
    assert made[1] == made[2]
    assert f"&& {made[1]}/bin/python " in line


def test_the_first_set_up_line_runs_the_main_job_and_the_second_all_tests() -> None:
    assert SHELL[0].endswith(" install -q . && .venv/bin/python examples/quickstart.py\n")
    assert SHELL[1].endswith(" install -q -e '.[dev]' && .venv-test/bin/python -m pytest\n")
    assert SHELL[0].split()[3] != SHELL[1].split()[3]


def test_ci_runs_the_second_set_up_line_literally() -> None:
    done = subprocess.run(
        [str(ROOT / ".ci" / "run"), "--show"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout == SHELL[1]


def test_every_error_is_explained() -> None:
    table = README.partition("\n## Errors\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (?:`(\w+)`)? ?\|", table, re.MULTILINE)
    assert {name for name, _ in rows} == set(errors.__all__) - {"SessionError"}
    for name, base in rows:
        bases = {each.__name__ for each in getattr(errors, name).__mro__}
        assert not base or base in bases


def test_every_method_of_a_store_is_mentioned() -> None:
    public = {n for n in vars(SessionStore) if not n.startswith("_")} - {"aclose"}
    assert [name for name in sorted(public) if f"`{name}" not in README] == []


def test_the_links_lead_to_files_and_headings() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)]+)\)", README)
    headings = {
        "#" + heading.lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    }
    missing = [t for t in targets if t not in headings and not (ROOT / t).is_file()]
    assert targets
    assert missing == []


def test_the_defaults_are_the_ones_that_are_named() -> None:
    parameters = inspect.signature(FileSystemSessionStore).parameters
    assert "`lock_timeout`, 5 s by default" in README
    assert parameters["lock_timeout"].default == 5.0
    assert "`max_bytes` (128 MiB by default)" in README
    assert parameters["max_bytes"].default == 128 * 1024 * 1024
