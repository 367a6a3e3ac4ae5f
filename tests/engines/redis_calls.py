"""Every call of a store, and what all of them do when the server cannot, or will not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from redis_checks import a_record, a_session

from phi_sessions import SaveOutcomeUnknownError, SessionIOError, SessionStore
from phi_sessions.stores.redis import RedisSessionStore
from phi_sessions.stores.redis.failures import DRIVER_ERRORS


async def cards(store: SessionStore) -> object:
    return [info async for info in store.infos()]


async def leased(store: RedisSessionStore) -> object:
    async with store.lease("s-1"):
        return None


READS: dict[str, Callable[[RedisSessionStore], Awaitable[object]]] = {
    "load": lambda store: store.load("s-1"),
    "find": lambda store: store.find("s-1"),
    "exists": lambda store: store.exists("s-1"),
    "list_ids": lambda store: store.list_ids(),
    "list_for_agent": lambda store: store.list_for_agent("a"),
    "infos": cards,
}
WRITES: dict[str, Callable[[RedisSessionStore], Awaitable[object]]] = {
    "save": lambda store: store.save(a_session(n=2)),
    "append": lambda store: store.append("s-1", a_record("s-1", 9)),
    "update": lambda store: store.update("s-1", lambda session: None),
    "delete": lambda store: store.delete("s-1"),
}
CALLS = {**READS, **WRITES, "lease": leased}


async def every_call_fails(
    store: RedisSessionStore,
    number: int | None,
    calls: dict[str, Callable[[RedisSessionStore], Awaitable[object]]] = CALLS,
) -> None:
    for name, call in calls.items():
        with pytest.raises(SessionIOError) as caught:
            await call(store)
        error = caught.value
        assert error.errno == number, (name, error)
        assert not isinstance(error, SaveOutcomeUnknownError), (name, error)
        assert isinstance(error.__cause__, DRIVER_ERRORS)
        assert (error.session_id == "s-1") == (name not in {"list_ids", "list_for_agent", "infos"})
        assert "secret" not in f"{error} {error.filename} {error!r} {store!r}"
        assert str(error.filename).startswith(("redis://127.0.0.1:", "unix://"))
