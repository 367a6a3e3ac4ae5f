"""The built wheel, installed afresh, does the main job."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from pathlib import Path

import interpreters
import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = interpreters.found()
_WHERE = "import phi_sessions; print(phi_sessions.__file__)"


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command and return what it prints; show everything when it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution as an index would get both."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", out, ROOT, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    """What the wheel says about itself."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    folders = {name.partition("/")[0] for name in names}
    assert folders == {"phi_sessions", f"phi_sessions-{PROJECT['version']}.dist-info"}
    assert "phi_sessions/py.typed" in names
    packaged = {n for n in names if n.startswith("phi_sessions/")}
    written = [p for p in (ROOT / "phi_sessions").rglob("*") if p.suffix in {".py", ".typed"}]
    assert packaged == {path.relative_to(ROOT).as_posix() for path in written}
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_the_core_needs_three_packages_and_no_other(metadata: Message) -> None:
    required = metadata.get_all("Requires-Dist", [])
    core = [line for line in required if "extra ==" not in line]
    names = sorted(re.split(r"[^a-z0-9_-]", line)[0] for line in core)
    assert names == ["aiofiles", "msgspec", "portalocker"]
    assert all(">=" in line and "<" not in line for line in core)


def test_the_wheel_is_for_python_3_11_and_later(metadata: Message) -> None:
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Version"] == PROJECT["version"]


def lowest() -> list[str]:
    """Return the core dependencies, each pinned to the lowest version that is allowed."""
    return [dependency.replace(">=", "==") for dependency in PROJECT["dependencies"]]


@pytest.mark.parametrize(
    ("version", "pins"),
    [
        *(pytest.param(version, lowest(), id=f"{version}-lowest") for version in sorted(PYTHONS)),
        *(pytest.param(version, [], id=f"{version}-newest") for version in sorted(PYTHONS)[-1:]),
    ],
)
def test_the_installed_wheel_runs_the_quickstart(
    version: str, pins: list[str], wheel: Path, tmp_path: Path
) -> None:
    run(PYTHONS[version], "-m", "venv", "--without-pip", "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--quiet", "--only-binary", ":all:", wheel, *pins, cwd=tmp_path)
    run(*pip, "check", cwd=tmp_path)
    where = run(python, "-c", _WHERE, cwd=tmp_path).strip()
    assert Path(where).is_relative_to(tmp_path / "venv")
    printed = run(python, "-W", "error", ROOT / "examples" / "quickstart.py", cwd=tmp_path)
    assert "saved    every value as it was: True" in printed
    assert "raced    4 processes: 40 of 40 additions kept" in printed
