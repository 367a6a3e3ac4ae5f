"""A wire between a store and its server that can be cut at a chosen moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal
from urllib.parse import urlsplit

Cut = Literal["question", "answer"]


class Wire:
    """Passes on what both sides say.

    Attributes:
        url: The server's, seen through the wire.
        cut: What to lose next: what the client says next, or the server's answer to it. The
            connection breaks then, for the client; the server is not told that.
        spared: How often a client may say something before that.
        is_down: Whether new connections are refused.
        said: How often a client said something.
    """

    def __init__(self, url: str) -> None:
        self._server = urlsplit(url)
        self.url = ""
        self.cut: Cut | None = None
        self.spared = 0
        self.is_down = False
        self.said = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._to_servers: list[asyncio.StreamWriter] = []
        self._to_clients: list[asyncio.StreamWriter] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_down:
            writer.transport.abort()
            return
        host, port = self._server.hostname, self._server.port
        upstream_reader, upstream = await asyncio.open_connection(host, port)
        self._to_servers.append(upstream)
        self._to_clients.append(writer)
        lost = asyncio.Event()
        answers = asyncio.create_task(self._pass_answers(upstream_reader, writer, lost))
        self._tasks.add(answers)
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                self.said += 1
                if self.cut is not None and self.spared:
                    self.spared -= 1
                elif self.cut is not None:
                    cut, self.cut = self.cut, None
                    lost.set()
                    if cut == "question":
                        writer.transport.abort()
                        return  # the server waits for a statement that does not come
                upstream.write(data)
                await upstream.drain()
        if not lost.is_set():
            upstream.close()

    async def _pass_answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lost: asyncio.Event
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if lost.is_set():
                    writer.transport.abort()
                    return
                writer.write(data)
                await writer.drain()
        writer.close()

    async def close(self) -> None:
        for writer in self._to_servers + self._to_clients:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def wire_to(url: str) -> AsyncIterator[Wire]:
    """Lay a wire to the server at `url`."""
    wire = Wire(url)
    listener: Any = await asyncio.start_server(wire._serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    parts = urlsplit(url)
    wire.url = f"postgresql://{parts.username}:{parts.password}@127.0.0.1:{port}{parts.path}"
    try:
        yield wire
    finally:
        listener.close()
        await wire.close()
