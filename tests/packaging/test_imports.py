"""What `import phi_sessions` brings along."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

_LIST = """
import json, sys
before = {name.partition(".")[0] for name in sys.modules}
import phi_sessions
after = {name.partition(".")[0] for name in sys.modules}
print(json.dumps(sorted(after - before)))
"""


def loaded_by_the_import() -> set[str]:
    """Return the top-level modules that the import loads, in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", _LIST], capture_output=True, text=True, timeout=60, check=True
    )
    return set(json.loads(done.stdout))


def test_the_import_loads_the_two_packages_that_it_needs_and_no_other() -> None:
    outside = loaded_by_the_import() - sys.stdlib_module_names
    # msgspec takes typing_extensions along where that is installed.
    assert outside - {"typing_extensions"} == {"phi_sessions", "aiofiles", "msgspec"}


@pytest.mark.parametrize("name", ["portalocker", "starlette", "httpx", "numpy", "sqlite3"])
def test_the_import_does_not_load(name: str) -> None:
    assert importlib.util.find_spec(name), f"{name} is installed, or this would prove nothing"
    assert name not in loaded_by_the_import()


def test_the_import_writes_nothing_and_starts_no_thread() -> None:
    code = "import phi_sessions, threading; print(threading.active_count())"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
