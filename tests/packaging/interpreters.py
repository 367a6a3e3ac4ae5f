"""The Python interpreters of this machine that the package is for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

VERSIONS = ("3.11", "3.12", "3.13")
_PROBE = "import sys, venv; print('%d.%d' % sys.version_info[:2])"


def _version(python: str) -> str | None:
    """Return the version of a program that runs as Python; a pyenv shim may not."""
    try:
        done = subprocess.run(
            [python, "-c", _PROBE], capture_output=True, text=True, timeout=30, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _candidates(version: str) -> list[str]:
    folders = [Path(part) for part in os.get_exec_path()]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    pattern = re.compile(re.escape(version) + r"\.\d+")
    if pyenv.is_dir():
        folders += [path / "bin" for path in pyenv.iterdir() if pattern.fullmatch(path.name)]
    return [str(path) for folder in folders if (path := folder / f"python{version}").is_file()]


def found() -> dict[str, str]:
    """Return the interpreters by version; the running one is always among them."""
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    pythons = {running: sys.executable}
    for version in VERSIONS:
        for python in _candidates(version):
            if version not in pythons and _version(python) == version:
                pythons[version] = python
    return pythons
