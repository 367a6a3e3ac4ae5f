"""`PerLoop` makes one client for each event loop, and closes all that it made."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest

from phi_sessions.stores.per_loop import PerLoop

PATIENCE = 20.0
"""Seconds after which a test hangs."""


class Client:
    """Belongs to the loop that made it, and must be closed there."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.closed = 0
        self.finalized: Callable[[], None] = lambda: None

    def __del__(self) -> None:
        self.finalized()

    async def aclose(self) -> None:
        assert asyncio.get_running_loop() is self.loop
        await asyncio.sleep(0)
        self.closed += 1


class Workshop:
    """Makes clients for a `PerLoop`, and remembers them."""

    def __init__(self) -> None:
        self.made: list[Client] = []
        self.begun = 0
        self.error: BaseException | None = None
        self.gate: Callable[[], Any] = lambda: asyncio.sleep(0)
        self.clients = PerLoop(self.make, self.close)

    async def make(self) -> Client:
        self.begun += 1
        await self.gate()
        if self.error is not None:
            raise self.error
        client = Client()
        self.made.append(client)
        return client

    async def close(self, client: Client) -> None:
        await client.aclose()


@pytest.fixture
async def workshop() -> AsyncIterator[Workshop]:
    """A workshop in a test of one loop."""
    made = Workshop()
    yield made
    await made.clients.aclose()


