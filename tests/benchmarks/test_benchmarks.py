"""Each benchmark runs, and its reports can be read. Counts are tiny: no figure means anything."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ("save", "load", "list", "contention", "lag", "append", "update", "growth")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=400
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The directory and the output of one quick run of all benchmarks."""
    place = tmp_path_factory.mktemp("benchmarks")
    files = ("--json", str(place / "all.json"), "--plot", str(place / "all.png"))
    (place / "disk").mkdir()
    done = run("all", "--quick", "--dir", str(place / "disk"), *files)
    assert done.returncode == 0, done.stderr
    return place, done.stdout


@pytest.fixture(scope="module")
def report(measured: tuple[Path, str]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((measured[0] / "all.json").read_bytes())
    return content


@pytest.mark.parametrize("name", NAMES)
def test_each_benchmark_reports_figures_beside_goals(report: dict[str, Any], name: str) -> None:
    figures = report["benchmarks"][name]
    assert len({figure["name"] for figure in figures}) == len(figures) > 0
    for figure in figures:
        assert math.isfinite(figure["value"]), figure
        assert figure["value"] > 0 or figure["unit"] in ("errors", "ms", "us"), figure
        if figure["spread"] is not None:
            assert figure["spread"][0] <= figure["spread"][1], figure
    assert any(figure["goal"] is not None for figure in figures)


def test_ratios_agree_with_the_times_behind_them(report: dict[str, Any]) -> None:
    ratios = [
        figure
        for figures in report["benchmarks"].values()
        for figure in figures
        if figure["unit"] == "x" and figure["measured"] and not figure["at_least"]
    ]
    assert ratios
    for figure in ratios:
        assert figure["value"] == pytest.approx(figure["measured"]["p50"] / figure["floor"]["p50"])
        assert figure["measured"]["shortest"] <= figure["measured"]["p50"]
        assert figure["measured"]["p95"] <= figure["measured"]["longest"]


def test_a_report_names_its_machine(report: dict[str, Any], measured: tuple[Path, str]) -> None:
    machine = report["machine"]
    assert machine["cores"] >= 1
    assert machine["python"].endswith(sys.version.split()[0])
    assert {"phi-sessions", "msgspec", "aiofiles", "portalocker"} <= machine["packages"].keys()
    assert machine["directory"].startswith(str(measured[0] / "disk"))
    for name in ("cpu", "kernel", "file_system", "mount"):
        assert machine[name]
        assert machine[name] in measured[1]


def test_the_table_says_everything_that_the_json_says(
    report: dict[str, Any], measured: tuple[Path, str]
) -> None:
    for figures in report["benchmarks"].values():
        for figure in figures:
            assert figure["name"] in measured[1]


def test_the_plot_is_a_png(measured: tuple[Path, str]) -> None:
    from matplotlib import image

    pixels = image.imread(measured[0] / "all.png")
    assert pixels.shape[0] > 200
    assert pixels.min() < pixels.max()  # something was drawn


def test_nothing_is_left_in_the_directory_measured(measured: tuple[Path, str]) -> None:
    assert os.listdir(measured[0] / "disk") == []


def test_writers_that_contend_have_no_errors(report: dict[str, Any]) -> None:
    errors = [f for f in report["benchmarks"]["contention"] if f["unit"] == "errors"]
    assert len(errors) == 2
    assert [figure["value"] for figure in errors] == [0, 0]


def test_changes_by_many_processes_have_no_errors_and_are_all_kept(report: dict[str, Any]) -> None:
    errors = [f for f in report["benchmarks"]["update"] if f["unit"] == "errors"]
    assert len(errors) == 4
    assert [figure["value"] for figure in errors] == [0, 0, 0, 0]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_an_append_writes_its_record_once_and_asks_for_the_disk_once(
    report: dict[str, Any],
) -> None:
    figures = {f["name"]: f["value"] for f in report["benchmarks"]["append"]}
    assert figures["fdatasync of one append"] == 1
    assert figures["fsync and fdatasync of one append"] == 1
    assert 0 < figures["bytes beside the record"] <= 512


def test_growth_counts_the_bytes_that_are_written(report: dict[str, Any]) -> None:
    figures = {f["name"]: f["value"] for f in report["benchmarks"]["growth"]}
    for name in ("append", "held append", "holder", "one holder"):
        assert figures[f"{name}: written / kept"] > 1
        (written,) = (v for n, v in figures.items() if n.startswith(f"{name}: written over"))
        assert written < figures[f"{name}: whole file each turn"] or name == "one holder"


def test_an_unknown_name_is_refused() -> None:
    done = run("nonsense")
    assert done.returncode == 2
    assert "invalid choice: 'nonsense'" in done.stderr
