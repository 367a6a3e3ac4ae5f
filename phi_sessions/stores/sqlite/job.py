"""One change on its way from the caller to the disk, and the caller's way to hear of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Generic, TypeVar, cast

from .driver import sqlite3

__all__ = ["Job", "State", "wake"]

T = TypeVar("T")


class State(Enum):
    """How far a job has come."""

    WAITING = 1
    UNDER_WAY = 2
    OVER = 3
    DROPPED = 4


class Job(Generic[T]):
    """One change of one session.

    Args:
        session_id: The session.
        size: About how many bytes the change is.
        make: Makes it, in a transaction.
        on_visible: Is told what `make` returned as soon as others can see the change.
    """

    def __init__(
        self,
        session_id: str,
        size: int,
        make: Callable[[sqlite3.Connection], T],
        on_visible: Callable[[T], None],
    ) -> None:
        self.session_id = session_id
        self.size = size
        self.make = make
        self.on_visible = on_visible
        self.state = State.WAITING
        self.is_alone = False  # it gets a transaction of its own
        self.is_left = False  # its caller has gone, or goes when it is over
        self.is_visible = False
        self.value: T | None = None
        self.error: BaseException | None = None
        self.called: asyncio.Future[BaseException | None] | None = None

    def result(self) -> T:
        """Return what `make` returned, or raise what kept the change from being made."""
        if self.error is not None:
            raise self.error
        assert self.is_visible
        return cast("T", self.value)


def wake(jobs: Iterable[Job[Any]], answer: BaseException | None) -> None:
    """Give those who wait for `jobs` an answer, each on its own loop."""
    waiting: dict[asyncio.AbstractEventLoop, list[asyncio.Future[BaseException | None]]] = {}
    for job in jobs:
        if job.called is not None:
            waiting.setdefault(job.called.get_loop(), []).append(job.called)
    for loop, called in waiting.items():
        try:
            loop.call_soon_threadsafe(_answer, called, answer)
        except RuntimeError:  # the loop was closed, and nobody is there to hear it
            continue


def _answer(
    called: list[asyncio.Future[BaseException | None]], answer: BaseException | None
) -> None:
    for future in called:
        if not future.done():
            future.set_result(answer)
