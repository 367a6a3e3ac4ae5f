"""What commands go through: connections of one's own, or a client that belongs to somebody."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol

from ...dependency import requires
from .failures import DRIVER_ERRORS, is_closed, may_have_run

with requires("redis"):
    from redis.asyncio import Redis, RedisCluster
    from redis.exceptions import ClusterError, MaxConnectionsError, NoPermissionError, ResponseError
    from redis.exceptions import ConnectionError as LostConnectionError

__all__ = [
    "AnswerLostError",
    "Channel",
    "Client",
    "GivenClient",
    "OwnConnections",
    "address_of",
    "address_of_options",
]

Client = Redis | RedisCluster
Command = Sequence[Any]

_RAW: Final = {"NEVER_DECODE": True}
"""Answers are bytes, also from a client that decodes its own."""
_PAUSES: Final = (0.0, 0.002, 0.01, 0.05)
_UNTIL_MOVED: Final = 0.1
_STUMBLES: Final = (AttributeError, TypeError, RuntimeError)
"""What a client may raise that uses a closed connection; see `failures.is_closed`."""


class AnswerLostError(Exception):
    """The commands may have reached the server, and no answer came; the cause says why."""


class Channel(Protocol):
    """A way to a server.

    Attributes:
        address: The server, as errors name it.
        is_cluster: Whether it is a cluster's client.
        tries_again: Whether commands may be sent again without being asked for it.
    """

    address: str
    is_cluster: bool
    tries_again: bool

    async def send(self, commands: Sequence[Command], seconds: float) -> list[Any]:
        """Return the answers to commands that go one after the other, errors among them.

        Raises:
            AnswerLostError: They may have been carried out.
            What else the driver raises: they were not.
        """
        ...

    async def aclose(self) -> None:
        """Close what was opened; what is sent after that opens it again."""
        ...


class OwnConnections:
    """A few connections, made when they are needed. Callers take turns.

    The driver's pool would look each connection over before it is used, and does not tell
    whether a command was sent; here one that fails is dropped, and its idle companions with it.

    Args:
        pool: The driver's pool, of which only the settings are used.
        most: How many connections there may be.
    """

    is_cluster = False
    tries_again = False

    def __init__(self, pool: Any, most: int) -> None:
        self.address = address_of_options(pool.connection_kwargs)
        self._make = pool.make_connection
        self._free = asyncio.Semaphore(most)
        self._idle: list[Any] = []

    async def send(self, commands: Sequence[Command], seconds: float) -> list[Any]:
        connection: Any = None
        is_sent = False
        try:
            async with asyncio.timeout(seconds), self._free:
                connection = self._idle.pop() if self._idle else self._make()
                try:
                    if _was_reset(connection):
                        await connection.disconnect(nowait=True)
                    if not connection.is_connected:
                        await _connect(connection)
                    packed = connection.pack_commands(commands)
                    is_sent = True
                    await connection.send_packed_command(packed)
                    answers = [await _answer(connection) for _ in commands]
                except BaseException:
                    await connection.disconnect(nowait=True)
                    raise
                self._idle.append(connection)
                return answers
        except DRIVER_ERRORS as error:
            if connection is None:
                raise MaxConnectionsError("no connection came free in time") from error
            if isinstance(error, LostConnectionError):
                await self.aclose()  # the server has most likely closed the others, too
            if is_sent and may_have_run(error, self.tries_again):
                raise AnswerLostError from error
            raise

    async def aclose(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect()


def _was_reset(connection: Any) -> bool:
    """Whether it was closed while it was idle, which the driver does not notice."""
    writer = connection._writer  # noqa: SLF001 - the driver has no word for it
    return writer is not None and bool(writer.is_closing())


async def _connect(connection: Any) -> None:
    """Connect, and hear what the server has against it before it is sent anything that counts.

    It ends the connection of somebody who should have signed in and sends much, and its reason
    for it may be lost.
    """
    await connection.connect()
    await connection.send_command("PING", check_health=False)
    with contextlib.suppress(NoPermissionError):  # who may not ask that is known, too
        await connection.read_response()


async def _answer(connection: Any) -> Any:
    try:
        return await connection.read_response(disable_decoding=True)
    except ResponseError as error:
        return error


class GivenClient:
    """A client of the driver's, with its own rules.

    Args:
        client: The client.
        most: How many commands may be under way at once on a cluster, whose client refuses those
            for which it has no connection left. Other clients see to that.
    """

    def __init__(self, client: Client, most: int) -> None:
        self.address = address_of(client)
        self.is_cluster = isinstance(client, RedisCluster)
        self.tries_again = _tries_again(client)
        self._client: Any = client
        self._free = asyncio.Semaphore(most) if self.is_cluster else contextlib.nullcontext()

    async def send(self, commands: Sequence[Command], seconds: float) -> list[Any]:
        execute = partial(_stubbornly, partial(self._execute, commands))
        moved_by = asyncio.get_running_loop().time() + seconds / 2
        is_out = False
        moving: ClusterError | None = None
        try:
            async with asyncio.timeout(seconds):
                while True:
                    async with self._free:
                        is_out = True
                        try:
                            return await execute()
                        except ClusterError as error:
                            if not _is_on_the_move(error, moved_by):
                                raise
                            moving, is_out = error, False
                    await asyncio.sleep(_UNTIL_MOVED)
        except ResponseError as error:
            return [error]
        except _STUMBLES as error:
            if not is_closed(error):
                raise
            raise AnswerLostError from LostConnectionError(str(error))
        except DRIVER_ERRORS as error:
            if not is_out:
                raise moving or MaxConnectionsError("no connection came free in time") from error
            if may_have_run(error, self.tries_again):
                raise AnswerLostError from error
            raise
        finally:
            moving = None  # it knows this frame: they would hold each other

    async def _execute(self, commands: Sequence[Command]) -> list[Any]:
        if len(commands) == 1:
            return [await self._client.execute_command(*commands[0], **_RAW)]
        pipe = self._client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command, **_RAW)
        answers: list[Any] = await pipe.execute(raise_on_error=False)
        return answers

    async def aclose(self) -> None:
        await self._client.aclose()


async def _stubbornly(execute: Callable[[], Awaitable[list[Any]]]) -> list[Any]:
    """Send by a client that may use a connection which is closed.

    A pool may not notice that an idle connection was reset. When a cluster's client has looked for
    the nodes anew, it closes connections that other tasks have just been given.
    """
    for pause in _PAUSES:
        try:
            return await execute()
        except _STUMBLES as error:
            if not is_closed(error):
                raise
            await asyncio.sleep(pause)
    return await execute()


def _is_on_the_move(error: ClusterError, moved_by: float) -> bool:
    """Whether a cluster's client was sent to and fro, and there is time for it to try again.

    While a slot moves to another node, both refuse a script of which some keys are there and others
    are not. The client gives up after less than half a second, and has done nothing by then.
    """
    return type(error) is ClusterError and asyncio.get_running_loop().time() < moved_by


def _tries_again(client: Client) -> bool:
    """Whether a client may send a request again by itself; it may when it does not say."""
    if isinstance(client, RedisCluster):
        return True
    retry: Any = client.connection_pool.connection_kwargs.get("retry")
    return retry is None or getattr(retry, "_retries", 1) != 0


def address_of(client: Client) -> str:
    """Return the server of a client as errors name it: without user and password."""
    if isinstance(client, RedisCluster):
        return "redis cluster"
    return address_of_options(client.connection_pool.connection_kwargs)


def address_of_options(options: Mapping[str, Any]) -> str:
    """Return the server that connections with these settings go to, as errors name it."""
    if "path" in options:
        return f"unix://{options['path']}?db={options.get('db', 0)}"
    host, port = options.get("host", "localhost"), options.get("port", 6379)
    return f"redis://{host}:{port}/{options.get('db', 0)}"
