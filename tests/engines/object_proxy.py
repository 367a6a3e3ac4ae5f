"""A proxy that loses what it is told to lose: between a client and a real S3 server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import Enum, auto

__all__ = ["DELAY", "Act", "Proxy", "proxy_to"]

DELAY = 0.2
"""Seconds by which a request is delayed."""


class Act(Enum):
    """What becomes of a request."""

    PASS = auto()
    LOSE_ANSWER = auto()
    """It is made, and the connection is cut before the answer comes back."""

    LOSE_REQUEST = auto()
    """The connection is cut before it is made."""

    KEEP = auto()
    """It is kept until `release`, and made then; the client hears nothing."""

    DELAY = auto()
    """It is made a while later, whether the client still waits or not."""

    FAIL = auto()
    """It is made, and the answer is that the server failed."""

    TURN_DOWN = auto()
    """It is not made; the answer is that there is too much to do."""


Rule = Callable[[str, str], Act]
"""By the method and the path of a request, what becomes of it."""

_FAILED = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
_BUSY = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n"


class Proxy:
    """Passes HTTP requests on, each by a connection of its own.

    Attributes:
        rule: What becomes of each request; all pass by default.
        seen: Method and path of each request, in the order in which they came.
        kept: How many requests are kept.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._release = asyncio.Event()
        self._made_late: list[asyncio.Task[bytes]] = []
        self._open: dict[asyncio.Task[object], asyncio.StreamWriter] = {}
        self._meanwhile: Callable[[], Awaitable[object]] | None = None
        self.rule: Rule = lambda method, path: Act.PASS
        self.seen: list[tuple[str, str]] = []
        self.endpoint = ""

    @property
    def kept(self) -> int:
        return len(self._made_late)

    async def release(self) -> None:
        """Have the server make what was kept; return when it has answered all."""
        self._release.set()
        await asyncio.gather(*self._made_late)

    def only(
        self,
        act: Act,
        method: str,
        part: str,
        times: int = 1,
        meanwhile: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """Have `act` befall so many requests of a method whose path has `part` in it.

        The next such request after these waits until `meanwhile` has happened.
        """
        left = times
        self._meanwhile = None

        def rule(seen_method: str, path: str) -> Act:
            nonlocal left
            if seen_method != method or part not in path or left < 0:
                return Act.PASS
            left -= 1
            if left < 0:
                self._meanwhile = meanwhile
                return Act.PASS
            return act

        self.rule = rule

    async def close(self) -> None:
        """Cut all connections and wait until nobody serves them."""
        for task in self._made_late:
            task.cancel()
        for writer in self._open.values():
            writer.transport.abort()
        await asyncio.gather(*self._open, *self._made_late, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        try:
            await self._serve(reader, writer)
        finally:
            del self._open[task]
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                request = await _read_message(reader)
                method, path, _ = request.split(b" ", 2)
                self.seen.append((method.decode(), path.decode()))
                act = self.rule(method.decode(), path.decode())
                if act is Act.KEEP:
                    self._made_late.append(asyncio.create_task(self._make_later(request)))
                    await reader.read()  # until the client has had enough
                if act in (Act.LOSE_REQUEST, Act.KEEP):
                    break
                if self._meanwhile is not None:
                    happening, self._meanwhile = self._meanwhile, None
                    await happening()
                if act is Act.DELAY:
                    await asyncio.sleep(DELAY)
                answer = _BUSY if act is Act.TURN_DOWN else await self._make(request)
                if act is Act.LOSE_ANSWER:
                    break
                writer.write(_FAILED if act is Act.FAIL else answer)
                await writer.drain()

    async def _make_later(self, request: bytes) -> bytes:
        await self._release.wait()
        return await self._make(request)

    async def _make(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(request)
            await writer.drain()
            return await _read_message(reader, is_answer=not request.startswith(b"HEAD"))
        finally:
            writer.transport.abort()


async def _read_message(reader: asyncio.StreamReader, *, is_answer: bool = True) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    fields = {
        line.partition(b":")[0].lower(): line.partition(b":")[2].strip()
        for line in head.split(b"\r\n")[1:]
    }
    if fields.get(b"transfer-encoding", b"").lower() == b"chunked":
        return head + await _read_chunks(reader)
    size = int(fields.get(b"content-length", b"0")) if is_answer else 0
    return head + await reader.readexactly(size)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    read = b""
    while True:
        line = await reader.readuntil(b"\r\n")
        chunk = await reader.readexactly(int(line.strip(), 16) + 2)
        read += line + chunk
        if line.strip() == b"0":
            return read


@asynccontextmanager
async def proxy_to(port: int) -> AsyncIterator[Proxy]:
    """Yield a running proxy to a server on loopback."""
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=2**20)
    proxy.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
        await asyncio.sleep(0)  # transports that were cut are closed by the next turn
