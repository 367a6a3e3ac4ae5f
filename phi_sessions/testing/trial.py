"""One run of one check: its stores, its ids, and what is cleaned up afterwards."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from inspect import isawaitable
from itertools import count
from typing import Any, NoReturn, TypeVar, cast

from ..errors import InvalidSessionIdError, SessionError, SessionNotFoundError
from ..info import SessionInfo
from ..lease import SupportsLease
from ..model import Session
from ..store import SessionStore
from . import samples
from .claims import BrokenPromiseError, SkipCheck, broken
from .scale import Scale

__all__ = ["OpenStore", "Trial", "opened"]

T = TypeVar("T")

OpenStore = Callable[[], "SessionStore | Awaitable[SessionStore]"]
"""Returns a new store object; plain or async."""


async def opened(open_store: OpenStore) -> SessionStore:
    """Return what a plain or async opener opens."""
    store = open_store()
    return await store if isawaitable(store) else store


class Trial:
    """What a check works with.

    Every id that a check gets here is its own, so that checks neither disturb each other nor what
    the place holds besides, and is deleted afterwards.

    Attributes:
        store: An open store.
        open_store: Opens another one on the same place.
        scale: How much to do.
        chance: Where random choices come from.
        agent: An agent that nobody else uses.
    """

    def __init__(
        self,
        open_store: OpenStore,
        reopen: OpenStore | None,
        store: SessionStore,
        stack: AsyncExitStack,
        scale: Scale,
    ) -> None:
        self.open_store = open_store
        self.store = store
        self.scale = scale
        self.chance = random.Random()  # noqa: S311 - no secrets
        self._reopen = reopen or open_store
        self._stack = stack
        self._used: list[str] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self.agent = self.new_agent()

    @property
    def leases(self) -> SupportsLease:
        """The store, for checks that are made only if it has leases."""
        return cast("SupportsLease", self.store)

    def new_agent(self, name: str = "agent") -> str:
        """Return the id of an agent that nobody else uses."""
        return f"kit-{name}-{secrets.token_hex(6)}"

    def new_id(self, name: str = "session") -> str:
        """Return the id of a session that nobody else uses."""
        return self.use_id(f"kit-{name}-{secrets.token_hex(6)}")

    def new_ids(self, count: int, name: str = "session") -> list[str]:
        """Return so many of them, in an order that says nothing."""
        return [self.new_id(name) for _ in range(count)]

    def use_id(self, session_id: str) -> str:
        """Return `session_id`, which is deleted after the check."""
        self._used.append(session_id)
        return session_id

    def a_session(
        self,
        session_id: str | None = None,
        agent_id: str | None = None,
        *,
        loops: int = 1,
        **fields: Any,
    ) -> Session:
        """Return a session built by hand, by default with an id of its own."""
        name = self.new_id() if session_id is None else session_id
        agent = self.agent if agent_id is None else agent_id
        return samples.a_session(name, agent, loops=loops, **fields)

    async def open_another(self) -> SessionStore:
        """Return another store object on the same place, closed after the check."""
        return await self._stack.enter_async_context(await opened(self.open_store))

    async def reopen(self) -> SessionStore:
        """Close the store and return one that was opened afterwards, closed after the check."""
        await self.store.aclose()
        return await self._stack.enter_async_context(await opened(self._reopen))

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Return a task of the check, which does not outlive it."""
        task = asyncio.create_task(work)
        self._tasks.append(task)
        return task

    async def end_tasks(self) -> None:
        """Cancel the check's tasks that have not ended, which is so only when it failed."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self.scale.promptly)
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.exception()  # the check has failed for a better reason

    async def clock_moves(self) -> None:
        """Return when an append will have a later time than all that was saved before.

        A store may take the time of an append from a clock that ticks slowly, as files do.
        """
        session = self.a_session(agent_id=self.new_agent("clock"))
        await self.store.save(session)
        begun = (await self.card(session.agent_id)).saved_at
        async with self.promptly("a tick of the store's clock"):
            for n in count():
                await self.store.append(session, samples.a_loop(session.session_id, n))
                now = (await self.card(session.agent_id)).saved_at
                if now is None or begun is None or now > begun:
                    break
        await self.store.delete(session.session_id)

    async def card(self, agent_id: str | None = None) -> SessionInfo:
        """Return the card of the only session of an agent, by default the check's own.

        Raises:
            BrokenPromiseError: There are none, or several.
        """
        agent = self.agent if agent_id is None else agent_id
        cards = [info async for info in self.store.infos(agent_id=agent)]
        if len(cards) != 1:
            broken(f"an agent that has one session has {len(cards)} cards")
        return cards[0]

    def skip(self, reason: str) -> NoReturn:
        """Leave the check.

        Raises:
            SkipCheck: Always.
        """
        raise SkipCheck(reason)

    @asynccontextmanager
    async def promptly(self, what: str, seconds: float | None = None) -> AsyncGenerator[None]:
        """Say that what is done inside has to end soon."""
        limit = self.scale.promptly if seconds is None else seconds
        deadline = asyncio.timeout(limit)
        try:
            async with deadline:
                yield
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise BrokenPromiseError(f"{what} did not end within {limit:g} s") from error

    async def listed(self, ids: Collection[str] | None = None) -> list[str]:
        """Return what `list_ids` tells of the check's own sessions."""
        mine = set(self._used if ids is None else ids)
        return [session_id for session_id in await self.store.list_ids() if session_id in mine]

    async def states(self) -> dict[str, Any]:
        """Return all that the store holds of the check's own sessions, with the revisions."""
        found: dict[str, Any] = {}
        for session_id in self._used:
            session = await self.store.find(session_id)
            if session is not None:
                found[session_id] = [session.revision, samples.plain(session)]
        return found

    async def clean_up(self) -> None:
        """Delete what the check made."""
        if not self._used:
            return
        async with await opened(self.open_store) as store:
            for session_id in self._used:
                try:
                    await store.delete(session_id)
                except (SessionNotFoundError, InvalidSessionIdError):
                    continue
                except SessionError as error:
                    error.add_note(f"while the kit cleaned up after the check: {session_id!r}")
                    raise
