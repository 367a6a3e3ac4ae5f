"""A tail is read back as it was written, and damage to it is told from an end that was torn."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from phi_sessions import FileSystemSessionStore, LoopRecord, Session, SessionCorruptError
from phi_sessions.codec import encode_head, encode_loops
from phi_sessions.model import Revision
from phi_sessions.stores.filesystem.tail import (
    TRAILER,
    Tail,
    first_line,
    line_length,
    parse,
    revision_of,
    step_line,
)

ID = "s"
EXTENDS = Revision("0123456789abcdef")
REVISIONS = [Revision(f"{number:016x}") for number in range(1, 4)]


def _record(loop_id: str, text: str = "") -> bytes:
    record = LoopRecord(loop_id, ID, "agent")
    record.messages = [{"role": "user", "content": [{"type": "text", "text": text}]}]
    return encode_loops([record], ID)[0].text


def _lines() -> list[bytes]:
    steps = [
        step_line(revision, None, [_record(f"loop-{place}", "a\nb\tc \u2028 \U0001f600")])
        for place, revision in enumerate(REVISIONS)
    ]
    return [first_line(EXTENDS), *steps]


def _parsed(data: bytes) -> Tail:
    tail = parse(data)
    assert tail is not None
    return tail


def test_what_is_written_is_read_back() -> None:
    head = encode_head(Session("s", "a"))
    records = [_record("a"), _record("b", "\n\t\x00")]
    line = step_line(REVISIONS[0], head, records)
    tail = _parsed(first_line(EXTENDS) + line)
    assert tail.extends == EXTENDS
    assert tail.revision == REVISIONS[0]
    assert [(step.head, [record.text for record in step.records]) for step in tail.steps] == [
        (head, records)
    ]
    assert [record.loop_id for record in tail.steps[0].records] == ["a", "b"]
    assert tail.size == len(first_line(EXTENDS)) + len(line)


def test_each_line_tells_its_length_and_its_revision() -> None:
    lines = _lines()
    assert [line.count(b"\n") for line in lines] == [1] * 4
    assert [revision_of(line) for line in lines] == [EXTENDS, *REVISIONS]
    for number in range(len(lines)):
        assert line_length(b"".join(lines[: number + 1])[-TRAILER:]) == len(lines[number])


def test_a_huge_line_is_read_back() -> None:
    line = step_line(REVISIONS[0], None, [_record("a", "x" * 20_000_000)])
    assert line_length(line) == len(line)
    assert revision_of(line) == REVISIONS[0]
    tail = _parsed(first_line(EXTENDS) + line)
    assert len(tail.steps[0].records[0].text) > 20_000_000


@pytest.mark.parametrize("filling", [b"", b"\0"], ids=["cut", "zeros"])
def test_a_last_line_that_is_torn_at_any_byte_is_left_out(filling: bytes) -> None:
    lines = _lines()
    whole = b"".join(lines[:-1])
    for length in range(len(lines[-1])):
        torn = lines[-1][:length].ljust(len(lines[-1]), filling) if filling else lines[-1][:length]
        tail = _parsed(whole + torn)
        assert (tail.revision, tail.size, len(tail.steps)) == (REVISIONS[1], len(whole), 2), length
        if torn:
            assert revision_of(torn) is None, length


def test_a_last_line_with_a_hole_in_it_is_left_out() -> None:
    lines = _lines()
    whole = b"".join(lines[:-1])
    holed = lines[-1][:50] + bytes(len(lines[-1]) - 100) + lines[-1][-50:]
    assert _parsed(whole + holed).revision == REVISIONS[1]


def test_a_bit_that_flips_anywhere_is_noticed() -> None:
    lines = _lines()
    for place in range(len(lines[2])):
        for bit in (0, 1, 5, 7):
            flipped = bytearray(lines[2])
            flipped[place] ^= 1 << bit
            with pytest.raises((SessionCorruptError, ValueError)):
                parse(b"".join([*lines[:2], bytes(flipped), lines[3]]) + lines[3])
            assert revision_of(bytes(flipped)) is None


def test_an_empty_tail_and_one_torn_in_its_first_line_lead_nowhere() -> None:
    first = first_line(EXTENDS)
    assert parse(b"") is None
    for length in range(len(first)):
        assert parse(first[:length]) is None
    assert _parsed(first).steps == []
    assert _parsed(first).revision == EXTENDS


def test_a_damaged_first_line_is_noticed() -> None:
    lines = _lines()
    for place in range(len(lines[0])):
        flipped = bytearray(lines[0])
        flipped[place] ^= 1
        with pytest.raises((SessionCorruptError, ValueError)):
            parse(b"".join([bytes(flipped), *lines[1:]]))


async def _with_a_tail(directory: Path, count: int = 3) -> Path:
    async with FileSystemSessionStore(directory) as store:
        session = Session(ID, "agent")
        session.loops.append(LoopRecord("first", ID, "agent"))
        await store.save(session)
        for number in range(count):
            await store.append(ID, LoopRecord(f"loop-{number}", ID, "agent"))
    return directory / f"{ID}.json.log"


async def test_a_torn_tail_is_cut_by_the_next_append_and_the_rest_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tail = await _with_a_tail(tmp_path)
    good = tail.read_bytes()
    lines = good.splitlines(keepends=True)
    kept = b"".join(lines[:-1])
    async with FileSystemSessionStore(tmp_path) as store:
        for length in [*range(1, len(lines[-1]), 37), len(lines[-1]) - 1]:
            caplog.clear()
            torn = lines[-1][:length]
            tail.write_bytes(kept + torn)
            assert (await store.load(ID)).loops.ids() == ["first", "loop-0", "loop-1"]
            await store.append(ID, LoopRecord("next", ID, "agent"))
            assert (await store.load(ID)).loops.ids() == ["first", "loop-0", "loop-1", "next"]
            (aside,) = tmp_path.glob(f"{ID}.json.aside.*")
            assert aside.read_bytes() == torn
            assert [record.levelname for record in caplog.records] == ["WARNING"]
            aside.unlink()


@pytest.mark.parametrize("zeros", [1, 100, 5000])
async def test_zeros_behind_the_last_line_are_cut(tmp_path: Path, zeros: int) -> None:
    tail = await _with_a_tail(tmp_path)
    with tail.open("ab") as file:
        file.write(bytes(zeros))
    async with FileSystemSessionStore(tmp_path) as store:
        await store.append(ID, LoopRecord("next", ID, "agent"))
        expected = ["first", "loop-0", "loop-1", "loop-2", "next"]
        assert (await store.load(ID)).loops.ids() == expected
    (aside,) = tmp_path.glob(f"{ID}.json.aside.*")
    assert aside.read_bytes() == bytes(zeros)


@pytest.mark.parametrize("line", [0, 1, 2], ids=["first line", "first append", "second append"])
@pytest.mark.parametrize("place", [2, 30, -30, -15, -5, -1])
async def test_a_damaged_line_before_the_last_is_corruption(
    tmp_path: Path, line: int, place: int
) -> None:
    tail = await _with_a_tail(tmp_path, 5)
    lines = tail.read_bytes().splitlines(keepends=True)
    damaged = bytearray(lines[line])
    damaged[place] ^= 4
    tail.write_bytes(b"".join([*lines[:line], bytes(damaged), *lines[line + 1 :]]))
    before = tail.read_bytes()
    async with FileSystemSessionStore(tmp_path) as store:
        with pytest.raises(SessionCorruptError) as caught:
            await store.load(ID)
        assert caught.value.path == str(tail)
        assert tail.read_bytes() == before
        assert [str(finding.kind) for finding in await store.check()] == ["damaged"]


async def test_damage_to_the_break_between_the_last_two_lines_is_corruption(tmp_path: Path) -> None:
    tail = await _with_a_tail(tmp_path, 3)
    lines = tail.read_bytes().splitlines(keepends=True)
    tail.write_bytes(b"".join([*lines[:2], lines[2][:-1], b"\x0b", lines[3]]))
    async with FileSystemSessionStore(tmp_path) as store:
        with pytest.raises(SessionCorruptError):
            await store.load(ID)


@pytest.mark.parametrize(
    "garbage", [b"garbage", b"garbage\nand more\n", bytes(5000)], ids=["line", "lines", "zeros"]
)
async def test_a_tail_that_is_garbage_is_never_thrown_away(tmp_path: Path, garbage: bytes) -> None:
    tail = await _with_a_tail(tmp_path)
    async with FileSystemSessionStore(tmp_path) as store:
        await store.compact(ID)
        tail.write_bytes(garbage)
        assert await store.check() != []
        try:
            await store.append(ID, LoopRecord("next", ID, "agent"))
        except SessionCorruptError:
            assert tail.read_bytes() == garbage
        else:
            asides = [path.read_bytes() for path in tmp_path.glob(f"{ID}.json.aside.*")]
            assert asides == [garbage]


async def test_an_empty_tail_is_no_tail(tmp_path: Path) -> None:
    tail = await _with_a_tail(tmp_path)
    async with FileSystemSessionStore(tmp_path) as store:
        await store.compact(ID)
        tail.touch()
        assert (await store.load(ID)).loops.ids() == ["first", "loop-0", "loop-1", "loop-2"]
        await store.append(ID, LoopRecord("next", ID, "agent"))
        assert (await store.load(ID)).loops.ids()[-1] == "next"
        assert await store.check() == []


async def test_a_tail_that_was_torn_while_it_was_started_is_no_hindrance(tmp_path: Path) -> None:
    tail = await _with_a_tail(tmp_path, 1)
    whole = tail.read_bytes()
    async with FileSystemSessionStore(tmp_path) as store:
        for length in [*range(1, len(whole), 29), len(whole) - 1]:
            tail.write_bytes(whole[:length])
            assert (await store.load(ID)).loops.ids() == ["first"]
            await store.append(ID, LoopRecord("next", ID, "agent"))
            assert (await store.load(ID)).loops.ids() == ["first", "next"]
            os.unlink(tail)
