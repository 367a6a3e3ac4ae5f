"""Which client a loop uses: the one that the store was given, or one of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, cast
from urllib.parse import parse_qs, urlsplit
from weakref import WeakSet

from ...dependency import requires
from ...errors import SessionTaskError
from ..forking import renew_in_child
from ..per_loop import PerLoop
from .channels import Client, GivenClient, OwnConnections, address_of, address_of_options
from .link import Link

with requires("redis"):
    from redis.asyncio import ConnectionPool
    from redis.asyncio.connection import parse_url
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError

__all__ = ["Links"]

_new_pool = cast("Callable[..., Any]", ConnectionPool.from_url)  # pyright: ignore[reportUnknownMemberType]
_OBJECTS: Final = frozenset(
    (
        "connection_class",
        "credential_provider",
        "event_dispatcher",
        "maint_notifications_pool_handler",
        "oss_cluster_maint_notifications_handler",
        "redis_connect_func",
        "retry_on_error",
        "socket_keepalive_options",
        "socket_type",
    )
)
"""Options of the driver that no text can be; it notices when it connects, if at all."""
_about_driver: dict[str, Any] = {}
if find_spec("redis.driver_info"):
    # Left to itself it reads its own version from the disk for each connection that it makes.
    _about_driver["driver_info"] = import_module("redis.driver_info").DriverInfo()
_of_the_parent: list[object] = []
"""Clients of the process that this one was forked from: kept, so that nothing closes them."""

_ending: set[asyncio.Future[None]] = set()
"""Clients of stores that nobody closed are being closed: a loop alone would forget it."""


class Links:
    """The links of all loops.

    Args:
        source: A URL, a client, or a function that makes one for the running loop. A client that
            is given is not closed, and belongs to one loop and one process.
        connections: How many requests may be under way in a loop, where the URL does not say.

    Attributes:
        address: The server, as errors name it, as far as that is known without a client.

    Raises:
        ValueError: The URL is none that the driver knows, has an option that it does not know, or
            there would be no connection.
        TypeError: The source is nothing that can be used.
    """

    def __init__(
        self,
        source: str | Client | Callable[[], Client],
        *,
        connections: int,
    ) -> None:
        self._source = source
        self._connections = connections
        self.address = "redis"
        if isinstance(source, str):
            try:
                parts = urlsplit(source)
                if parts.scheme != "unix" and "@" in parts.path + parts.fragment:
                    raise ValueError("the password has a / or a # in it")
                options = cast("dict[str, Any]", parse_url(source))
            except ValueError:  # which may quote a part of the password
                raise ValueError(
                    "not the URL of a Redis server, or a part of it is not percent-encoded"
                ) from None
            _check_options(source)
            self._connections = options.get("max_connections", connections)
            self.address = address_of_options(options)
        elif isinstance(source, Client):
            self.address = address_of(source)
        elif not callable(source):
            kind = type(source).__name__
            raise TypeError(f"a URL, a client of redis-py.asyncio or a function, not a {kind}")
        if self._connections < 1:
            raise ValueError(f"max_connections must be at least 1: {self._connections}")
        self._given: tuple[Link, asyncio.AbstractEventLoop] | None = None
        self._made = PerLoop(self._make, _end)
        self._open: WeakSet[Link] = WeakSet()
        self._is_closed = False
        self._is_forked = False
        renew_in_child(self)

    @property
    def are_open(self) -> bool:
        """Whether there is a client that was made here and not closed."""
        return bool(self._open)

    def abandon(self) -> None:
        """Have the clients that were made here closed, each by its own loop, if that runs."""
        for link in self._open:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                link.loop.call_soon_threadsafe(_end_soon, link)

    def renew(self) -> None:
        """Leave the parent's connections alone."""
        _of_the_parent.append((list(self._open), self._given))
        self._open = WeakSet()
        self._is_forked = True

    async def aclose(self) -> None:
        """Close the clients that were made here, when the requests under way are answered."""
        self._is_closed = True
        await self._made.aclose()

    async def get(self) -> Link:
        """Return the running loop's link.

        Raises:
            SessionTaskError: The store is closed, or the client that it was given belongs to
                another loop or process.
        """
        if self._is_closed:
            raise SessionTaskError("the store is closed")
        if not isinstance(self._source, Client):
            return await self._made.get()
        loop = asyncio.get_running_loop()
        if self._given is None:
            self._given = Link(GivenClient(self._source, self._connections)), loop
        link, its_loop = self._given
        if its_loop is not loop or self._is_forked:
            raise SessionTaskError(
                "the client that the store was given belongs to another event loop or process:"
                " give the store a URL, or a function that makes a client"
            )
        return link

    async def _make(self) -> Link:
        # A generator is closed when its loop shuts down, and the connections with it.
        keeper = self._keep()
        link = await anext(keeper)
        link.keeper = keeper
        return link

    async def _keep(self) -> AsyncGenerator[Link]:
        link = self._new()
        self._open.add(link)
        try:
            yield link
        finally:
            self._open.discard(link)
            await link.close()

    def _new(self) -> Link:
        if not isinstance(self._source, str):
            client = cast("Callable[[], Client]", self._source)()
            return Link(GivenClient(client, self._connections))
        return Link(OwnConnections(_pool_of(self._source), self._connections))


def _pool_of(url: str) -> Any:
    return _new_pool(
        url,
        protocol=2,
        retry=Retry(NoBackoff(), 0),  # whether to send again is not for the driver to decide
        socket_timeout=None,
        socket_connect_timeout=None,
        **_about_driver,
    )


def _check_options(url: str) -> None:
    """Refuse options behind `?` with which the driver could not make a connection.

    Raises:
        ValueError: One is unknown, given twice, or has no such value.
    """
    query = urlsplit(url).query
    options = parse_qs(query)
    twice = [name for name, values in options.items() if len(values) > 1]
    names = ", ".join(twice or options)
    if "@" in query:  # they may be a part of a password in which ? is not percent-encoded
        names = "see behind its ?"
    if twice:
        raise ValueError(f"an option is given twice in the URL of the Redis server: {names}")
    try:
        _pool_of(url).make_connection()  # which connects nowhere yet
    except (AttributeError, TypeError, ValueError, RedisError):  # all may quote a value
        is_known = False
    else:
        is_known = _OBJECTS.isdisjoint(options)
    if not is_known:
        raise ValueError(
            f"the driver cannot use an option in the URL of the Redis server: {names}"
            " (options of the store itself go beside the URL)"
        )


def _end_soon(link: Link) -> None:
    ending = asyncio.ensure_future(_end(link))
    _ending.add(ending)
    ending.add_done_callback(_ending.discard)


async def _end(link: Link) -> None:
    assert link.keeper is not None
    await link.keeper.aclose()
