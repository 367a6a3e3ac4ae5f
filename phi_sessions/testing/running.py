"""Running the checks on a store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from contextlib import AsyncExitStack
from traceback import format_exception, format_exception_only
from typing import Final

from ..errors import SessionError
from .catalogue import CHECKS
from .check import Check
from .children import refuse_in_a_child
from .claims import BrokenPromiseError, SkipCheck
from .elsewhere import first_of
from .report import CheckResult, Outcome, Report
from .scale import Scale
from .trial import OpenStore, Trial, opened

__all__ = ["check_store", "run_check"]

_UNWINDING: Final = 10.0
"""Seconds that a check gets to end after it was cancelled."""


async def check_store(
    open_store: OpenStore,
    *,
    reopen: OpenStore | None = None,
    processes: bool = True,
    only: Collection[str] | None = None,
    scale: Scale | None = None,
) -> Report:
    """Hold a store to every promise of the contract, and return what was found.

    Args:
        open_store: Returns a new store object, plain or async, each time on the same place: a
            directory, database, bucket or server that the kit may fill. The kit closes what it
            opens, uses ids of its own, and deletes what it made. A store that lacks
            `Promise.PROCESSES` and `Promise.RESTART` may give a new, empty place each time.
        reopen: Opens the place again after a close; by default `open_store`, if the store promises
            `Promise.RESTART`.
        processes: Whether to use child processes too. They are spawned, so `open_store` has to be
            picklable: a function or class of a module, or a `functools.partial` of one. The
            program itself must be one that can be imported (`if __name__ == "__main__":`).
        only: The names of the checks to make; all by default.
        scale: How much to do.

    Returns:
        The report: also when promises are broken. See `Report.raise_if_failed`.

    Raises:
        ValueError: `only` names a check that there is not.
        RuntimeError: A child process was about to run the checks again: see `processes`.
        What the first call of `open_store` raises is passed on.
    """
    refuse_in_a_child()
    known = {check.name: check for check in CHECKS}
    if unknown := set(only or ()) - known.keys():
        raise ValueError(f"there is no check named {', '.join(sorted(unknown))}")
    begun = time.perf_counter()
    async with await opened(open_store) as store:
        name, lacks = type(store).__name__, sorted(str(promise) for promise in store.lacks)
    results = [
        await run_check(check, open_store, reopen=reopen, processes=processes, scale=scale)
        for check in CHECKS
        if only is None or check.name in only
    ]
    return Report(store=name, lacks=lacks, seconds=time.perf_counter() - begun, checks=results)


async def run_check(
    check: Check,
    open_store: OpenStore,
    *,
    reopen: OpenStore | None = None,
    processes: bool = True,
    scale: Scale | None = None,
) -> CheckResult:
    """Make one check; arguments as for `check_store`."""
    scale = scale or Scale()
    begun = time.perf_counter()

    def result(
        outcome: Outcome, reason: str | None = None, error: BaseException | None = None
    ) -> CheckResult:
        return CheckResult(
            name=check.name,
            theme=check.theme,
            promise=check.promise,
            outcome=outcome,
            seconds=round(time.perf_counter() - begun, 3),
            reason=None if reason is None else _printable(reason),
            error=None if error is None else _printable(_line(error)),
            traceback=None if error is None else _printable("".join(format_exception(error))),
        )

    making = asyncio.create_task(_make(check, open_store, reopen, processes, scale))
    try:
        await _watched(making, scale.check_timeout)
    except SkipCheck as reason:
        return result(Outcome.SKIPPED, reason=str(reason))
    except Exception as error:  # noqa: BLE001 - the report tells of it
        return result(Outcome.FAILED, error=error)
    return result(Outcome.PASSED)


async def _make(
    check: Check,
    open_store: OpenStore,
    reopen: OpenStore | None,
    processes: bool,
    scale: Scale,
) -> None:
    trial: Trial | None = None
    try:
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(await opened(open_store))
            reason = check.reason_to_skip(store, processes=processes, can_reopen=reopen is not None)
            if reason is not None:
                raise SkipCheck(reason)
            trial = Trial(open_store, reopen, store, stack, scale)
            try:
                await check.run(trial)
            finally:
                await trial.end_tasks()
    except BaseException as error:
        if trial is not None:
            try:
                await trial.clean_up()
            except SessionError as another:
                error.add_note(f"cleaning up after the check failed, too: {another!r}")
        raise
    await trial.clean_up()


async def _watched(making: asyncio.Task[None], seconds: float) -> None:
    """Wait for a check; one that does not end is cancelled, and left alone if that does not help.

    Raises:
        BrokenPromiseError: It did not end in time, or ended as if it had been cancelled.
        What the check raises is passed on.
    """
    try:
        await asyncio.wait([making], timeout=seconds)
        in_time = making.done()
        making.cancel()
        await asyncio.wait([making], timeout=_UNWINDING)
    except asyncio.CancelledError:  # whoever runs the checks was cancelled
        making.cancel()
        await asyncio.wait([making], timeout=_UNWINDING)
        raise
    late = f"the check did not end within {seconds:g} s"
    if not making.done():
        raise BrokenPromiseError(f"{late}, nor when it was cancelled")
    try:
        making.result()
    except asyncio.CancelledError as error:
        raise BrokenPromiseError(
            "a call was cancelled that nobody had cancelled" if in_time else late
        ) from error
    if not in_time:
        raise BrokenPromiseError(late)


def _line(error: BaseException) -> str:
    return "".join(format_exception_only(first_of(error))).strip().replace("\n", " | ")


def _printable(text: str) -> str:
    """Return `text` as UTF-8 can say it: a store may name the ids that it was given as they are."""
    return text.encode(errors="backslashreplace").decode()
