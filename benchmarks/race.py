"""Processes that begin together, and what each of them saw."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable, Coroutine, Sequence
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from typing import Any, TypeVar

__all__ = ["PATIENCE", "race"]

PATIENCE = 120.0
"""Seconds that a process has to come to the start."""

T = TypeVar("T")


def race(
    run: Callable[..., Coroutine[Any, Any, T]], arguments: Sequence[tuple[Any, ...]], seconds: float
) -> list[T]:
    """Run `run(*arguments[n], barrier)` in a process for each n; return the results as they come.

    Args:
        run: A function of a module; what it takes and returns is pickled.
        arguments: One process's each.
        seconds: How long it takes from the start.
    """
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(len(arguments)), context.Queue()
    children = [
        context.Process(target=_contend, args=(run, own, barrier, results)) for own in arguments
    ]
    for child in children:
        child.start()
    try:
        return [results.get(timeout=PATIENCE + 2 * seconds) for _ in children]
    finally:
        for child in children:
            child.join(timeout=10)
            if child.is_alive():
                child.kill()


def _contend(
    run: Callable[..., Coroutine[Any, Any, T]],
    arguments: tuple[Any, ...],
    barrier: Barrier,
    results: Queue[T],
) -> None:
    results.put(asyncio.run(run(*arguments, barrier)))
