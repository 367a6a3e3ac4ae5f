"""Leases: who waits for one, and who is told that another holds it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final, TypeVar

from ...errors import SessionError, SessionIOError
from ...lease import Lease
from ..finishing import to_its_end
from ..patience import Patience
from ..server_leases import Held, in_line, until_given
from ..turnstile import Turnstile
from .driver import ERRORS, translate
from .lease_connection import Grip, LeaseConnection
from .server import Server

__all__ = ["Leasing"]

T = TypeVar("T")

_FIRST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.1
"""Seconds between two attempts at a lease that another process holds; the pause grows."""


class Leasing:
    """Gives the leases of one store."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._line = Turnstile()
        self._given: dict[str, Lease] = {}

    @asynccontextmanager
    async def hold(self, lease: Lease, patience: Patience) -> AsyncGenerator[None]:
        """Hold the lease.

        Raises:
            SessionLockedError: Another holds it.
            SessionIOError: It cannot be taken; or, at the end, it was lost meanwhile.
        """
        session_id = lease.session_id
        async with in_line(self._line, session_id, patience, self._holder_of):
            grip = Grip(session_id)
            try:
                take = partial(self._take, grip, lease)
                await until_given(take, patience, first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)
                self._given[session_id] = lease
                yield
            finally:
                self._given.pop(session_id, None)
                was_held = not grip.is_firm or await to_its_end(grip.let_go())
        if not was_held:
            raise SessionIOError(
                f"{self._server.address}: the lease of session {session_id!r} was lost, as its"
                " connection broke; another may have held it since",
                session_id=session_id,
                filename=self._server.address,
            )

    async def _holder_of(self, session_id: str) -> Lease | None:
        here = self._given.get(session_id)
        if here is not None:
            return here
        # Whoever is first in the line waits for another process, and so do those behind it.
        with suppress(SessionIOError):  # they are told that it is held, if not by whom
            return await self._ask(session_id, lambda leases: leases.holder_of(session_id))
        return None

    async def _take(self, grip: Grip, lease: Lease) -> Held | None:
        async def take(leases: LeaseConnection) -> Held | None:
            await leases.take(grip, lease)
            return None if grip.is_firm else Held(await leases.holder_of(lease.session_id))

        return await self._ask(lease.session_id, take)

    async def _ask(self, session_id: str, question: Callable[[LeaseConnection], Awaitable[T]]) -> T:
        try:
            return await question((await self._server.client()).leases)
        except SessionError:
            raise
        except ERRORS as error:
            raise translate(error, self._server.address, session_id) from error
