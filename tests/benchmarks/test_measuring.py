"""The measuring itself: floors that do the whole work, contestants that get equal turns."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)  # the benchmarks are not part of the installed package

from benchmarks.data import SIZES, TURN_BYTES, make_session  # noqa: E402
from benchmarks.floors import NaiveSave, RawSave, raw_read  # noqa: E402
from benchmarks.measure import Contestant, Samples, alternate, percentile  # noqa: E402
from benchmarks.plain import fastest_encode, fastest_read  # noqa: E402
from benchmarks.report import Figure  # noqa: E402
from benchmarks.ticker import Ticker  # noqa: E402
from phi_sessions import FileSystemSessionStore  # noqa: E402


async def test_each_contestant_runs_once_in_each_round_after_its_preparation() -> None:
    calls: list[str] = []

    async def later() -> None:
        await asyncio.sleep(0)
        calls.append("b")

    samples = await alternate(
        {
            "a": Contestant(lambda: calls.append("a"), lambda: calls.append("prepare a")),
            "b": Contestant(later),
        },
        rounds=20,
        warm_up=0,
    )
    assert Counter(calls) == {"prepare a": 20, "a": 20, "b": 20}
    assert all(after == "a" for this, after in pairwise(calls) if this == "prepare a")
    for index in range(0, 60, 3):
        assert set(calls[index : index + 3]) == {"prepare a", "a", "b"}
    firsts = {calls[index] for index in range(0, 60, 3)}
    assert firsts == {"prepare a", "b"}  # nobody always goes first
    assert {name: len(times) for name, times in samples.times.items()} == {"a": 20, "b": 20}


def test_a_ratio_is_of_medians_and_its_spread_is_over_blocks() -> None:
    samples = Samples(["store", "raw", "hop"])
    samples.times = {
        "store": [300, 330, 9000] * 10,
        "raw": [200, 220, 210] * 10,
        "hop": [10, 10, 5000] * 10,
    }
    assert samples.ratio(["store"], ["raw", "hop"]) == 330 / 220
    assert samples.spread(["store"], ["raw", "hop"]) == (1.5, 1.5)
    assert samples.summary("raw", "hop").longest == 5.21


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (95, 95), (99, 99), (100, 100), (0, 1)])
def test_a_percentile_is_one_of_the_values(percent: float, value: int) -> None:
    assert percentile(list(range(100, 0, -1)), percent) == value


def test_a_goal_is_met_on_the_right_side() -> None:
    assert Figure(name="", value=1.1, goal=1.15).is_met is True
    assert Figure(name="", value=1.2, goal=1.15).is_met is False
    assert Figure(name="", value=2.1, goal=2.2, at_least=True).is_met is False
    assert Figure(name="", value=2.3, goal=2.2, at_least=True).is_met is True
    assert Figure(name="", value=1.0).is_met is None


@pytest.mark.parametrize("label", ["2 KB", "20 KB", "200 KB", "2 MB"])
async def test_seeded_sessions_have_their_size_and_are_the_same_each_time(
    tmp_path: Path, label: str
) -> None:
    size, records = SIZES[label]
    session = make_session("s-1", size, records=records)
    assert session == make_session("s-1", size, records=records)
    async with FileSystemSessionStore(tmp_path) as store:
        await store.save(session)
        assert await store.load("s-1") == session
    data = raw_read(str(tmp_path / "s-1.json"))
    assert len(data) == pytest.approx(size, rel=0.05)
    if records > 1:
        last = data.rpartition(b"\n{")[2]
        assert len(last) == pytest.approx(TURN_BYTES, rel=0.1)


async def test_the_rivals_read_and_write_the_whole_session(tmp_path: Path) -> None:
    session = make_session("s-1", 20_000, records=8)
    async with FileSystemSessionStore(tmp_path) as store:
        await store.save(session)
    data = raw_read(str(tmp_path / "s-1.json"))
    _, read = await fastest_read(data, 2)
    whole = read(data)
    assert [loop.loop_id for loop in whole.loops] == session.loops.ids()
    assert [loop.messages for loop in whole.loops] == [loop.messages for loop in session.loops]
    assert [turn.tool_results for turn in whole.loops[0].turns] == [
        turn.tool_results for turn in session.loops[0].turns
    ]
    _, encode = await fastest_encode(data, 2)
    assert len(encode()) == pytest.approx(len(data), rel=0.1)


async def test_the_floors_replace_the_file_and_leave_nothing(tmp_path: Path) -> None:
    raw, naive = RawSave(str(tmp_path), "raw.json"), NaiveSave(str(tmp_path), "naive.json")
    for content in (b"first", b"second"):
        raw(content)
        await naive(content)
        assert (tmp_path / "raw.json").read_bytes() == content
        assert (tmp_path / "naive.json").read_bytes() == content
    left = sorted(os.listdir(tmp_path))
    assert left == ["naive.json", "naive.json.lock", "raw.json", "raw.json.lock"]


async def test_a_ticker_sees_a_loop_that_is_held_up() -> None:
    def hold_up(until: float) -> None:
        while loop.time() < until:
            pass

    loop = asyncio.get_running_loop()
    async with Ticker() as ticker:
        await asyncio.sleep(0.01)
        hold_up(loop.time() + 0.05)
        await asyncio.sleep(0.01)
    assert max(ticker.gaps) >= 0.05
    async with Ticker() as ticker:
        hold_up(loop.time() + 0.05)
    assert max(ticker.gaps) >= 0.05  # also when it lasts until the end
