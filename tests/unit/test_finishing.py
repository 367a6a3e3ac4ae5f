"""`to_its_end` waits for work that was begun, however its caller is cancelled."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from typing import Any

import pytest

from phi_sessions.stores.finishing import to_its_end

STEPS = 5


class Work:
    """Takes some passes of the loop, and tells how far it has come."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.done = 0
        self.error = error

    async def run(self) -> str:
        for _ in range(STEPS):
            await asyncio.sleep(0)
            self.done += 1
        if self.error is not None:
            raise self.error
        return "done"

    async def call(self) -> str:
        """Call as a store does: the work is made where it is awaited."""
        return await to_its_end(self.run())


@pytest.fixture
async def said() -> list[dict[str, Any]]:
    """What the test's loop complains of: errors that nobody looked at."""
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    return found


async def test_the_result_is_returned_and_an_error_is_raised_as_it_is() -> None:
    assert await Work().call() == "done"
    error = ConnectionResetError("gone")
    with pytest.raises(ConnectionResetError) as caught:
        await Work(error).call()
    assert caught.value is error


@pytest.mark.parametrize("error", [None, ConnectionResetError("gone")])
@pytest.mark.parametrize("step", range(STEPS + 4))
async def test_work_is_over_when_a_call_that_is_cancelled_at_any_step_ends(
    step: int, error: BaseException | None, said: list[dict[str, Any]]
) -> None:
    work = Work(error)
    call = asyncio.create_task(work.call())
    for _ in range(step):
        await asyncio.sleep(0)
    was_done = call.done()
    call.cancel()
    await asyncio.wait([call])
    assert work.done in ({0} if step == 0 else {STEPS})  # before its first step it is not begun
    assert call.cancelled() is not was_done
    assert asyncio.all_tasks() == {asyncio.current_task()}
    if was_done:
        assert call.exception() is error
    del call
    gc.collect()
    assert said == []


@pytest.mark.parametrize("error", [None, ConnectionResetError("gone")])
async def test_it_may_be_cancelled_again_and_again(
    error: BaseException | None, said: list[dict[str, Any]]
) -> None:
    work = Work(error)
    call = asyncio.create_task(work.call())
    await asyncio.sleep(0)
    for n in range(STEPS):
        call.cancel(f"number {n}")
        await asyncio.sleep(0)
        assert not call.done()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert work.done == STEPS
    gc.collect()
    assert said == []


async def test_a_time_limit_of_the_caller_is_told_once_the_work_is_over() -> None:
    work = Work()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await work.call()
    assert work.done == STEPS
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_neighbour_that_fails_ends_the_call_after_its_work() -> None:
    work = Work()

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(work.call())
            group.create_task(fail())
    assert [type(each) for each in caught.value.exceptions] == [ZeroDivisionError]
    assert work.done == STEPS


async def test_work_that_is_cancelled_from_inside_is_heard_of() -> None:
    call = asyncio.create_task(Work(asyncio.CancelledError()).call())
    await asyncio.wait([call])
    assert call.cancelled()


async def test_work_sees_the_callers_context() -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")
    name.set("caller")

    async def read() -> str:
        return name.get()

    assert await to_its_end(read()) == "caller"


def test_a_loop_that_ends_does_not_wait_for_ever() -> None:
    async def stuck() -> None:
        await asyncio.Event().wait()

    async def leave() -> None:
        leave.call = asyncio.create_task(to_its_end(stuck()))  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(leave())
    assert leave.call.cancelled()  # type: ignore[attr-defined]


@pytest.mark.parametrize("outcome", ["result", "error", "cancelled"])
async def test_nothing_of_a_call_is_kept_when_it_is_over(outcome: str) -> None:
    class Large:
        pass

    def hold() -> weakref.ref[Large]:
        large = Large()

        async def run(large: Large = large) -> Large:
            await asyncio.sleep(0)
            if outcome == "error":
                raise ConnectionResetError
            return large

        hold.work = run()  # type: ignore[attr-defined]
        return weakref.ref(large)

    kept = hold()
    gc.collect()
    gc.disable()
    try:
        call = asyncio.create_task(to_its_end(hold.work))  # type: ignore[attr-defined]
        del hold.work  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        if outcome == "cancelled":
            call.cancel()
        await asyncio.wait([call])
        if outcome == "error":
            assert isinstance(call.exception(), ConnectionResetError)
        del call
        await asyncio.sleep(0)
        assert kept() is None
    finally:
        gc.enable()
