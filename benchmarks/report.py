"""Figures beside their goals: as a table, as JSON, as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from .machine import Machine
from .measure import Samples, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Figure", "Report", "compare", "draw", "rate", "speed_up", "table"]


class Figure(msgspec.Struct, kw_only=True):
    """One figure.

    Attributes:
        unit: `x` for a ratio to a floor.
        goal: What `value` should not exceed, or reach where `at_least`; None for a figure that
            only explains others.
        spread: The quartiles of `value` over the blocks of the run.
        measured: The times behind it.
        floor: The times that it is compared with.
    """

    name: str
    value: float
    unit: str = "x"
    goal: float | None = None
    at_least: bool = False
    spread: tuple[float, float] | None = None
    measured: Summary | None = None
    floor: Summary | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.at_least else self.value <= self.goal


class Report(msgspec.Struct, kw_only=True):
    """All that one run found out.

    Attributes:
        command: What was run.
        started: When, UTC.
        quick: Whether counts were too small for the figures to mean anything.
        notes: For each benchmark what a reader has to know.
    """

    command: str
    started: str
    quick: bool
    machine: Machine
    benchmarks: dict[str, list[Figure]] = {}
    notes: dict[str, list[str]] = {}


def compare(
    name: str,
    samples: Samples,
    measured: str,
    floor: Sequence[str],
    *,
    goal: float | None = None,
) -> Figure:
    """Return the ratio of a contestant's median to the floor's."""
    return Figure(
        name=name,
        value=samples.ratio([measured], floor),
        goal=goal,
        spread=samples.spread([measured], floor),
        measured=samples.summary(measured),
        floor=samples.summary(*floor),
    )


def speed_up(
    name: str, samples: Samples, measured: str, rival: str, *, goal: float | None = None
) -> Figure:
    """Return how many times as fast as a rival a contestant is."""
    return Figure(
        name=name,
        value=samples.ratio([rival], [measured]),
        goal=goal,
        at_least=True,
        spread=samples.spread([rival], [measured]),
        measured=samples.summary(measured),
        floor=samples.summary(rival),
    )


def rate(name: str, samples: Samples, measured: str, calls: int, unit: str) -> Figure:
    """Return how many calls a contestant makes in a second that makes `calls` in each round."""
    return Figure(
        name=name,
        value=calls / samples.p50(measured) * 1e9,
        unit=unit,
        measured=samples.summary(measured),
    )


def table(figures: Sequence[Figure]) -> str:
    """Return the figures for people; times are median/p95 in microseconds."""
    header = ("", "value", "goal", "", "quartiles of blocks", "p50/p95 us", "floor p50/p95 us")
    rows = [header, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def _row(figure: Figure) -> tuple[str, ...]:
    sign = ">=" if figure.at_least else "<="
    verdict = {None: "", True: "met", False: "MISSED"}[figure.is_met]
    spread = figure.spread
    return (
        figure.name,
        f"{_number(figure.value)} {figure.unit}",
        "" if figure.goal is None else f"{sign} {figure.goal:g}",
        verdict,
        "" if spread is None else f"{_number(spread[0])} to {_number(spread[1])}",
        _times(figure.measured),
        _times(figure.floor),
    )


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"


def _times(summary: Summary | None) -> str:
    return "" if summary is None else f"{summary.p50:,.0f}/{summary.p95:,.0f}"


def draw(report: Report, path: str) -> None:
    """Draw bars with their goals as lines, and the quartiles over the blocks as whiskers."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    panels = [
        (name, unit, [figure for figure in figures if figure.unit == unit])
        for name, figures in report.benchmarks.items()
        for unit in dict.fromkeys(figure.unit for figure in figures)
    ]
    heights = [len(figures) + 2 for _, _, figures in panels]
    drawing, axes = plt.subplots(
        len(panels),
        figsize=(12, 0.3 * sum(heights) + 1),
        squeeze=False,
        height_ratios=heights,
        layout="constrained",
    )
    for axis, (name, unit, figures) in zip(axes[:, 0], panels, strict=True):
        _bars(axis, name, unit, figures)
    machine = report.machine
    title = f"{machine.cpu}, {machine.cores} cores, {machine.file_system}, Python {machine.python}"
    drawing.suptitle(title + (" (quick: figures mean nothing)" if report.quick else ""), fontsize=9)
    drawing.savefig(path, dpi=120)
    plt.close(drawing)


def _bars(axis: Axes, name: str, unit: str, figures: Sequence[Figure]) -> None:
    colours = {None: "0.75", True: "tab:green", False: "tab:red"}
    rows = range(len(figures))
    axis.barh(
        rows,
        [figure.value for figure in figures],
        color=[colours[figure.is_met] for figure in figures],
    )
    for row, figure in zip(rows, figures, strict=True):
        if figure.goal is not None:
            axis.vlines(figure.goal, row - 0.45, row + 0.45, color="black")
        if figure.spread is not None:
            axis.hlines(row, *figure.spread, color="tab:blue")
        end = max(figure.value, figure.goal or 0.0, *(figure.spread or ()))
        axis.annotate(f"  {_number(figure.value)}", (end, row), fontsize=7, va="center")
    axis.set_yticks(rows, [figure.name for figure in figures], fontsize=7)
    axis.tick_params(axis="x", labelsize=7)
    axis.invert_yaxis()
    values = [figure.value for figure in figures if figure.value > 0]
    if values and max(values) > 50 * min(values):
        axis.set_xscale("log")
    axis.margins(x=0.08)
    what = "times the floor" if unit == "x" else unit
    axis.set_title(f"{name}: {what} (black: the goal)", fontsize=8)
