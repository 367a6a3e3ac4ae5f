"""Time stamps keep nine digits and the text they were read from."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pytest
from conftest import scaled

from phi_sessions import (
    FileSystemSessionStore,
    LoopRecord,
    Session,
    SessionCorruptError,
    SessionEncodeError,
    Timestamp,
    Turn,
    TurnId,
)

NINE = "2031-07-19T04:05:06.123456789Z"

ACCEPTED = {
    # text: the same moment, as `datetime` knows it, and its nanoseconds
    "2031-07-19T04:05:06Z": (0, 0),
    "2031-07-19T04:05:06z": (0, 0),
    "2031-07-19T04:05:06+00:00": (0, 0),
    "2031-07-19T04:05:06+0000": (0, 0),
    "2031-07-19T04:05:06-0000": (0, 0),
    "2031-07-19T04:05:06-00:00": (0, 0),
    "2031-07-19T06:05:06+02:00": (0, 0),
    "2031-07-18T22:35:06-05:30": (0, 0),
    "2031-07-19 04:05:06Z": (0, 0),
    "2031-07-19 04:05:06.5 +00:00": (500_000, 0),
    "2031-07-19T04:05:06 Z": (0, 0),
    "2031-07-19T04:05:06Z ": (0, 0),
    "2031-7-19T4:5:6Z": (0, 0),
    "2031-07-19T04:05:06.1Z": (100_000, 0),
    "2031-07-19T04:05:06.12Z": (120_000, 0),
    "2031-07-19T04:05:06.123Z": (123_000, 0),
    "2031-07-19T04:05:06.1234Z": (123_400, 0),
    "2031-07-19T04:05:06.123456Z": (123_456, 0),
    "2031-07-19T04:05:06.1234567Z": (123_456, 700),
    "2031-07-19T04:05:06.123456789Z": (123_456, 789),
    "2031-07-19T04:05:06.123456789z": (123_456, 789),
    "2031-07-19T06:05:06.000000001+02:00": (0, 1),
    "2031-07-19T04:05:06.12345678999999Z": (123_456, 789),
}
REJECTED = [
    "",
    "now",
    "2031-07-19T04:05:06",
    "2031-07-19T04:05Z",
    "2031-07-19T04:05:06+02",
    "2031-07-19",
    "2031-07-19T24:00:00Z",
    "2031-02-30T00:00:00Z",
    "2031-02-29T00:00:00Z",
    "2031-13-01T00:00:00Z",
    "2031-00-01T00:00:00Z",
    "2031-01-00T00:00:00Z",
    "2031-01-01T00:60:00Z",
    "2031-01-01T00:00:61Z",
    "10000-01-01T00:00:00Z",
    "2031-07-19T04:05:06.Z",
    "2031-07-19T04:05:06,5Z",
    "2031-07-19T04:05:06Z!",
    "2031-07-19T04:05:06ZZ",
    "2031-W29-6T04:05:06Z",
    "20310719T040506Z",
    "2031-07-19T04:05:06\u00a0Z",
    "2031-07-19T04:05:0\u0666Z",
    "2031-07-19T04:05:06.12345\u0666Z",
    "2031-07-19T04:05:06.123456\u0667\u0668\u0669Z",
    "+10000-13-01T00:00:00Z",
    "+10000-02-30T00:00:00Z",
    "-0001-01-32T00:00:00Z",
]
BEYOND = [
    "0000-01-01T00:00:00Z",
    "0000-02-29T23:59:59.999999999Z",
    "-0001-06-30T01:02:03.5Z",
    "-9999-01-01T00:00:00Z",
    "+10000-01-01T00:00:00Z",
    "+12345-06-07T08:09:10.123456789Z",
    "2016-12-31T23:59:60Z",
    "2016-12-31T23:59:60.123456789Z",
    "2031-07-19T04:05:60Z",
    "9999-12-31T23:59:60Z",
    "9999-12-31T23:59:59.999999999Z",
    "9999-12-31T23:59:59-01:00",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+01:00",
]
"""What phi-core writes or reads, and `datetime` has no room for, or hardly."""


@pytest.mark.parametrize("text", ACCEPTED)
def test_a_form_that_phi_core_reads_is_read_as_the_same_moment(text: str) -> None:
    micro, nano = ACCEPTED[text]
    stamp = Timestamp.parse(text)
    assert datetime(2031, 7, 19, 4, 5, 6, micro, UTC) == stamp.replace()
    assert stamp.nanosecond == nano
    assert stamp.utcoffset() is not None
    assert str(stamp) == text


@pytest.mark.parametrize("text", REJECTED)
def test_a_form_that_phi_core_refuses_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Timestamp.parse(text)


@pytest.mark.parametrize("text", BEYOND)
def test_what_a_datetime_cannot_say_is_kept_as_text(text: str) -> None:
    stamp = Timestamp.parse(text)
    assert str(stamp) == text
    assert str(pickle.loads(pickle.dumps(stamp))) == text
    assert hash(stamp) == hash(Timestamp.parse(text))
    assert stamp == Timestamp.parse(text)


def test_a_leap_second_shows_as_the_last_moment_before_it() -> None:
    stamp = Timestamp.parse("2016-12-31T23:59:60Z")
    assert Timestamp.parse("2016-12-31T23:59:59Z") < stamp < Timestamp.parse("2017-01-01T00:00:00Z")


def test_a_year_beyond_9999_shows_as_the_last_day() -> None:
    stamp = Timestamp.parse("+10000-01-01T00:00:00Z")
    assert stamp.date() == date(9999, 12, 31)
    assert Timestamp.parse("-0001-01-01T00:00:00Z").date() == date(1, 1, 1)


@pytest.mark.parametrize("text", ACCEPTED | dict.fromkeys(BEYOND))
async def test_each_form_survives_a_store_untouched_and_touched(
    text: str, file_store: FileSystemSessionStore
) -> None:
    path = await put_stamp(file_store, text)
    session = await file_store.load("s")
    await file_store.save(session)
    assert json.loads(path.read_bytes())["loops"][0]["started_at"] == text
    assert str(session.loops[0].started_at) == text
    assert str(session.created_at) == text
    await file_store.save(session)
    value = json.loads(path.read_bytes())
    assert value["loops"][0]["started_at"] == value["created_at"] == text
    assert value["loops"][0]["turns"][0]["ended_at"] == text


@pytest.mark.parametrize("key", ["created_at", "started_at", "ended_at"])
async def test_a_damaged_stamp_is_found_when_the_session_is_loaded(
    key: str, file_store: FileSystemSessionStore
) -> None:
    value = json.loads((await put_stamp(file_store, NINE)).read_bytes())
    loop = value["loops"][0]
    holder = {"created_at": value, "started_at": loop, "ended_at": loop["turns"][0]}[key]
    stamps = dict(enumerate([NINE, *REJECTED, None, 0, 1.5, True, [], {}]))
    for number, text in stamps.items():
        holder[key], value["session_id"] = text, f"s{number}"
        (file_store.dir / f"s{number}.json").write_text(json.dumps(value))
    found = await asyncio.gather(
        *(file_store.load(f"s{number}") for number in stamps), return_exceptions=True
    )
    assert isinstance(found[0], Session)
    taken = [
        text
        for text, result in zip(stamps.values(), found, strict=True)
        if not isinstance(result, SessionCorruptError)
    ]
    assert taken == [NINE]


async def put_stamp(store: FileSystemSessionStore, text: str) -> Path:
    turn = Turn(TurnId("l", 0), {"role": "x"})
    await store.save(Session("s", "a", loops=[LoopRecord("l", "s", "a", turns=[turn])]))
    path = store.dir / "s.json"
    value = json.loads(path.read_bytes())
    value["created_at"] = value["loops"][0]["started_at"] = text
    value["loops"][0]["turns"][0]["ended_at"] = text
    path.write_text(json.dumps(value))
    return path


# Order, equality, hash ----------------------------------------------------------------------------


def test_two_stamps_that_differ_in_the_ninth_digit_differ() -> None:
    one, other = Timestamp.parse(NINE), Timestamp.parse(NINE.replace("789Z", "790Z"))
    assert not one == other  # noqa: SIM201 - both operators are under test
    assert one != other
    assert one < other
    assert one <= other
    assert other > one
    assert other >= one
    assert not other < one
    assert not other <= one
    assert not one > other
    assert not one >= other


def test_two_texts_of_one_moment_are_equal_and_hash_alike() -> None:
    one = Timestamp.parse("2031-07-19T04:05:06.5Z")
    for text in ("2031-07-19T06:05:06.500000000+02:00", "2031-07-19 04:05:06.50 -0000"):
        other = Timestamp.parse(text)
        assert one == other
        assert not one != other  # noqa: SIM202 - both operators are under test
        assert one <= other
        assert one >= other
        assert hash(one) == hash(other)


def test_a_stamp_compares_with_a_datetime_either_way_round() -> None:
    moment = datetime(2031, 7, 19, 4, 5, 6, 123456, UTC)
    exact, later = Timestamp.parse("2031-07-19T04:05:06.123456Z"), Timestamp.parse(NINE)
    assert exact == moment
    assert moment == exact
    assert hash(exact) == hash(moment)
    assert later != moment
    assert moment != later
    assert later > moment
    assert moment < later
    assert moment <= later
    assert not moment >= later
    assert later != "text"
    assert later != date(2031, 7, 19)


def test_a_stamp_is_not_ordered_with_what_is_no_moment() -> None:
    stamp = Timestamp.parse(NINE)
    for other in (1, "2031", None, datetime(2031, 7, 19)):  # noqa: DTZ001 - a naive time
        with pytest.raises(TypeError):
            stamp < other  # type: ignore[operator]  # noqa: B015
        with pytest.raises(TypeError):
            stamp >= other  # type: ignore[operator]  # noqa: B015


def test_sorting_is_by_nanoseconds() -> None:
    rng = random.Random(5)
    numbers = sorted({rng.randrange(2_000) + 1_900_000_000 * 10**9 for _ in range(scaled(500))})
    stamps = [Timestamp.from_nanoseconds(number) for number in numbers]
    shuffled = rng.sample(stamps, len(stamps))
    assert [str(stamp) for stamp in sorted(shuffled)] == [str(stamp) for stamp in stamps]
    assert len(set(shuffled)) == len(numbers)


# Making -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (1_000, "1970-01-01T00:00:00.000001Z"),
        (1_000_000, "1970-01-01T00:00:00.001Z"),
        (10_000_000, "1970-01-01T00:00:00.010Z"),
        (1_500_000_000, "1970-01-01T00:00:01.500Z"),
        (120_000, "1970-01-01T00:00:00.000120Z"),
        (1_942_200_306_123_456_789, "2031-07-19T04:05:06.123456789Z"),
    ],
)
def test_the_fewest_of_0_3_6_9_digits_are_written(nanoseconds: int, text: str) -> None:
    stamp = Timestamp.from_nanoseconds(nanoseconds)
    assert str(stamp) == text
    assert Timestamp.parse(text) == stamp
    assert Timestamp.parse(text).nanosecond == nanoseconds % 1000


def test_now_is_between_two_readings_of_the_clock() -> None:
    before = datetime.now(UTC)
    stamp = Timestamp.utc_now()
    assert before <= stamp <= datetime.now(UTC)
    assert stamp.tzinfo is UTC
    assert Timestamp.parse(str(stamp)) == stamp


def test_a_datetime_in_any_zone_becomes_a_stamp_in_utc() -> None:
    moment = datetime(2031, 7, 19, 6, 5, 6, 7, timezone(timedelta(hours=2)))
    stamp = Timestamp.from_datetime(moment)
    assert stamp == moment
    assert str(stamp) == "2031-07-19T04:05:06.000007Z"
    assert Timestamp.from_datetime(stamp) is stamp


def test_a_naive_datetime_is_not_a_stamp() -> None:
    with pytest.raises(ValueError, match="time zone"):
        Timestamp.from_datetime(datetime(2031, 7, 19))  # noqa: DTZ001 - a naive time


@pytest.mark.parametrize(
    "make",
    [
        lambda: Timestamp(2031, 7, 19),
        Timestamp.now,
        lambda: Timestamp.utc_now().replace(tzinfo=None),
    ],
    ids=["built", "now", "stripped"],
)
async def test_a_naive_stamp_is_never_stored_as_if_it_were_aware(
    make: Callable[[], Timestamp], file_store: FileSystemSessionStore
) -> None:
    """Either it cannot be made, or it is refused on save: its zone would be a guess."""
    with pytest.raises((ValueError, TypeError, SessionEncodeError)):
        await file_store.save(Session("s", "a", created_at=make()))
    assert await file_store.list_ids() == []


def test_arithmetic_gives_microseconds() -> None:
    stamp = Timestamp.parse(NINE)
    later = stamp + timedelta(seconds=1)
    assert isinstance(later, Timestamp)
    assert str(later) == "2031-07-19T04:05:07.123456Z"
    assert later.nanosecond == 0
    assert later - stamp == timedelta(seconds=1)
    assert isinstance(stamp - timedelta(seconds=1), Timestamp)
    assert stamp - datetime(2031, 7, 19, tzinfo=UTC) == timedelta(
        hours=4, minutes=5, seconds=6, microseconds=123456
    )


def test_replacing_a_field_forgets_the_old_text() -> None:
    stamp = Timestamp.parse(NINE).replace(year=2032)
    assert str(stamp).startswith("2032-07-19T04:05:06.123456")


def test_another_zone_shows_the_same_moment() -> None:
    stamp = Timestamp.parse(NINE).astimezone(timezone(timedelta(hours=-7)))
    assert str(stamp).startswith("2031-07-19T04:05:06.123456")
    assert str(stamp).endswith("Z")


@pytest.mark.parametrize("text", [NINE, "2031-7-19 4:5:6 +0000", "2016-12-31T23:59:60Z"])
def test_copies_and_pickles_keep_digits_and_text(text: str) -> None:
    stamp = Timestamp.parse(text)
    copies = [copy.copy(stamp), copy.deepcopy(stamp)]
    copies += [pickle.loads(pickle.dumps(stamp, n)) for n in range(pickle.HIGHEST_PROTOCOL + 1)]
    for other in copies:
        assert type(other) is Timestamp
        assert other == stamp
        assert str(other) == text
        assert other.nanosecond == stamp.nanosecond


def test_it_prints_as_its_text() -> None:
    stamp = Timestamp.parse(NINE)
    assert f"{stamp}" == NINE
    assert repr(stamp) == f"Timestamp('{NINE}')"
    assert isinstance(stamp, datetime)
    assert stamp.isoformat() == "2031-07-19T04:05:06.123456+00:00"
