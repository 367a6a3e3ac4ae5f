"""Leases that are locked files: waiting for one, holding it, giving it back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from ..errors import SessionLockedError
from ..lease import Lease
from .flock import Contended
from .grip import Grip, given_back
from .patience import Patience
from .workers import Workers

__all__ = ["FileLeases"]


class FileLeases:
    """The leases of one store.

    Args:
        workers: The store's threads.
        take: Takes a lease or raises `Contended`; it blocks.
        holder_of: Tells who holds the lease of a session, if that is known; it blocks.
    """

    def __init__(
        self,
        workers: Workers,
        take: Callable[[Grip, Lease], None],
        holder_of: Callable[[str], Lease | None],
    ) -> None:
        self._workers = workers
        self._grasp = take
        self._holder_of = holder_of

    @asynccontextmanager
    async def hold(self, lease: Lease, patience: Patience) -> AsyncGenerator[Lease]:
        """Hold `lease` for as long as the context lasts.

        Args:
            lease: What others are told of the holder.
            patience: How long to wait while another holds it.

        Raises:
            SessionLockedError: Another held it for too long.
            SessionIOError: The lease cannot be taken.
            SessionTaskError: The store is closed.
        """
        async with given_back(self._workers) as grip:
            await self._take(grip, lease, patience)
            yield lease

    async def _take(self, grip: Grip, lease: Lease, patience: Patience) -> None:
        while True:
            try:
                return await self._workers.run(self._grasp, grip, lease)
            except Contended as reason:
                try:
                    pause = patience.pause()
                except SessionLockedError:
                    holder = await self._workers.run(self._holder_of, lease.session_id)
                    raise patience.locked(holder) from reason
            await asyncio.sleep(pause)
