"""One event loop's way to the server: requests with a time limit, whoever made the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from ...dependency import requires
from ...errors import SessionTaskError
from .failures import DRIVER_ERRORS, may_have_run
from .scripts import Script

with requires("redis"):
    from redis.asyncio import Redis, RedisCluster
    from redis.exceptions import ConnectionError as LostConnectionError
    from redis.exceptions import MaxConnectionsError, NoScriptError, ResponseError

__all__ = ["AnswerLostError", "Client", "Link"]

Client = Redis | RedisCluster

_RAW: Final = {"NEVER_DECODE": True}
"""Answers are bytes, also from a client that decodes its own."""
_PAUSES: Final = (0.0, 0.002, 0.01, 0.05)


class AnswerLostError(Exception):
    """The request may have reached the server, and its answer did not come; the cause says why."""


class Link:
    """A client, for as long as its loop runs.

    Args:
        client: The driver's client.
        connections: How many requests may be under way at once; None if the client sees to that.
        tries_again: Whether the client may send a request again by itself. What it raises at the
            end then does not tell whether an earlier attempt was carried out.

    Attributes:
        address: The server, as errors name it.
        is_cluster: Whether it is redis-py's client for clusters.
        spans_slots: Whether a script may have keys in several slots.
        is_closing: Whether it is closed, or will be as soon as it is not in use.
    """

    keeper: AsyncGenerator[Link] | None = None

    def __init__(self, client: Any, *, connections: int | None, tries_again: bool) -> None:
        self.client = client
        self.loop = asyncio.get_running_loop()
        self.address = address_of(client)
        self.is_cluster = isinstance(client, RedisCluster)
        self.spans_slots = not self.is_cluster
        self.tries_again = tries_again
        self._free = None if connections is None else asyncio.Semaphore(connections)
        self._can_sync = False
        self.is_closing = False
        self._users = 0
        self._unused = asyncio.Event()

    @contextmanager
    def in_use(self) -> Generator[None]:
        """Keep the client open.

        Raises:
            SessionTaskError: It is about to be closed.
        """
        if self.is_closing:
            raise SessionTaskError("the store is closed")
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    async def close(self) -> None:
        """Close the client when nobody uses it any more; nobody can begin to."""
        self.is_closing = True
        while self._users:
            self._unused.clear()
            await self._unused.wait()
        await self.client.aclose()

    async def run(
        self,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[Any],
        *,
        seconds: float,
        sync: bool = False,
    ) -> tuple[Any, Any]:
        """Return the script's answer and, with `sync`, what the server says of its disk.

        Raises:
            AnswerLostError: The script may have run.
            What else the driver raises: it did not.
        """
        execute = self._execute_and_sync if sync else self._execute
        try:
            return await execute("EVALSHA", script.digest, len(keys), *keys, *args, seconds=seconds)
        except NoScriptError:
            return await execute("EVAL", script.text, len(keys), *keys, *args, seconds=seconds)

    async def command(self, *command: Any, seconds: float) -> Any:
        """Return the answer to one command.

        Raises:
            As `run`.
        """
        answer, _ = await self._execute(*command, seconds=seconds)
        return answer

    async def _execute(self, *command: Any, seconds: float) -> tuple[Any, None]:
        return await self._send(
            lambda: self.client.execute_command(*command, **_RAW), seconds
        ), None

    async def _execute_and_sync(self, *command: Any, seconds: float) -> tuple[Any, Any]:
        pipe = self.client.pipeline(transaction=False)
        pipe.execute_command(*command, **_RAW)
        pipe.execute_command("WAITAOF", 1, 0, max(1, round(seconds * 900)), **_RAW)
        answer, synced = await self._send(lambda: pipe.execute(raise_on_error=False), seconds)
        if isinstance(answer, Exception):
            raise answer
        return answer, synced

    async def _send(self, send: Callable[[], Awaitable[Any]], seconds: float) -> Any:
        if self.is_cluster:
            send = partial(_stubbornly, send)
        is_out = False
        try:
            async with asyncio.timeout(seconds):
                if self._free is None:
                    is_out = True
                    return await send()
                async with self._free:
                    is_out = True
                    return await send()
        except AttributeError as error:
            if not self.is_cluster:
                raise
            raise AnswerLostError from LostConnectionError(str(error))
        except DRIVER_ERRORS as error:
            if not is_out:
                raise MaxConnectionsError("no connection came free in time") from error
            if may_have_run(error, self.tries_again):
                raise AnswerLostError from error
            raise

    async def require_sync(self, seconds: float) -> None:
        """Make sure that the server can tell when its disk has a change.

        Raises:
            ResponseError: It cannot.
            As `run` besides.
        """
        if self._can_sync:
            return
        if self.is_cluster:
            raise ResponseError("durable=True needs one server, not a cluster")
        try:
            await self.command("WAITAOF", 1, 0, 1, seconds=seconds)
        except ResponseError as error:
            raise ResponseError(
                "durable=True needs WAITAOF, which Redis has from 7.2 on and Valkey has, and"
                f" appendonly yes: {error}"
            ) from error
        self._can_sync = True


async def _stubbornly(send: Callable[[], Awaitable[Any]]) -> Any:
    """Send to a cluster.

    When its client has looked for the nodes anew, it closes connections that other tasks have
    just been given, and their commands fail with what is no error of the driver's.
    """
    for pause in _PAUSES:
        try:
            return await send()
        except AttributeError:
            await asyncio.sleep(pause)
    return await send()


def address_of(client: Any) -> str:
    """Return the server of a client as errors name it: without user and password."""
    if isinstance(client, RedisCluster):
        return "redis cluster"
    options = client.connection_pool.connection_kwargs
    if "path" in options:
        return f"unix://{options['path']}?db={options.get('db', 0)}"
    host, port = options.get("host", "localhost"), options.get("port", 6379)
    return f"redis://{host}:{port}/{options.get('db', 0)}"