@contextmanager
def loop_in_a_thread() -> Iterator[Callable[[Any], Any]]:
    """Run an event loop in a thread; gives a function that runs a coroutine there."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(PATIENCE)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()


async def begun(workshop: Workshop, count: int = 1) -> None:
    """Return when so many clients are being made."""
    async with asyncio.timeout(PATIENCE):
        while workshop.begun < count:
            await asyncio.sleep(0)


# One for each loop --------------------------------------------------------------------------------


async def test_many_tasks_of_one_loop_share_one_client(workshop: Workshop) -> None:
    clients = await asyncio.gather(*(workshop.clients.get() for _ in range(50)))
    assert set(clients) == set(workshop.made)
    assert len(workshop.made) == 1
    assert await workshop.clients.get() is clients[0]


def test_each_loop_has_a_client_of_its_own() -> None:
    workshop = Workshop()
    with loop_in_a_thread() as run_first, loop_in_a_thread() as run_second:
        first, second = run_first(workshop.clients.get()), run_second(workshop.clients.get())
        assert first is not second
        assert run_first(workshop.clients.get()) is first
        assert run_second(workshop.clients.get()) is second
        assert first.loop is not second.loop
        asyncio.run(workshop.clients.aclose())
        assert (first.closed, second.closed) == (1, 1)


def test_loops_that_begin_at_the_same_moment_have_a_client_each() -> None:
    workshop = Workshop()
    count = 16
    start = threading.Barrier(count)
    found: list[Client] = []

    async def use() -> None:
        start.wait(PATIENCE)
        client = await workshop.clients.get()
        assert await workshop.clients.get() is client
        found.append(client)
        start.wait(PATIENCE)  # no loop ends before each has its client

    threads = [threading.Thread(target=asyncio.run, args=[use()]) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(set(found)) == len({client.loop for client in found}) == count


def test_a_loop_that_ended_is_forgotten_with_its_client() -> None:
    workshop = Workshop()
    first = asyncio.run(workshop.clients.get())
    freed: list[bool] = []
    first.finalized = lambda: freed.append(True)
    second = asyncio.run(workshop.clients.get())
    assert first is not second
    workshop.made.clear()
    del first
    gc.collect()
    assert freed == [True]


def test_clients_of_loops_that_ended_are_not_closed_elsewhere() -> None:
    workshop = Workshop()
    client = asyncio.run(workshop.clients.get())
    asyncio.run(workshop.clients.aclose())
    assert client.closed == 0


# Making fails, or is given up ---------------------------------------------------------------------


async def test_all_who_wait_hear_of_a_failure_and_the_next_call_tries_again(
    workshop: Workshop,
) -> None:
    workshop.error = ConnectionRefusedError("no server")
    outcomes = await asyncio.gather(
        *(workshop.clients.get() for _ in range(10)), return_exceptions=True
    )
    assert outcomes == [workshop.error] * 10
    assert workshop.begun == 1
    with pytest.raises(ConnectionRefusedError):
        await workshop.clients.get()
    assert workshop.begun == 2
    workshop.error = None
    assert await workshop.clients.get() is workshop.made[0]


async def test_a_failure_that_nobody_waited_for_is_not_told_to_the_next_call(
    workshop: Workshop,
) -> None:
    reached = asyncio.Event()
    workshop.gate, workshop.error = reached.wait, ConnectionRefusedError("no server")
    alone = asyncio.create_task(workshop.clients.get())
    await begun(workshop)
    alone.cancel()
    await asyncio.wait([alone])
    reached.set()
    await asyncio.sleep(0.01)
    workshop.error = None
    assert await workshop.clients.get() is workshop.made[0]
    assert workshop.begun == 2


async def test_a_waiter_that_is_cancelled_leaves_the_others_their_client(
    workshop: Workshop,
) -> None:
    reached = asyncio.Event()
    workshop.gate = reached.wait
    waiters = [asyncio.create_task(workshop.clients.get()) for _ in range(3)]
    await begun(workshop)
    waiters[0].cancel()  # the one that began to make it
    await asyncio.wait([waiters[0]])
    assert waiters[0].cancelled()
    reached.set()
    assert await waiters[1] is await waiters[2] is workshop.made[0]
    assert workshop.begun == 1


async def test_what_was_being_made_for_a_cancelled_waiter_serves_the_next(
    workshop: Workshop,
) -> None:
    reached = asyncio.Event()
    workshop.gate = reached.wait
    waiter = asyncio.create_task(workshop.clients.get())
    await begun(workshop)
    waiter.cancel()
    await asyncio.wait([waiter])
    reached.set()
    assert await workshop.clients.get() is workshop.made[0]
    assert workshop.begun == 1


async def test_making_that_is_cancelled_from_inside_can_be_tried_again(workshop: Workshop) -> None:
    workshop.error = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await workshop.clients.get()
    workshop.error = None
    assert await workshop.clients.get() is workshop.made[0]


def test_a_loop_that_ends_while_it_makes_a_client_leaves_nothing_behind() -> None:
    workshop = Workshop()
    workshop.gate = asyncio.Event().wait

    async def give_up() -> None:
        waiter = asyncio.create_task(workshop.clients.get())
        await begun(workshop)
        waiter.cancel()

    asyncio.run(give_up())
    workshop.gate = lambda: asyncio.sleep(0)
    assert asyncio.run(workshop.clients.get()) is workshop.made[0]
    asyncio.run(workshop.clients.aclose())


# Closing ------------------------------------------------------------------------------------------


async def test_closing_twice_is_harmless_and_a_later_call_makes_a_new_client(
    workshop: Workshop,
) -> None:
    client = await workshop.clients.get()
    await workshop.clients.aclose()
    await workshop.clients.aclose()
    assert client.closed == 1
    assert await workshop.clients.get() is not client


async def test_closing_what_was_never_used_is_harmless(workshop: Workshop) -> None:
    await workshop.clients.aclose()
    assert workshop.begun == 0


async def test_a_client_that_is_being_made_is_closed_when_it_is_made(workshop: Workshop) -> None:
    reached = asyncio.Event()
    workshop.gate = reached.wait
    waiter = asyncio.create_task(workshop.clients.get())
    await begun(workshop)
    closing = asyncio.create_task(workshop.clients.aclose())
    await asyncio.sleep(0)
    assert not closing.done()
    reached.set()
    await closing
    assert (await waiter).closed == 1


async def test_a_client_that_could_not_be_made_is_no_hindrance_to_closing(
    workshop: Workshop,
) -> None:
    reached = asyncio.Event()
    workshop.gate, workshop.error = reached.wait, ConnectionRefusedError("no server")
    waiter = asyncio.create_task(workshop.clients.get())
    await begun(workshop)
    closing = asyncio.create_task(workshop.clients.aclose())
    await asyncio.sleep(0)
    reached.set()
    await closing
    with pytest.raises(ConnectionRefusedError):
        await waiter


def test_a_close_that_fails_does_not_keep_the_others_from_being_closed() -> None:
    workshop = Workshop()

    async def fail(client: Client) -> None:
        await client.aclose()
        raise ConnectionResetError(f"{workshop.made.index(client)}")

    workshop.clients = PerLoop(workshop.make, fail)
    with loop_in_a_thread() as run_first, loop_in_a_thread() as run_second:
        run_first(workshop.clients.get())
        run_second(workshop.clients.get())

        async def use_and_close() -> None:
            await workshop.clients.get()
            with pytest.raises(ConnectionResetError):
                await workshop.clients.aclose()

        asyncio.run(use_and_close())
        assert [client.closed for client in workshop.made] == [1, 1, 1]


def test_closing_that_is_cancelled_closes_all_before_it_ends() -> None:
    workshop = Workshop()
    slow: Future[None] = Future()

    async def close_slowly(client: Client) -> None:
        await asyncio.wrap_future(slow)
        await client.aclose()

    workshop.clients = PerLoop(workshop.make, close_slowly)
    with loop_in_a_thread() as run_first, loop_in_a_thread() as run_second:
        run_first(workshop.clients.get())
        run_second(workshop.clients.get())

        async def use_and_give_up() -> None:
            await workshop.clients.get()
            closing = asyncio.create_task(workshop.clients.aclose())
            for _ in range(3):
                await asyncio.sleep(0.01)
                closing.cancel()
            assert not closing.done()
            slow.set_result(None)
            async with asyncio.timeout(PATIENCE):
                await asyncio.wait([closing])
            assert closing.cancelled()

        asyncio.run(use_and_give_up())
        assert [client.closed for client in workshop.made] == [1, 1, 1]


def test_closing_does_not_wait_for_a_loop_that_ends_at_that_moment() -> None:
    """The other loop hears of the closing in its very last pass, or never."""
    for _ in range(200):
        workshop = Workshop()
        used, go = threading.Event(), threading.Event()

        async def use(workshop: Workshop = workshop, used: Any = used, go: Any = go) -> None:
            await workshop.clients.get()
            used.set()
            go.wait(PATIENCE)

        thread = threading.Thread(target=asyncio.run, args=[use()])
        thread.start()
        assert used.wait(PATIENCE)

        async def close(workshop: Workshop = workshop, go: Any = go) -> None:
            go.set()
            async with asyncio.timeout(PATIENCE):
                await workshop.clients.aclose()

        asyncio.run(close())
        thread.join(PATIENCE)


# Forks --------------------------------------------------------------------------------------------


def in_a_child(check: Callable[[], None]) -> None:
    """Run `check` in a forked child."""
    child = os.fork()
    if child == 0:
        try:
            check()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_makes_its_own_client_and_leaves_its_parents_alone() -> None:
    workshop = Workshop()
    loop = asyncio.new_event_loop()
    client = loop.run_until_complete(workshop.clients.get())
    touched: list[bool] = []
    client.finalized = lambda: touched.append(True)
    workshop.made.clear()
    del client

    def check() -> None:
        # Finalizing a connection in the child may take the parent's off the poll that both share.
        gc.collect()
        assert touched == []
        mine = asyncio.run(workshop.clients.get())
        assert workshop.made == [mine]
        asyncio.run(workshop.clients.aclose())
        gc.collect()
        assert touched == []

    try:
        in_a_child(check)
        assert touched == []
        assert loop.run_until_complete(workshop.clients.get()).closed == 0
    finally:
        loop.run_until_complete(workshop.clients.aclose())
        loop.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_that_is_forked_while_the_lock_is_held_can_go_on() -> None:
    workshop = Workshop()
    with workshop.clients._mutex:
        in_a_child(lambda: asyncio.run(workshop.clients.get()) and None)
