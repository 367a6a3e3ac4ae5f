"""`python -m benchmarks NAME [NAME ...] [--json FILE] [--plot FILE] [--dir DIR] [--quick]`."""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import msgspec

from . import append, contention, engines, growth, lag, load, save, update
from . import list as listing
from .machine import describe
from .report import Figure, Report, draw, table

Measure = Callable[..., Awaitable[tuple[list[Figure], list[str]]]]

BENCHMARKS: dict[str, Measure] = {
    "save": save.measure,
    "load": load.measure,
    "list": listing.measure,
    "contention": contention.measure,
    "lag": lag.measure,
    "append": append.measure,
    "update": update.measure,
    "growth": growth.measure,
    "engines": engines.measure,
}


def main(arguments: Sequence[str]) -> None:
    options = _parser().parse_args(arguments)
    names = list(BENCHMARKS) if "all" in options.names else list(dict.fromkeys(options.names))
    with tempfile.TemporaryDirectory(prefix=".benchmarks-", dir=options.dir) as directory:
        report = Report(
            command=shlex.join(["python", "-m", "benchmarks", *arguments]),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            quick=options.quick,
            machine=describe(directory),
        )
        print("\n".join(report.machine.lines()), flush=True)
        if options.quick:
            print("quick: every part runs, the figures mean nothing")
        for name in names:
            print(f"\n{name}", flush=True)
            figures, notes = asyncio.run(BENCHMARKS[name](directory, quick=options.quick))
            notes.append(f"load average at the end: {os.getloadavg()[0]:.2f}")
            report.benchmarks[name], report.notes[name] = figures, notes
            print(table(figures))
            print("\n".join(f"- {note}" for note in notes), flush=True)
            _write(report, options.json)
    if options.plot:
        draw(report, options.plot)


def _write(report: Report, path: str | None) -> None:
    if path:
        with open(path, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="+", choices=[*BENCHMARKS, "all"], metavar="NAME")
    parser.add_argument("--json", metavar="FILE", help="write every figure there")
    parser.add_argument("--plot", metavar="FILE", help="draw bars with their goals (matplotlib)")
    parser.add_argument("--dir", default=".", help="measure a new directory in this one")
    parser.add_argument("--quick", action="store_true", help="tiny counts: does it run at all?")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
