"""First come, first served: a queue for each key, across a process's tasks, loops and threads."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Final, Generic, TypeVar

from .forking import renew_in_child
from .patience import Patience

__all__ = ["Passage", "Turn", "Turnstile"]

P = TypeVar("P", bound=Patience)

_GLANCE: Final = 0.1
"""Seconds after which a waiter looks whether those before it are still there."""


class Turn:
    """One caller's place in one queue."""

    __slots__ = ("_called", "_loop")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._called: asyncio.Future[None] | None = None

    @property
    def is_stranded(self) -> bool:
        """Whether the loop that would take this turn is gone."""
        return self._loop.is_closed()

    def wait(self) -> asyncio.Future[None]:
        """Return what is done when it is this caller's turn."""
        self._called = self._loop.create_future()
        return self._called

    def call(self) -> bool:
        """Say that it is this caller's turn; False when nobody is there to hear it."""
        try:
            self._loop.call_soon_threadsafe(self._answer)
        except RuntimeError:  # the loop was closed
            return False
        return True

    def _answer(self) -> None:
        if self._called is not None and not self._called.done():
            self._called.set_result(None)


class Turnstile:
    """Lets one caller at a time through for each key, in the order in which they came.

    It holds no asyncio primitive of its own: a waiter's future belongs to the waiter's loop, so
    that one turnstile serves loops that come and go, and several at once.
    """

    def __init__(self) -> None:
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """Forget all waiters."""
        self._mutex = threading.Lock()
        self._queues: dict[str, deque[Turn]] = {}

    def through(self, key: str, patience: P) -> Passage[P]:
        """Wait for the caller's turn and have it: `async with turnstile.through(...)`.

        Raises:
            SessionLockedError: `patience` was over before.
        """
        return Passage(self, key, patience)

    async def enter(self, key: str, patience: Patience) -> Turn:
        """Return when it is the caller's turn. Whoever entered leaves.

        The place in the queue is that of the call: nothing is awaited before it is taken.

        Raises:
            SessionLockedError: `patience` was over before.
        """
        turn = Turn()
        with self._mutex:
            queue = self._queues.setdefault(key, deque())
            queue.append(turn)
            if self._first(queue) is turn:
                return turn
            called = turn.wait()
        try:
            async with asyncio.timeout(patience.left):
                while not called.done():
                    await asyncio.wait([called], timeout=_GLANCE)
                    self._look(key)
        except TimeoutError as error:
            self.leave(key, turn)
            raise patience.locked() from error
        except BaseException:  # a coroutine that is closed while it waits gives up its place, too
            self.leave(key, turn)
            raise
        return turn

    def leave(self, key: str, turn: Turn) -> None:
        """Give up `turn`, used or not, and call the next."""
        with self._mutex:
            queue = self._queues.get(key)
            if queue is None or turn not in queue:
                return
            was_first = queue[0] is turn
            queue.remove(turn)
            if was_first:
                self._call_first(queue)
            if not queue:
                del self._queues[key]

    def _look(self, key: str) -> None:
        with self._mutex:
            queue = self._queues.get(key)
            if queue and queue[0].is_stranded:
                self._call_first(queue)

    def _first(self, queue: deque[Turn]) -> Turn:
        if queue[0].is_stranded:
            self._call_first(queue)
        return queue[0]

    @staticmethod
    def _call_first(queue: deque[Turn]) -> None:
        while queue and (queue[0].is_stranded or not queue[0].call()):
            queue.popleft()


class Passage(Generic[P]):
    """One caller's way through a turnstile: `async with` gives its patience."""

    __slots__ = ("_key", "_patience", "_turn", "_turnstile")

    _turn: Turn

    def __init__(self, turnstile: Turnstile, key: str, patience: P) -> None:
        self._turnstile = turnstile
        self._key = key
        self._patience = patience

    async def __aenter__(self) -> P:
        self._turn = await self._turnstile.enter(self._key, self._patience)
        return self._patience

    async def __aexit__(self, *_: object) -> None:
        self._turnstile.leave(self._key, self._turn)
