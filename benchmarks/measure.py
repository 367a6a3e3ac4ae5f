"""Contestants taken in turn, and what their times say.

A machine is never quiet. Contestants run one operation each, round after round, in an order that
is drawn anew for each round, so that whatever disturbs the machine disturbs all of them alike and
nobody always runs behind the same neighbour. Medians are compared. The same ratio is taken for
each tenth of the run as well: when its quartiles lie far apart, the run was too noisy to tell.
"""

from __future__ import annotations

import gc
import math
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter_ns
from typing import Any

import msgspec

__all__ = ["BLOCKS", "Contestant", "Samples", "Summary", "alternate", "middle_half", "percentile"]

BLOCKS = 10
"""Parts of a run whose ratios are compared with each other."""


@dataclass
class Contestant:
    """One operation to be timed.

    Attributes:
        run: The operation; a coroutine that it returns is awaited, inside the time.
        prepare: Called before each run, outside the time.
    """

    run: Callable[[], Awaitable[Any] | Any]
    prepare: Callable[[], None] | None = None


class Summary(msgspec.Struct, kw_only=True):
    """What a series of times comes to, in microseconds."""

    count: int
    p50: float
    p95: float
    shortest: float
    longest: float


class Samples:
    """The times of each contestant in nanoseconds, one for each round."""

    def __init__(self, names: Sequence[str]) -> None:
        self.times: dict[str, list[int]] = {name: [] for name in names}

    def p50(self, *names: str) -> float:
        """Return the sum of the contestants' medians, in nanoseconds."""
        return sum(median(self.times[name]) for name in names)

    def ratio(self, names: Sequence[str], floor: Sequence[str]) -> float:
        """Return the median of `names`, added up, as a multiple of that of `floor`."""
        return self.p50(*names) / self.p50(*floor)

    def spread(self, names: Sequence[str], floor: Sequence[str]) -> tuple[float, float]:
        """Return the quartiles of the ratio over the blocks of the run."""
        return middle_half([block.ratio(names, floor) for block in self._blocks()])

    def summary(self, *names: str) -> Summary:
        """Return what the times come to, added up round by round where there are several names."""
        sums = [sum(times) for times in zip(*(self.times[name] for name in names), strict=True)]
        return Summary(
            count=len(sums),
            p50=self.p50(*names) / 1e3,
            p95=percentile(sums, 95) / 1e3,
            shortest=min(sums) / 1e3,
            longest=max(sums) / 1e3,
        )

    def _blocks(self) -> list[Samples]:
        rounds = len(next(iter(self.times.values())))
        count = min(BLOCKS, rounds)
        blocks: list[Samples] = []
        for index in range(count):
            block = Samples(())
            part = slice(index * rounds // count, (index + 1) * rounds // count)
            block.times = {name: times[part] for name, times in self.times.items()}
            blocks.append(block)
        return blocks


async def alternate(
    contestants: Mapping[str, Contestant], rounds: int, *, warm_up: int = 3
) -> Samples:
    """Run each contestant once in each of `rounds` rounds and return the times."""
    samples = Samples(list(contestants))
    order = random.Random(20260115)
    names = list(contestants)
    gc.collect()
    for index in range(-warm_up, rounds):
        order.shuffle(names)
        for name in names:
            contestant = contestants[name]
            if contestant.prepare is not None:
                contestant.prepare()
            begun = perf_counter_ns()
            result = contestant.run()
            if isinstance(result, Awaitable):
                result = await result
            ended = perf_counter_ns()
            del result  # what it holds is let go of outside the time
            if index >= 0:
                samples.times[name].append(ended - begun)
    return samples


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def middle_half(values: Sequence[float]) -> tuple[float, float]:
    """Return the quartiles: half of the values lie between them."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high
