"""The server as the store sees it: scripts that are run, and answers that are not lost."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple, cast

from ...dependency import requires
from ...errors import SaveOutcomeUnknownError, SessionIOError
from .channels import AnswerLostError
from .failures import DRIVER_ERRORS, translate
from .link import Link
from .links import Links
from .scripts import Script

with requires("redis"):
    from redis.exceptions import ConnectionError as LostConnectionError

__all__ = ["Changed", "Server"]

_LONGEST_PAUSE: Final = 0.5


class Changed(NamedTuple):
    """What a script that changes something came to.

    Attributes:
        word: done, refused or damaged.
        details: What it says besides.
        was_lost: Whether an answer was lost before this one came.
        doubt: Why it may not survive a power cut, where that was to be made sure.
    """

    word: bytes
    details: list[Any]
    was_lost: bool
    doubt: SaveOutcomeUnknownError | None


class Server:
    """A server or a cluster.

    Args:
        links: The ways to it.
        timeout: Seconds that one request may take, a connection included.
        durable: Whether a change is made only when the server's disk has it.
    """

    def __init__(self, links: Links, *, timeout: float, durable: bool) -> None:
        self._links = links
        self._timeout = timeout
        self._durable = durable

    async def ask(self, *command: Any, session_id: str | None = None) -> Any:
        """Return the answer to a command that changes nothing.

        Raises:
            SessionIOError: It could not be had.
            SessionTaskError: As `Links.get`.
        """
        link = await self._links.get()
        with link.in_use():
            return await self._patiently(
                link, lambda: link.command(*command, seconds=self._timeout), session_id
            )

    async def read(
        self,
        script: Script,
        keys: Sequence[Sequence[bytes]],
        *args: Any,
        session_id: str | None = None,
    ) -> list[Any]:
        """Return the answers of a script that changes nothing, one after the other.

        Args:
            script: What to run; it answers with a list.
            keys: Its keys, apart for each slot of a cluster; a single server is asked once.
            args: What else it is told.
            session_id: Whom an error is about.

        Raises:
            SessionIOError: They could not be had.
            SessionTaskError: As `Links.get`.
        """
        link = await self._links.get()

        async def run(some: Sequence[bytes]) -> list[Any]:
            answers = await self.run_on(link, script, some, args, session_id=session_id)
            return cast("list[Any]", answers)

        with link.in_use():
            if link.spans_slots or len(keys) == 1:
                try:
                    return await run([key for some in keys for key in some])
                except SessionIOError as error:
                    if "CROSSSLOT" not in str(error) and "same slot" not in str(error):
                        raise
                    link.spans_slots = False  # a cluster behind a client for one server
            parts = await asyncio.gather(*map(run, keys), return_exceptions=True)
            for part in parts:
                if isinstance(part, BaseException):
                    raise part
            return [answer for part in cast("list[list[Any]]", parts) for answer in part]

    async def run_on(
        self,
        link: Link,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[Any],
        *,
        session_id: str | None,
    ) -> Any:
        """Return the answer of a script that may be run twice, even after the store was closed.

        Raises:
            SessionIOError: It could not be had.
        """

        async def once() -> Any:
            answer, _ = await link.run(script, keys, args, seconds=self._timeout)
            return answer

        return await self._patiently(link, once, session_id)

    async def change(
        self,
        script: Script,
        keys: Sequence[bytes],
        args: tuple[Sequence[Any], Sequence[Any]],
        session_id: str,
    ) -> Changed:
        """Return what a script came to that changes something once, however often it is sent.

        A lost answer is asked for again, for as long as one request may take. The caller awaits
        it to its end.

        Args:
            script: What to run.
            keys: Its keys, of one slot.
            args: What it is told before and after it is told whether it was sent before.
            session_id: Whom it changes.

        Raises:
            SessionIOError: Nothing was changed.
            SaveOutcomeUnknownError: The answer was lost, and could not be had again.
            SessionTaskError: As `Links.get`.
        """
        link = await self._links.get()
        with link.in_use():
            if self._durable:
                await self._patiently(link, lambda: link.require_sync(self._timeout), session_id)
            return await self._change(link, script, keys, args, session_id)

    async def _change(
        self,
        link: Link,
        script: Script,
        keys: Sequence[bytes],
        args: tuple[Sequence[Any], Sequence[Any]],
        session_id: str,
    ) -> Changed:
        begin, end = args
        lost: BaseException | None = None
        deadline, seconds, pause = 0.0, self._timeout, 0.01
        while True:
            told = (*begin, 0 if lost is None else 1, *end)
            try:
                answer, synced = await link.run(
                    script, keys, told, seconds=seconds, sync=self._durable
                )
                doubt = self._doubt(link, synced, session_id) if answer[0] == b"done" else None
                return Changed(answer[0], answer[1:], lost is not None, doubt)
            except AnswerLostError as error:
                deadline = deadline or asyncio.get_running_loop().time() + self._timeout
                lost = error.__cause__
            except DRIVER_ERRORS as error:
                if lost is None:
                    raise translate(error, link.channel.address, session_id) from error
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            seconds = deadline - asyncio.get_running_loop().time()
            if seconds <= 0:
                reason = f"its answer was lost, and could not be had again: {lost}"
                raise _unknown(link, reason, session_id) from lost

    def _doubt(self, link: Link, synced: Any, session_id: str) -> SaveOutcomeUnknownError | None:
        if not self._durable or (isinstance(synced, list) and synced[0] >= 1):
            return None
        reason = f"it did not say in time that its disk has the change: {synced}"
        return _unknown(link, reason, session_id)

    async def _patiently(
        self, link: Link, request: Callable[[], Awaitable[Any]], session_id: str | None
    ) -> Any:
        """Make a request that can be made twice, and raise what the caller should hear."""
        try:
            try:
                return await request()
            except AnswerLostError as lost:
                # What a client does by itself is enough, but a cluster's stumbles over itself.
                if link.channel.tries_again and not link.channel.is_cluster:
                    raise
                if not isinstance(lost.__cause__, LostConnectionError):
                    raise
                # The connection had been closed, as when the server was restarted meanwhile.
                return await request()
        except AnswerLostError as lost:
            cause = cast("Exception", lost.__cause__)
            raise translate(cause, link.channel.address, session_id) from cause
        except DRIVER_ERRORS as error:
            raise translate(error, link.channel.address, session_id) from error


def _unknown(link: Link, reason: str, session_id: str) -> SaveOutcomeUnknownError:
    return SaveOutcomeUnknownError(
        f"{link.channel.address}: {reason}",
        session_id=session_id,
        errno=errno.ETIMEDOUT,
        filename=link.channel.address,
    )
