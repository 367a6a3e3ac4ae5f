"""Leases: keys that expire unless their holder says again and again that it lives."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import msgspec

from ...errors import SessionIOError
from ...lease import Lease
from ...record import dec_hook, enc_hook
from ..finishing import to_its_end
from ..patience import Patience
from ..server_leases import Held, in_line, until_given
from ..turnstile import Turnstile
from .layout import Place
from .link import Link
from .scripts import LEASE, RELEASE, Script
from .server import Server

__all__ = ["Grip"]

_log = logging.getLogger(__name__)
_TOKEN_BYTES: Final = 16
_FIRST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.1
"""Seconds between two attempts to take what another holds."""


class Grip:
    """A lease to be held by one caller.

    Args:
        server: The server.
        link: The running loop's link; it is used even if the store is closed meanwhile.
        place: Where the session is kept.
        lease: Who wants to hold it.
        expiry: Seconds that the lease lasts if nothing more is heard of its holder.

    Attributes:
        lease: As the arguments.
    """

    def __init__(
        self, server: Server, link: Link, place: Place, lease: Lease, expiry: float
    ) -> None:
        self._server = server
        self._link = link
        self._key = place.lease
        self.lease = lease
        self._session_id = lease.session_id
        self._expiry = expiry
        # The token makes it this very lease: the same owner may come again.
        token = secrets.token_hex(_TOKEN_BYTES // 2).encode()
        self._value = token + msgspec.json.encode(lease, enc_hook=enc_hook)
        self._is_held = False
        self._is_over = asyncio.Event()
        self._renewal: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def held(self, line: Turnstile, patience: Patience) -> AsyncGenerator[None]:
        """Hold the lease.

        Args:
            line: Where this process waits for it: only the first asks the server.
            patience: How long to wait while another holds it.

        Raises:
            SessionLockedError: Another holds it.
            SessionIOError: The server could not be asked.
        """
        async with in_line(line, self._session_id, patience, self._holder_of):
            try:
                await until_given(self._take, patience, first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)
                yield
            finally:
                await to_its_end(self._let_go())

    async def _holder_of(self, session_id: str) -> Lease | None:
        return _lease_of(await self._server.ask("GET", self._key, session_id=session_id))

    async def _take(self) -> Held | None:
        word, *details = await self._lease()
        if word == b"held":
            return Held(_lease_of(details[0]))
        self._is_held = True
        self._renewal = asyncio.create_task(self._renew())
        return None

    async def _let_go(self) -> None:
        self._is_over.set()
        if self._renewal is not None:
            await asyncio.wait([self._renewal])  # a renewal after the release would undo it
        if self._is_held:
            self._is_held = False
            try:
                await self._run(RELEASE, self._value)
            except SessionIOError as error:
                _log.warning(
                    "the lease of session %r was not given back and expires in %g s: %s",
                    self._session_id,
                    self._expiry,
                    error,
                )
        if self._link.is_closing:  # what was asked after the store was closed opened it again
            await self._link.channel.aclose()

    async def _renew(self) -> None:
        pause = self._expiry / 3
        while await self._goes_on(pause):
            try:
                word, *details = await self._lease()
            except SessionIOError as error:
                _log.warning("the lease of session %r was not renewed: %s", self._session_id, error)
                pause = self._expiry / 10
                continue
            pause = self._expiry / 3
            if word == b"held":
                self._is_held = False
                _log.warning(
                    "the lease of session %r expired, and %s holds it now",
                    self._session_id,
                    _lease_of(details[0]),
                )
                return
            if word == b"taken":
                _log.warning(
                    "the lease of session %r had expired, and was taken again", self._session_id
                )

    async def _goes_on(self, pause: float) -> bool:
        try:
            async with asyncio.timeout(pause):
                await self._is_over.wait()
        except TimeoutError:
            return True
        return False

    async def _lease(self) -> list[bytes]:
        lasts = max(1, round(self._expiry * 1000))
        return cast("list[bytes]", await self._run(LEASE, self._value, lasts))

    async def _run(self, script: Script, *args: Any) -> Any:
        return await self._server.run_on(
            self._link, script, [self._key], args, session_id=self._session_id
        )


def _lease_of(value: bytes | None) -> Lease | None:
    if value is None:
        return None
    try:
        return msgspec.json.decode(value[_TOKEN_BYTES:], type=Lease, dec_hook=dec_hook)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None  # whoever asks is told that it is held, if not by whom
