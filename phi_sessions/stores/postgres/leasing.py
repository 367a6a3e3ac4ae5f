"""Leases: who waits for one, and who is told that another holds it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from ...errors import SessionError, SessionIOError, SessionLockedError
from ...lease import Lease
from ..finishing import to_its_end
from ..turnstile import Turnstile
from .driver import ERRORS, translate
from .lease_connection import Grip
from .server import Server

__all__ = ["Leasing"]

_SHORTEST: Final = 0.005
_LONGEST: Final = 0.1
"""Seconds between two attempts at a lease that another process holds; the pause grows."""


class Leasing:
    """Gives the leases of one store."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._turnstile = Turnstile()
        self._given: dict[str, Lease] = {}

    @asynccontextmanager
    async def hold(self, lease: Lease, patience: float) -> AsyncGenerator[None]:
        """Hold the lease.

        Raises:
            SessionLockedError: Another holds it.
            SessionIOError: It cannot be taken; or, at the end, it was lost meanwhile.
        """
        session_id, begun = lease.session_id, time.monotonic()
        try:
            turn = await self._turnstile.enter(session_id, patience)
        except TimeoutError as error:
            holder = self._given.get(session_id)
            raise _locked(session_id, begun, holder) from error
        grip = Grip(session_id)
        try:
            await self._take(grip, lease, begun, patience)
            self._given[session_id] = lease
            yield
        finally:
            self._given.pop(session_id, None)
            try:
                was_held = not grip.is_firm or await to_its_end(grip.let_go())
            finally:
                self._turnstile.leave(session_id, turn)
        if not was_held:
            raise SessionIOError(
                f"{self._server.address}: the lease of session {session_id!r} was lost, as its"
                " connection broke; another may have held it since",
                session_id=session_id,
                filename=self._server.address,
            )

    async def _take(self, grip: Grip, lease: Lease, begun: float, patience: float) -> None:
        pause = _SHORTEST
        while not grip.is_firm:
            holder = await to_its_end(self._try(grip, lease, begun + patience))
            if grip.is_firm:
                return
            left = begun + patience - time.monotonic()
            if left <= 0:
                raise _locked(lease.session_id, begun, holder)
            await asyncio.sleep(min(random.uniform(_SHORTEST, pause), left))  # noqa: S311 - no secret
            pause = min(pause * 1.5, _LONGEST)

    async def _try(self, grip: Grip, lease: Lease, deadline: float) -> Lease | None:
        """Take the lease, or, when time is up, return who holds it."""
        try:
            leases = (await self._server.client()).leases
            await leases.take(grip, lease)
            if grip.is_firm or time.monotonic() < deadline:
                return None
            return await leases.holder_of(lease.session_id)
        except SessionError:
            raise
        except ERRORS as error:
            raise translate(error, self._server.address, lease.session_id) from error


def _locked(session_id: str, begun: float, holder: Lease | None) -> SessionLockedError:
    return SessionLockedError(
        f"session {session_id!r} is leased by {holder.owner if holder else 'another'}",
        session_id=session_id,
        waited=time.monotonic() - begun,
        holder=holder,
    )
