"""Files that are no sessions: each is called damaged, and none is touched."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import scaled
from damaged_texts import AGENT, SOUND, cut, deep, for_session, framing, inside
from watched_tree import Entry, entry_of

from phi_sessions import (
    Expect,
    FileSystemSessionStore,
    LoopRecord,
    Revision,
    Session,
    SessionCorruptError,
    delete_session,
    load_session,
    load_sessions_for_agent,
    save_session,
)

HUGE_FILE = Path(__file__).parent / "huge_file.py"


class Damage:
    """A directory with a damaged session of each kind and a sound one."""

    def __init__(self, directory: Path, texts: dict[str, bytes]) -> None:
        self.directory = directory
        self.kinds = {f"s-{number}": kind for number, kind in enumerate(texts)}
        directory.mkdir()
        save_session(Session("sound", "sound agent", metadata={"n": 1}), directory)
        for session_id, kind in self.kinds.items():
            self.path(session_id).write_bytes(for_session(texts[kind], session_id))
        self.before = self.entries()

    def path(self, session_id: str) -> Path:
        return self.directory / f"{session_id}.json"

    def entries(self) -> dict[str, Entry]:
        return {self.kinds[i]: entry_of(self.path(i)) for i in self.kinds if self.path(i).exists()}

    async def outcomes(self, call: Callable[[str], Awaitable[object]]) -> dict[str, str]:
        """Return what `call` does to each damaged session, except for those where that is right."""

        async def one(session_id: str) -> str:
            try:
                await call(session_id)
            except SessionCorruptError as error:
                if error.path != str(self.path(session_id)) or not error.reason:
                    return f"told {error.path!r}, {error.reason!r}"
                return "right" if error.session_id == session_id else str(error.session_id)
            except Exception as error:
                return repr(error)[:200]
            return "passed over"

        found = await asyncio.gather(*map(one, self.kinds))
        return {
            kind: outcome
            for kind, outcome in zip(self.kinds.values(), found, strict=True)
            if outcome != "right"
        }

    def changed(self) -> list[str]:
        """Return which files are not as they were, to the byte and the inode."""
        after = self.entries()
        return [kind for kind, entry in self.before.items() if after.get(kind) != entry]


def _texts(layout: str, kind: str) -> dict[str, bytes]:
    text = SOUND[layout]
    made = {"framing": framing, "inside": inside, "deep": deep}.get(kind)
    found = made(text) if made else cut(text, scaled(20))
    for name, damaged in found.items():
        assert damaged != text, f"{name} is not damaged"
    return found


@pytest.fixture(params=["compact", "indented"])
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["framing", "inside", "cut"])
def damage(request: pytest.FixtureRequest, layout: str, tmp_path: Path) -> Damage:
    return Damage(tmp_path / "sessions", _texts(layout, request.param))


@pytest.fixture
def some_damage(layout: str, tmp_path: Path) -> Damage:
    """A few of each kind: a listing takes a second look at one after the other."""
    every = [item for kind in ("framing", "inside", "cut") for item in _texts(layout, kind).items()]
    return Damage(tmp_path / "sessions", dict(every[::8]))


@pytest.fixture
def deep_damage(layout: str, tmp_path: Path) -> Damage:
    return Damage(tmp_path / "sessions", _texts(layout, "deep"))


async def test_what_the_damaged_texts_are_made_from_is_sound(tmp_path: Path, layout: str) -> None:
    for text in (SOUND[layout], for_session(SOUND[layout], "the-session-itself")):
        (tmp_path / "the-session-itself.json").write_bytes(text)
        async with FileSystemSessionStore(tmp_path) as store:
            session = await store.load("the-session-itself")
            assert [loop.loop_id for loop in session.loops] == ["loop 0", "loop 1", "loop 2"]
            await store.save(session)
            assert (await store.load("the-session-itself")).revision == session.revision


async def test_a_load_calls_it_damaged_and_leaves_it(damage: Damage) -> None:
    async with FileSystemSessionStore(damage.directory) as store:

        async def look_at_all(session_id: str) -> None:
            list((await store.load(session_id)).loops)

        assert await damage.outcomes(look_at_all) == {}
        assert await damage.outcomes(store.load) == {}  # and not first when a loop is looked at
        assert await damage.outcomes(store.find) == {}
        assert (
            await damage.outcomes(lambda i: asyncio.to_thread(load_session, i, damage.directory))
            == {}
        )
        assert all([await store.exists(session_id) for session_id in damage.kinds])
        assert (await store.load("sound")).metadata == {"n": 1}
    assert damage.changed() == []


async def test_nesting_without_end_is_damage(deep_damage: Damage) -> None:
    async with FileSystemSessionStore(deep_damage.directory) as store:
        assert await deep_damage.outcomes(store.load) == {}
        assert (await store.load("sound")).metadata == {"n": 1}
    assert deep_damage.changed() == []


async def test_a_save_does_not_overwrite_nesting_without_end(deep_damage: Damage) -> None:
    async with FileSystemSessionStore(deep_damage.directory) as store:
        assert await deep_damage.outcomes(lambda i: store.save(Session(i, AGENT))) == {}
    assert deep_damage.changed() == []


async def test_a_save_of_a_session_built_by_hand_does_not_overwrite_it(damage: Damage) -> None:
    async with FileSystemSessionStore(damage.directory) as store:
        assert await damage.outcomes(lambda i: store.save(Session(i, AGENT))) == {}
    assert damage.changed() == []


async def test_the_synchronous_functions_do_not_overwrite_or_remove_it(damage: Damage) -> None:
    def save(session_id: str) -> None:
        save_session(Session(session_id, AGENT), damage.directory)

    assert await damage.outcomes(lambda i: asyncio.to_thread(save, i)) == {}
    assert (
        await damage.outcomes(lambda i: asyncio.to_thread(delete_session, i, damage.directory))
        == {}
    )
    assert damage.changed() == []


async def test_a_save_of_a_stale_session_does_not_overwrite_it(damage: Damage) -> None:
    async with FileSystemSessionStore(damage.directory) as store:
        stale = Revision("fedcba9876543210")
        with_errors = await damage.outcomes(lambda i: store.save(Session(i, AGENT, revision=stale)))
        # That its revision is another may be seen before that it is damaged.
        assert {
            o for o in with_errors.values() if not o.startswith("SessionConflictError")
        } == set()
    assert damage.changed() == []


async def test_only_the_holder_of_the_revision_in_the_file_puts_a_whole_session_in_its_place(
    damage: Damage,
) -> None:
    async with FileSystemSessionStore(damage.directory) as store:
        stale = Revision("fedcba9876543210")
        found = await damage.outcomes(lambda i: store.save(Session(i, AGENT, revision=stale)))
        assert {k: o for k, o in found.items() if not o.startswith("SessionConflictError")} == {}
        assert damage.changed() == []
        held = Revision("0123456789abcdef")
        found = await damage.outcomes(lambda i: store.save(Session(i, AGENT, revision=held)))
        assert {o for o in found.values() if not o.startswith("SessionConflictError")} <= {
            "passed over"
        }
        mended = {kind for kind, outcome in found.items() if outcome == "passed over"}
        assert mended == set(damage.changed())
        for session_id, kind in damage.kinds.items():
            if kind in mended:
                assert (await store.load(session_id)).loops == []


async def test_creating_a_session_does_not_overwrite_it(damage: Damage) -> None:
    async with FileSystemSessionStore(damage.directory) as store:
        found = await damage.outcomes(lambda i: store.save(Session(i, AGENT), expect=Expect.ABSENT))
        assert {o for o in found.values() if not o.startswith("SessionExistsError")} == set()
    assert damage.changed() == []


async def test_a_delete_does_not_remove_it(damage: Damage) -> None:
    async with FileSystemSessionStore(damage.directory) as store:
        assert await damage.outcomes(store.delete) == {}
    assert damage.changed() == []


async def test_a_save_that_expects_anything_replaces_it(damage: Damage) -> None:
    async with FileSystemSessionStore(damage.directory) as store:
        for session_id in damage.kinds:
            session = Session(session_id, AGENT, metadata={"new": True})
            await store.save(session, expect=Expect.ANYTHING)
            loaded = await store.load(session_id)
            assert (loaded.revision, loaded.metadata) == (session.revision, {"new": True})
            await store.delete(session_id)


async def test_other_sessions_go_on_beside_it(some_damage: Damage) -> None:
    damage = some_damage
    async with FileSystemSessionStore(damage.directory) as store:
        sound = await store.load("sound")
        await store.save(sound)
        assert sorted(await store.list_ids()) == sorted([*damage.kinds, "sound"])
        with pytest.raises(SessionCorruptError):
            [session async for session in store.infos()]
        skipping = [info.session_id async for info in store.infos(on_error="skip")]
        assert "sound" in skipping
        found = await store.list_for_agent("sound agent", on_error="skip")
        assert [session.session_id for session in found] == ["sound"]
        await store.delete("sound")
        await store.save(Session("sound", "sound agent"))
    assert damage.changed() == []


async def test_a_damaged_session_of_another_agent_does_not_disturb(
    tmp_path: Path, layout: str
) -> None:
    save_session(Session("sound", "mine"), tmp_path)
    text = SOUND[layout]
    for number, share in enumerate((0.6, 0.8, 0.95)):  # the agent can be read
        name = f"theirs-{number}"
        (tmp_path / f"{name}.json").write_bytes(for_session(text[: int(len(text) * share)], name))
    async with FileSystemSessionStore(tmp_path) as store:
        assert [s.session_id for s in await store.list_for_agent("mine")] == ["sound"]
        assert [i.session_id async for i in store.infos(agent_id="mine")] == ["sound"]
        assert [s.session_id for s in load_sessions_for_agent("mine", tmp_path)] == ["sound"]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.6, 0.95])
async def test_a_damaged_session_that_may_be_this_agents_is_not_dropped_in_silence(
    tmp_path: Path, layout: str, share: float
) -> None:
    save_session(Session("sound", AGENT), tmp_path)
    text = SOUND[layout]
    (tmp_path / "torn.json").write_bytes(for_session(text[: int(len(text) * share)], "torn"))
    async with FileSystemSessionStore(tmp_path) as store:
        with pytest.raises(SessionCorruptError) as caught:
            await store.list_for_agent(AGENT)
        assert caught.value.path == str(tmp_path / "torn.json")
        with pytest.raises(SessionCorruptError):
            load_sessions_for_agent(AGENT, tmp_path)
        skipping = await store.list_for_agent(AGENT, on_error="skip")
        assert [session.session_id for session in skipping] == ["sound"]

        # A card comes from the head alone; where the head is gone it is not left out either.
        for options in ({}, {"agent_id": AGENT}):
            cards: list[str] = []
            try:
                cards = [i.session_id async for i in store.infos(**options)]  # type: ignore[arg-type]
            except SessionCorruptError as error:
                cards = ["sound", error.session_id or ""]
            assert sorted(cards) == ["sound", "torn"]
            skipped = [i.session_id async for i in store.infos(**options, on_error="skip")]  # type: ignore[arg-type]
            assert "sound" in skipped


_STARTS = {
    "zeros": b"",
    "a session": for_session(SOUND["compact"], "huge"),
    "an indented session": for_session(SOUND["indented"], "huge"),
    "a head without an end": b'{"session_id":"huge","agent_id":"the-agent","metadata":{"a":"',
}


def seen_by_a_child(directory: Path) -> dict[str, Any]:
    """Call everything on "huge" in a child, which would rather run out of memory than the tests."""
    done = subprocess.run(
        [sys.executable, str(HUGE_FILE), str(directory), "huge"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("start", _STARTS.values(), ids=_STARTS.keys())
@pytest.mark.parametrize("size", [200 * 1024**2, 2**40], ids=["200 MB", "1 TB"])
def test_a_file_beyond_the_limit_is_called_damaged_without_being_read(
    tmp_path: Path, start: bytes, size: int
) -> None:
    path = tmp_path / "huge.json"
    path.write_bytes(start)
    os.truncate(path, size)
    result = seen_by_a_child(tmp_path)
    seen = result["seen"]
    calls = ["load", "save", "delete", "list_for_agent"]
    # What a listing shows may still be readable at the start of the file.
    calls += ["infos"] if seen["infos"][0] != "fine" or start != _STARTS["a session"] else []
    assert {name: seen[name][0] for name in calls} == dict.fromkeys(calls, "SessionCorruptError")
    for name in calls:
        _, reason, damaged, read = seen[name]
        assert f"{size:,}" in reason
        assert damaged == str(path)
        assert read < 1024**2, f"{name} read {read:,} bytes"
    assert seen["list_ids"] == ["huge", "other"]
    assert result["size"] == size
    assert seen["replaced by"] == "agent"


@pytest.mark.parametrize("size", [200 * 1024**2, 2**40], ids=["200 MB", "1 TB"])
async def test_a_tail_beyond_the_limit_is_called_damaged_without_being_read(
    tmp_path: Path, size: int
) -> None:
    async with FileSystemSessionStore(tmp_path) as store:
        await store.save(Session("huge", "the-agent"))
        await store.append("huge", LoopRecord("l", "huge", "the-agent"))
    tail = tmp_path / "huge.json.log"
    os.truncate(tail, size)
    result = seen_by_a_child(tmp_path)
    for name in ("load", "save", "delete", "list_for_agent", "infos"):
        kind, reason, damaged, read = result["seen"][name]
        assert kind == "SessionCorruptError"
        assert f"{size:,}" in reason
        assert damaged == str(tail)
        assert read < 1024**2, f"{name} read {read:,} bytes"
    assert result["seen"]["replaced by"] == "agent"
    [aside] = tmp_path.glob("*.aside.*")
    assert aside.stat().st_size == size


async def test_max_bytes_is_the_largest_file_that_is_read(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "the-session-itself.json"
    path.write_bytes(SOUND[layout])
    size = len(SOUND[layout])
    async with FileSystemSessionStore(tmp_path, max_bytes=size) as store:
        await store.load("the-session-itself")
    async with FileSystemSessionStore(tmp_path, max_bytes=size - 1) as store:
        for call in (store.load, store.delete):
            with pytest.raises(SessionCorruptError) as caught:
                await call("the-session-itself")
            assert f"{size - 1:,}" in caught.value.reason
        with pytest.raises(SessionCorruptError):
            await store.save(Session("the-session-itself", AGENT))
    assert path.read_bytes() == SOUND[layout]


async def test_large_numbers_that_json_can_hold_are_not_damage(tmp_path: Path, layout: str) -> None:
    text = SOUND[layout].replace(b"1234", b"18446744073709551615")
    text = text.replace(b'"to be replaced in a record"', b"[1e308, 5e-324, -9223372036854775808]")
    path = tmp_path / "the-session-itself.json"
    path.write_bytes(text)
    async with FileSystemSessionStore(tmp_path) as store:
        session = await store.load("the-session-itself")
        assert session.loops[0].usage.input == 2**64 - 1
        assert session.loops[0].metadata == {"spot": [1e308, 5e-324, -(2**63)]}
        await store.save(session)
    kept = msgspec.json.decode(path.read_bytes())["loops"][0]
    assert kept["usage"]["input"] == 2**64 - 1
    assert kept["metadata"] == {"spot": [1e308, 5e-324, -(2**63)]}
