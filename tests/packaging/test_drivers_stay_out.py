"""Only the driver of the scheme that is opened is imported, and one that is missing is named."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import Any

import pytest

DRIVERS = {"sqlite3", "aiosqlite", "asyncpg", "psycopg", "redis", "obstore", "portalocker"}
RUNNERS = {"pytest", "_pytest", "pytest_asyncio", "unittest", "hypothesis", "doctest"}

SCHEMES = [
    # URL, the driver that it takes, the extra that brings it
    ("sqlite:///s.db", "sqlite3", "sqlite"),
    ("postgresql://user@localhost/sessions", "asyncpg", "postgres"),
    ("postgres://user@localhost/sessions", "asyncpg", "postgres"),
    ("redis://localhost:6379/0", "redis", "redis"),
    ("rediss://localhost:6379/0", "redis", "redis"),
    ("s3://bucket/prefix", "obstore", "object"),
    ("gs://bucket/prefix", "obstore", "object"),
    ("az://container/prefix?account_name=someone", "obstore", "object"),
]

_CHILD = """
import importlib.abc, json, sys

def loaded():
    return sorted({name.partition(".")[0] for name in sys.modules})

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def opened(url):
    try:
        return type(open_store(url)).__name__
    except Exception as error:
        return [type(error).__name__, str(error), type(error.__cause__).__name__]

names, urls = json.loads(sys.argv[1])
missing = Missing()
sys.meta_path.insert(0, missing)
import phi_sessions
said = {"import": loaded()}
from phi_sessions import open_store
said["first"] = [opened(url) for url in urls]
said["opened"] = loaded()
sys.meta_path.remove(missing)
said["again"] = [opened(url) for url in urls]
print(json.dumps(said))
"""


def in_a_child(*urls: str, missing: set[str] = frozenset()) -> dict[str, Any]:  # type: ignore[assignment]
    """Open `urls` in a fresh interpreter, without the packages `missing`, and then with them.

    Returns:
        What was loaded after the import and after opening, and what opening came to.
    """
    arguments = json.dumps([sorted(missing), urls])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _CHILD, arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.mark.parametrize("name", sorted((DRIVERS | RUNNERS) - {"psycopg"}))
def test_what_must_stay_out_is_installed_or_this_would_prove_nothing(name: str) -> None:
    assert importlib.util.find_spec(name)


def test_the_import_loads_no_driver_and_no_test_runner() -> None:
    assert (DRIVERS | RUNNERS).intersection(in_a_child()["import"]) == set()


@pytest.mark.parametrize(
    ("url", "name"),
    [("file:sessions", "FileSystemSessionStore"), ("memory:", "MemorySessionStore")],
)
def test_the_stores_of_the_core_need_no_driver(url: str, name: str) -> None:
    said = in_a_child(url, missing=DRIVERS)
    assert said["first"] == [name]
    assert (DRIVERS | RUNNERS).intersection(said["opened"]) == set()


@pytest.mark.parametrize(("url", "driver", "extra"), SCHEMES)
def test_a_scheme_loads_its_own_driver_and_no_other(url: str, driver: str, extra: str) -> None:
    said = in_a_child(url)
    assert said["first"] == said["again"]
    assert said["first"][0].endswith("SessionStore"), said["first"]
    assert (DRIVERS | RUNNERS).intersection(said["opened"]) == {driver}, extra


@pytest.mark.parametrize(("url", "driver", "extra"), SCHEMES)
def test_a_scheme_needs_no_driver_but_its_own(url: str, driver: str, extra: str) -> None:
    said = in_a_child(url, missing=DRIVERS - {driver})
    assert said["first"][0].endswith("SessionStore"), (extra, said["first"])


@pytest.mark.parametrize(("url", "driver", "extra"), SCHEMES)
def test_a_missing_driver_is_named_with_its_extra_and_can_be_installed_meanwhile(
    url: str, driver: str, extra: str
) -> None:
    said = in_a_child(url, missing={driver})
    assert said["first"] == [
        [
            "MissingDependencyError",
            f"{driver} is missing: pip install 'phi-sessions[{extra}]'",
            "ModuleNotFoundError",
        ]
    ]
    assert said["again"][0].endswith("SessionStore"), said["again"]


def test_each_of_the_missing_drivers_is_named() -> None:
    urls = [url for url, _, _ in SCHEMES]
    said = in_a_child(*urls, "file:sessions", missing=DRIVERS)
    for (_, driver, extra), outcome in zip(SCHEMES, said["first"], strict=False):
        assert outcome[0] == "MissingDependencyError"
        assert f"{driver} is missing: pip install 'phi-sessions[{extra}]'" in outcome[1]
    assert said["first"][-1] == "FileSystemSessionStore"
    assert DRIVERS.intersection(said["opened"]) == set()
