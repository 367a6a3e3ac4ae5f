"""Requests that are sent until it is known what became of them.

A client that was made here sends nothing again by itself: that is decided here. One that was given
may, which is why what it calls a refusal is looked into.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from ...errors import SaveOutcomeUnknownError, SessionIOError
from .client import Client, Got, Listed
from .faults import DRIVER_ERRORS, Fault, fault_of, translate, was_sent_once
from .layout import CLOCK, PROBE
from .manifest import Fate

if TYPE_CHECKING:
    from obstore import PutMode, UpdateVersion

__all__ = ["Bucket", "Refused"]

T = TypeVar("T")

_LISTINGS: Final = 3
_PROBE_TEXT: Final = b"Whether puts keep their conditions is tried out here.\n"
_NOBODYS: Final = "0123456789abcdef0123456789abcdef"
_SHORTEST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5
_WORTH_ANOTHER_TRY: Final = frozenset((Fault.BUSY, Fault.FAILED, Fault.LOST))
_IN_DOUBT: Final = frozenset((Fault.FAILED, Fault.LOST))


class Refused(Exception):
    """A put was not made, as something else stands there than was expected.

    Attributes:
        found: What stands there, None for nothing.
    """

    def __init__(self, found: Got | None) -> None:
        super().__init__("another was faster")
        self.found = found


class Bucket:
    """A client, and what to do when it fails.

    Args:
        client: Makes the requests.
        place: Says where this is, in error messages.
        timeout: Seconds that a request may take, and as many again to find out whether a put was
            made whose answer was lost.
    """

    def __init__(self, client: Client, place: str, timeout: float) -> None:
        self._client = client
        self._place = place
        self._timeout = timeout
        self._keeps_conditions = False

    @property
    def sends_once(self) -> bool:
        """Whether the client sends no request a second time by itself."""
        return self._client.sends_once

    def path(self, key: str) -> str:
        """Return a printable name of the object at `key`."""
        return f"{self._place}/{key}"

    async def get(self, key: str, *, first: int | None = None) -> Got | None:
        """Return what stands at `key`, or its `first` bytes; None if nothing does.

        Raises:
            SessionIOError: It cannot be read.
        """
        try:
            return await self._until_it_works(lambda left: self._client.get(key, first, left))
        except DRIVER_ERRORS as error:
            if fault_of(error) is Fault.ABSENT:
                return None
            raise self._failed(error) from error

    async def list_all(self, folder: str) -> list[Listed]:
        """Return all objects in a folder, at any depth.

        Raises:
            SessionIOError: They cannot be listed.
        """
        tries = 0
        while True:
            tries += 1
            try:
                found: list[Listed] = []
                async for page in self._client.list_all(folder, self._timeout):
                    found += page
                return found
            except DRIVER_ERRORS as error:
                if tries == _LISTINGS or fault_of(error) not in _WORTH_ANOTHER_TRY:
                    raise self._failed(error) from error
            await asyncio.sleep(_LONGEST_PAUSE * tries / _LISTINGS)

    async def now(self) -> int:
        """Return the time by the server's clock, in seconds.

        Raises:
            SessionIOError: It cannot be found out.
        """
        await self.put(CLOCK, os.urandom(8))
        found = await self.get(CLOCK)
        assert found is not None
        return found.modified

    async def put(self, key: str, data: bytes) -> None:
        """Put an object for which putting it twice is putting it once.

        Raises:
            SessionIOError: It cannot be put.
        """
        try:
            await self._until_it_works(lambda left: self._client.put(key, data, "overwrite", left))
        except DRIVER_ERRORS as error:
            raise self._failed(error) from error

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove objects, there or not.

        Raises:
            SessionIOError: They cannot be removed.
        """
        if keys:
            try:
                await self._until_it_works(lambda left: self._client.delete(keys, left))
            except DRIVER_ERRORS as error:
                raise self._failed(error) from error

    async def delete_once(self, key: str) -> bool:
        """Remove an object by one request, which is not sent again; False if it was turned down.

        Raises:
            SessionIOError: It may have been removed, or may be yet.
        """
        try:
            await self._client.delete([key], self._timeout)
        except DRIVER_ERRORS as error:
            if fault_of(error) in _IN_DOUBT:
                raise self._failed(error) from error
            return False
        return True

    async def _until_it_works(self, request: Callable[[float], Awaitable[T]]) -> T:
        """Send a request that may be sent any number of times, until the time is up."""
        deadline = time.monotonic() + self._timeout
        pause = _SHORTEST_PAUSE
        while True:
            try:
                return await request(deadline - time.monotonic())
            except DRIVER_ERRORS as error:
                fault = fault_of(error)
                if fault not in _WORTH_ANOTHER_TRY or time.monotonic() + pause >= deadline:
                    raise
            await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - not a secret
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def put_if(
        self,
        key: str,
        data: bytes,
        version: UpdateVersion | None,
        fate: Callable[[Got | None], Fate],
        *,
        not_after: float = math.inf,
    ) -> UpdateVersion | None:
        """Put an object where `version` stands, or, with None, where nothing does.

        When the answer is lost the put is sent again: it can have no other effect than the first
        would have had. When that is refused, what stands at the key tells why.

        Args:
            key: Where.
            data: The object's bytes; no two puts may be of the same.
            version: What stands there now.
            fate: Tells by what stands at the key what became of this put.
            not_after: When it must not be sent any more, by `time.time`: a process may be stopped
                at any place, for any time.

        Returns:
            The object's version; None if others have replaced it since.

        Raises:
            Refused: It was not made, as something else stands there.
            SaveOutcomeUnknownError: Whether it was made cannot be found out.
            SessionIOError: It was not made.
        """
        mode: PutMode = "create" if version is None else version
        doubt: Exception | None = None
        may_come = False
        deadline = time.monotonic() + self._timeout
        pause = _SHORTEST_PAUSE
        while True:
            if time.time() > not_after:
                if doubt is not None:
                    raise self._unknown(doubt) from doubt
                raise self._failed(TimeoutError("the process was stopped for too long"))
            try:
                left = max(deadline - time.monotonic(), pause)
                return await self._client.put(key, data, mode, left)
            except DRIVER_ERRORS as error:
                failure, fault = error, fault_of(error)
            if fault in _IN_DOUBT:
                if doubt is None:
                    deadline = time.monotonic() + self._timeout
                doubt, may_come = failure, may_come or fault is Fault.LOST
            elif doubt is None and not was_sent_once(failure):
                doubt = failure
            is_last = time.monotonic() >= deadline or (doubt is None and fault is not Fault.BUSY)
            if fault is Fault.REFUSED or (is_last and doubt is not None):
                found = await self._look_after(key, doubt)
                outcome = fate(found)
                if outcome is Fate.STANDS:
                    return found.version if found is not None else None
                if outcome is Fate.REPLACED:
                    return None
                stands = found.version if found is not None else None
                if doubt is None or (outcome is Fate.NOT_MADE and stands != version):
                    raise Refused(found)
                if outcome is Fate.UNKNOWN or (is_last and may_come):
                    raise self._unknown(doubt) from doubt
            if is_last:
                raise self._failed(failure) from failure
            await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - not a secret
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _look_after(self, key: str, doubt: Exception | None) -> Got | None:
        try:
            return await self.get(key)
        except SessionIOError as error:
            if doubt is None:
                raise
            raise self._unknown(doubt) from error

    async def require_conditions(self) -> None:
        """Make sure that the server keeps the conditions of puts: without them saves are lost.

        Raises:
            SessionIOError: It does not, or cannot be asked.
        """
        if self._keeps_conditions:
            return
        nobodys: UpdateVersion = {"e_tag": f'"{_NOBODYS}"', "version": "1"}
        # The first put of all makes the object.
        if await self._probe("create") and await self._probe("create"):
            raise self._ignored("If-None-Match")
        if await self._probe(nobodys):
            raise self._ignored("If-Match")
        self._keeps_conditions = True

    async def _probe(self, mode: PutMode) -> bool:
        """Put to where something else stands; return whether that was made."""
        try:
            await self._until_it_works(
                lambda left: self._client.put(PROBE, _PROBE_TEXT, mode, left)
            )
        except DRIVER_ERRORS as error:
            if fault_of(error) is not Fault.REFUSED:
                raise self._failed(error) from error
            return False
        return True

    def _ignored(self, condition: str) -> SessionIOError:
        return SessionIOError(
            f"{self._place}: the server ignores the condition {condition} of a put, so that one"
            " writer would undo what another wrote",
            errno=errno.EOPNOTSUPP,
            filename=self._place,
        )

    def _failed(self, error: Exception) -> SessionIOError:
        return translate(error, self._place)

    def _unknown(self, error: Exception) -> SaveOutcomeUnknownError:
        known = translate(error, self._place)
        return SaveOutcomeUnknownError(
            f"it may have been made, or may be made yet: {known}",
            errno=known.errno,
            filename=known.filename,
        )
