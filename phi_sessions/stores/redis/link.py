"""One event loop's way to the server: scripts with a time limit, and when it may be closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from ...dependency import requires
from ...errors import SessionTaskError
from .channels import Channel
from .scripts import Script

with requires("redis"):
    from redis.exceptions import NoScriptError, ResponseError

__all__ = ["Link"]


class Link:
    """A channel, for as long as its loop runs.

    Attributes:
        channel: What commands go through.
        loop: The loop that it belongs to.
        keeper: Closes the channel when it ends; None if the channel is somebody else's.
        spans_slots: Whether a script may have keys in several slots.
        is_closing: Whether it is closed, or will be as soon as it is not in use.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.loop = asyncio.get_running_loop()
        self.keeper: AsyncGenerator[Link] | None = None
        self.spans_slots = not channel.is_cluster
        self.is_closing = False
        self._can_sync = False
        self._users = 0
        self._unused = asyncio.Event()

    @contextmanager
    def in_use(self) -> Generator[None]:
        """Keep the channel open.

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
        """Close the channel when nobody uses it any more; nobody can begin to."""
        self.is_closing = True
        while self._users:
            self._unused.clear()
            await self._unused.wait()
        await self.channel.aclose()

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
        rest = (len(keys), *keys, *args)
        behind = [("WAITAOF", 1, 0, max(1, round(seconds * 900)))] if sync else []
        answers = await self.channel.send([("EVALSHA", script.digest, *rest), *behind], seconds)
        if isinstance(answers[0], NoScriptError):
            answers = await self.channel.send([("EVAL", script.text, *rest), *behind], seconds)
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0], answers[1] if sync else None

    async def command(self, *command: Any, seconds: float) -> Any:
        """Return the answer to one command.

        Raises:
            As `run`.
        """
        (answer,) = await self.channel.send([command], seconds)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def require_sync(self, seconds: float) -> None:
        """Make sure that the server can tell when its disk has a change.

        Raises:
            ResponseError: It cannot.
            As `run` besides.
        """
        if self._can_sync:
            return
        if self.channel.is_cluster:
            raise ResponseError("durable=True needs one server, not a cluster")
        try:
            await self.command("WAITAOF", 1, 0, 1, seconds=seconds)
        except ResponseError as error:
            raise ResponseError(
                "durable=True needs WAITAOF, which Redis has from 7.2 on and Valkey has, and"
                f" appendonly yes: {error}"
            ) from error
        self._can_sync = True
