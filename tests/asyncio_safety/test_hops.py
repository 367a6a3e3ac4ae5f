"""Which threads a call uses, and how often it goes there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from safety_checks import version

from phi_sessions import (
    Expect,
    FileSystemSessionStore,
    SessionConflictError,
    SessionCorruptError,
    SessionIOError,
)

Call = Callable[[FileSystemSessionStore], Coroutine[Any, Any, Any]]


class NoDefaultExecutor(ThreadPoolExecutor):
    """An executor that nothing should come to."""

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        raise AssertionError(f"the loop's default executor was used: {args}")


async def cards(store: FileSystemSessionStore) -> Any:
    return [info async for info in store.infos()]


async def agent_cards(store: FileSystemSessionStore) -> Any:
    return [info async for info in store.infos(agent_id="a")]


def count_hops(store: FileSystemSessionStore) -> list[str]:
    """Return a list that grows by a name with each hop."""
    submit, hops = store._workers.submit, []

    def counted(fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        hops.append(repr(fn))
        return submit(fn, *args, **kwargs)

    store._workers.submit = counted  # type: ignore[method-assign]
    return hops


@pytest.mark.parametrize(
    ("call", "hops"),
    [
        (lambda store: store.save(version(2)), 1),
        (lambda store: store.save(version(2, size=2000)), 1),
        (lambda store: store.save(version(2, "new"), expect=Expect.ABSENT), 1),
        (lambda store: store.load("s-1"), 1),
        (lambda store: store.find("nobody"), 1),
        (lambda store: store.exists("s-1"), 1),
        (lambda store: store.delete("s-1"), 1),
        (lambda store: store.list_ids(), 1),
        (cards, 2),
        (agent_cards, 3),
        (lambda store: store.list_for_agent("nobody"), 2),
        (lambda store: store.list_for_agent("a"), 2 + 20),
    ],
    ids=[
        *("save", "save_large", "save_new", "load", "find", "exists", "delete", "list_ids"),
        *("infos", "infos_of_agent", "list_for_nobody", "list_for_agent"),
    ],
)
async def test_a_call_takes_so_many_hops_and_no_more(
    file_store: FileSystemSessionStore, call: Call, hops: int
) -> None:
    for n in range(1, 21):
        await file_store.save(version(1, f"s-{n}"))
    counted = count_hops(file_store)
    await call(file_store)
    assert len(counted) == hops, counted


async def test_a_first_save_that_makes_the_directory_takes_one_hop(tmp_path: Path) -> None:
    async with FileSystemSessionStore(tmp_path / "a" / "b" / "c") as store:
        counted = count_hops(store)
        await store.save(version(1))
        assert len(counted) == 1, counted


async def test_the_loops_default_executor_is_left_alone(tmp_path: Path) -> None:
    executor = NoDefaultExecutor()
    asyncio.get_running_loop().set_default_executor(executor)
    with pytest.raises(AssertionError, match="default executor"):
        await asyncio.to_thread(int)
    async with FileSystemSessionStore(tmp_path / "a" / "b") as store:
        await asyncio.gather(*(store.save(version(n, f"s-{n % 5}", size=20)) for n in range(50)))
        await store.load("s-1")
        await store.exists("s-1")
        await store.list_ids()
        await store.list_for_agent("a")
        await cards(store)
        await agent_cards(store)
        await store.delete("s-1")


async def test_a_store_has_no_more_threads_than_it_was_given(tmp_path: Path) -> None:
    def threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if str(tmp_path) in thread.name]

    async with FileSystemSessionStore(tmp_path, workers=3) as store:
        assert threads() == []  # none before the first call
        await asyncio.gather(*(store.save(version(n, f"s-{n}")) for n in range(50)))
        assert 1 <= len(threads()) <= 3
        assert all(thread.daemon for thread in threads())  # a process can always end
    for thread in threads():
        thread.join(10)
    assert threads() == []


async def test_a_store_has_at_least_one_thread(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workers"):
        FileSystemSessionStore(tmp_path, workers=0)
    async with FileSystemSessionStore(tmp_path, workers=1) as store:
        await asyncio.gather(*(store.save(version(n, f"s-{n % 7}")) for n in range(50)))
        assert len(await store.list_ids()) == 7


async def test_an_error_in_a_thread_reaches_the_caller_with_its_cause(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    async with FileSystemSessionStore(tmp_path / "file") as store:
        for call in (store.save(version(1)), store.load("s-1"), store.list_ids()):
            with pytest.raises(SessionIOError) as caught:
                await call
            assert isinstance(caught.value.__cause__, NotADirectoryError)
            assert caught.value.errno == caught.value.__cause__.errno
            assert caught.value.filename == str(caught.value.__cause__.filename)


async def test_damage_reaches_the_caller_with_its_cause(
    file_store: FileSystemSessionStore,
) -> None:
    await file_store.save(version(1))
    (file_store.dir / "s-1.json").write_text("{")
    for call in (
        file_store.load("s-1"),
        file_store.save(version(2)),
        file_store.delete("s-1"),
        cards(file_store),
    ):
        with pytest.raises(SessionCorruptError) as caught:
            await call
        assert caught.value.__cause__ is not None
        assert caught.value.path == str(file_store.dir / "s-1.json")
    assert (file_store.dir / "s-1.json").read_text() == "{"


async def test_an_error_leaves_the_threads_ready_for_the_next_call(tmp_path: Path) -> None:
    async with FileSystemSessionStore(tmp_path, workers=1) as store:
        session = version(1)
        old = await store.save(session)
        await store.save(session)
        for _ in range(20):
            with pytest.raises(SessionConflictError):
                await store.save(version(2), expect=old)
        await store.save(session)
