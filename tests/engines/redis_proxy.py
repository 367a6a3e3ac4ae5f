"""A network that can be told to lose things."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

Fate = Literal["pass", "lose the answer", "lose the request", "hold the request"]


class Proxy:
    """Stands between clients and a server.

    Attributes:
        fates: What becomes of the next scripts that are sent; when the list is empty they pass.
        about: The digest of the one script that is meant, where not all are.
        held: Requests that are not delivered yet.
        seen: How many scripts were sent.
        is_down: Whether new connections are refused, as soon as they are made.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.fates: list[Fate] = []
        self.about = b"EVAL"
        self.held: list[bytes] = []
        self.seen = 0
        self.is_down = False
        self.lost = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._clients: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry what goes to and fro on one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self._clients.add(writer)
        server: asyncio.StreamWriter | None = None
        answering: asyncio.Task[None] | None = None
        try:
            if self.is_down:
                return
            answers, server = await asyncio.open_connection("127.0.0.1", self._port)
            answering = asyncio.create_task(_carry(answers, writer))
            while request := await reader.read(1 << 20):
                fate: Fate = "pass"
                if self.about in request:
                    self.seen += 1
                    fate = self.fates.pop(0) if self.fates else "pass"
                if fate == "pass":
                    server.write(request)
                    continue
                answering.cancel()
                await asyncio.wait([answering])
                if fate == "hold the request":
                    self.held.append(request)
                elif fate == "lose the answer":
                    server.write(request)
                    await answers.read(1)
                self.lost.set()
                return
        except (ConnectionError, asyncio.CancelledError):
            return
        finally:
            self._connections.discard(task)
            self._clients.discard(writer)
            if answering is not None:
                answering.cancel()
            for end in (writer, server):
                if end is not None:
                    end.close()

    async def deliver(self) -> None:
        """Let the server have what was held."""
        for request in self.held:
            answers, server = await asyncio.open_connection("127.0.0.1", self._port)
            server.write(request)
            await answers.read(1 << 20)
            server.close()
            await server.wait_closed()
        self.held.clear()

    def reset(self) -> None:
        """Reset all connections, as a server or a firewall does that has forgotten them."""
        for client in self._clients:
            at_once = struct.pack("ii", 1, 0)
            client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            client.transport.abort()

    async def close(self) -> None:
        """End all connections."""
        for task in list(self._connections):
            task.cancel()
        if self._connections:
            await asyncio.wait(list(self._connections))


async def _carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(1 << 20):
            target.write(data)
    target.close()


@asynccontextmanager
async def proxy_to(port: int) -> AsyncIterator[tuple[Proxy, str]]:
    """Stand before the server at a port of this machine; yield the proxy and its URL."""
    proxy = Proxy(port)
    listener = await asyncio.start_server(proxy.serve, "127.0.0.1")
    own_port = listener.sockets[0].getsockname()[1]
    try:
        yield proxy, f"redis://127.0.0.1:{own_port}"
    finally:
        listener.close()
        await proxy.close()
        await listener.wait_closed()
