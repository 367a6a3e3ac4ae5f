"""An id that can never name a session is refused by every call, and nothing is touched."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from contract_samples import a_session, state

from phi_sessions import (
    Expect,
    FileSystemSessionStore,
    InvalidSessionIdError,
    SessionEncodeError,
    SessionStore,
)

INVALID: list[Any] = ["", "\ud800", "ok\udfff", "x" * 201, "/" * 100, "é" * 101, None, 7, b"bytes"]
CALLS: list[Callable[[SessionStore, Any], Awaitable[object]]] = [
    lambda store, session_id: store.load(session_id),
    lambda store, session_id: store.find(session_id),
    lambda store, session_id: store.exists(session_id),
    lambda store, session_id: store.delete(session_id),
    lambda store, session_id: store.save(a_session(session_id, loops=0)),
    lambda store, session_id: store.save(a_session(session_id, loops=0), expect=Expect.ANYTHING),
]


@pytest.mark.parametrize("session_id", INVALID, ids=ascii)
async def test_an_invalid_id_is_refused_and_touches_nothing(
    store: SessionStore, session_id: Any
) -> None:
    await store.save(a_session())
    before = await state(store)
    for call in CALLS:
        with pytest.raises(InvalidSessionIdError) as caught:
            await call(store, session_id)
        assert isinstance(caught.value, ValueError)
    assert await state(store) == before


@pytest.mark.parametrize("session_id", INVALID, ids=ascii)
async def test_an_invalid_id_does_not_even_make_the_directory(
    file_store: FileSystemSessionStore, session_id: Any
) -> None:
    for call in CALLS:
        with pytest.raises(InvalidSessionIdError):
            await call(file_store, session_id)
    assert not file_store.dir.exists()


async def test_a_refused_first_save_does_not_even_make_the_directory(
    file_store: FileSystemSessionStore,
) -> None:
    with pytest.raises(SessionEncodeError):
        await file_store.save(a_session(metadata={"x": float("inf")}))
    assert not file_store.dir.exists()


async def test_looking_does_not_make_the_directory(file_store: FileSystemSessionStore) -> None:
    assert await file_store.list_ids() == []
    assert await file_store.find("s-1") is None
    assert await file_store.list_for_agent("agent-1") == []
    assert [info async for info in file_store.infos()] == []
    assert not file_store.dir.exists()
