"""`check` finds what a crash or another program left, and mends it without losing anything."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from crash_mounts import tmpfs
from crash_sessions import in_flight
from crash_tails import TORN, loop

from phi_sessions import (
    Expect,
    FileSystemSessionStore,
    Session,
    SessionIOError,
    SessionLockedError,
    load_session,
)
from phi_sessions.stores.filesystem import Finding

Told = set[tuple[str, str | None, str, bool]]


def _told(findings: list[Finding]) -> Told:
    """Return kind, session, file and whether it was mended."""
    return {(str(f.kind), f.session_id, os.path.basename(f.path), f.mended) for f in findings}


async def _session(store: FileSystemSessionStore, session_id: str, appends: int = 0) -> None:
    await store.save(Session(session_id, "agent"))
    for number in range(appends):
        await store.append(session_id, loop(f"loop-{number}", session_id=session_id))


async def _clean_but_for_what_is_aside(store: FileSystemSessionStore) -> list[bytes]:
    """Make sure that nothing else is left to be mended; return what the files set aside hold."""
    findings = await store.check(repair=True)
    assert {str(finding.kind) for finding in findings} <= {"set aside"}
    assert {finding.path for finding in findings} == {str(p) for p in store.dir.glob("*.aside.*")}
    assert not any(finding.mended for finding in findings)
    return sorted(Path(finding.path).read_bytes() for finding in findings)


async def _sound(store: FileSystemSessionStore) -> list[str]:
    await _session(store, "sound", 2)
    return (await store.load("sound")).loops.ids()


async def test_a_sound_directory_is_sound(file_store: FileSystemSessionStore) -> None:
    assert await file_store.check() == []
    assert not file_store.dir.exists()
    await _session(file_store, "a")
    await _session(file_store, "b", 3)
    await _session(file_store, "c", 1)
    await file_store.compact("b")
    await file_store.append("b", loop("more", session_id="b"))
    await file_store.delete("c")
    async with file_store.lease("a"):
        assert await file_store.check() == []
    assert await file_store.check(repair=True) == []


async def test_a_save_that_takes_anything_over_a_tail_leaves_a_sound_directory(
    file_store: FileSystemSessionStore, caplog: pytest.LogCaptureFixture
) -> None:
    await _session(file_store, "a", 2)
    await file_store.save(Session("a", "agent"), expect=Expect.ANYTHING)
    assert (await file_store.load("a")).loops.ids() == []
    assert await file_store.check() == []
    assert caplog.records == []


async def test_leftovers_are_found_and_removed(file_store: FileSystemSessionStore) -> None:
    sound = await _sound(file_store)
    left = [f"{name}.json.tmp.1.{n}" for name in ("sound", "deleted") for n in range(2)]
    for name in left:
        (file_store.dir / name).write_text("{")
    expected = {("leftover", name.partition(".")[0], name) for name in left}
    assert _told(await file_store.check()) == {(*found, False) for found in expected}
    assert sorted(in_flight(file_store.dir)) == sorted(left)
    assert _told(await file_store.check(repair=True)) == {(*found, True) for found in expected}
    assert in_flight(file_store.dir) == []
    assert await file_store.check() == []
    assert (await file_store.load("sound")).loops.ids() == sound


async def test_a_torn_tail_is_found_and_cut(file_store: FileSystemSessionStore) -> None:
    sound = await _sound(file_store)
    tail = file_store.dir / "sound.json.log"
    whole = tail.read_bytes()
    tail.write_bytes(whole + TORN)
    expected = ("torn tail", "sound", "sound.json.log")
    assert _told(await file_store.check()) == {(*expected, False)}
    assert tail.read_bytes() == whole + TORN
    assert _told(await file_store.check(repair=True)) == {(*expected, True)}
    assert tail.read_bytes() == whole
    assert await _clean_but_for_what_is_aside(file_store) == [TORN]
    assert (await file_store.load("sound")).loops.ids() == sound


@pytest.mark.parametrize("how", ["rewritten", "gone"])
async def test_an_orphan_tail_is_found_and_set_aside(
    file_store: FileSystemSessionStore, how: str
) -> None:
    sound = await _sound(file_store)
    await _session(file_store, "o", 2)
    path, tail = file_store.dir / "o.json", file_store.dir / "o.json.log"
    acknowledged = tail.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_text(path.read_text().replace("\n", " "))
    expected = ("orphan tail", "o", "o.json.log")
    assert _told(await file_store.check()) == {(*expected, False)}
    assert tail.read_bytes() == acknowledged
    assert _told(await file_store.check(repair=True)) == {(*expected, True)}
    assert await _clean_but_for_what_is_aside(file_store) == [acknowledged]
    assert await file_store.exists("o") is (how == "rewritten")
    assert (await file_store.load("sound")).loops.ids() == sound


@pytest.mark.parametrize("appends", [0, 2], ids=["without a tail", "with a tail"])
@pytest.mark.parametrize("damage", ["cut", "empty", "another's"])
async def test_a_damaged_file_is_found_and_moved_aside(
    file_store: FileSystemSessionStore, damage: str, appends: int
) -> None:
    sound = await _sound(file_store)
    await _session(file_store, "d", appends)
    path, tail = file_store.dir / "d.json", file_store.dir / "d.json.log"
    data = path.read_bytes()
    damaged = {
        "cut": data[:-7],
        "empty": b"",
        "another's": data.replace(b'"d"', b'"e"', 1),
    }[damage]
    path.write_bytes(damaged)
    kept = [damaged, *([tail.read_bytes()] if appends else [])]
    expected = ("damaged", "d", "d.json")
    assert _told(await file_store.check()) == {(*expected, False)}
    assert path.read_bytes() == damaged
    assert (*expected, True) in _told(await file_store.check(repair=True))
    assert not path.exists()
    assert await _clean_but_for_what_is_aside(file_store) == sorted(kept)
    await _session(file_store, "d", 1)
    assert (await file_store.load("d")).loops.ids() == ["loop-0"]
    assert (await file_store.load("sound")).loops.ids() == sound


async def test_a_damaged_tail_is_found_and_moved_aside(file_store: FileSystemSessionStore) -> None:
    await _session(file_store, "d", 3)
    tail = file_store.dir / "d.json.log"
    damaged = tail.read_bytes().replace(b'"loop-1"', b'"loop-7"', 1)
    tail.write_bytes(damaged)
    expected = ("damaged", "d", "d.json.log")
    assert _told(await file_store.check()) == {(*expected, False)}
    assert _told(await file_store.check(repair=True)) == {(*expected, True)}
    assert await _clean_but_for_what_is_aside(file_store) == [damaged]
    await file_store.load("d")


async def test_all_that_is_wrong_with_one_session_is_told(
    file_store: FileSystemSessionStore,
) -> None:
    await _session(file_store, "d")
    (file_store.dir / "d.json").write_text("{")
    (file_store.dir / "d.json.tmp.1.1").write_text("{")
    for repair in (False, True):
        assert _told(await file_store.check(repair=repair)) == {
            ("damaged", "d", "d.json", repair),
            ("leftover", "d", "d.json.tmp.1.1", repair),
        }
    assert in_flight(file_store.dir) == []


@pytest.mark.parametrize("kind", ["directory", "link"])
async def test_what_is_no_file_does_not_keep_check_from_the_others(
    file_store: FileSystemSessionStore, kind: str
) -> None:
    await _session(file_store, "d")
    (file_store.dir / "d.json").write_text("{")
    strange = file_store.dir / "strange.json"
    if kind == "directory":
        strange.mkdir()
    else:
        strange.symlink_to(file_store.dir / "nowhere")
    findings = _told(await file_store.check(repair=True))
    assert ("damaged", "d", "d.json", True) in findings


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    """Hold a session's lock with the program `flock`, as another process that saves does."""
    holder = subprocess.Popen(
        ["flock", "--exclusive", str(lock), "sh", "-c", "echo held; read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield
    finally:
        holder.communicate(timeout=30)


async def test_what_a_living_writer_has_in_flight_is_left_alone(tmp_path: Path) -> None:
    async with FileSystemSessionStore(tmp_path, lock_timeout=0.2) as store:
        await _session(store, "living")
        (tmp_path / "living.json.tmp.1.1").write_text("{")
        with _held(tmp_path / "living.json.lock"):
            with pytest.raises(SessionLockedError):
                await store.check(repair=True)
            assert in_flight(tmp_path) == ["living.json.tmp.1.1"]
        await store.check(repair=True)
        assert in_flight(tmp_path) == []


async def test_what_a_session_with_such_a_name_has_in_flight_is_left_alone(tmp_path: Path) -> None:
    named = "s.json.tmp.1.2"
    async with FileSystemSessionStore(tmp_path, lock_timeout=0.2) as store:
        for session_id in ("s", named):
            await _session(store, session_id)
        for name in ("s.json.tmp.3.4", f"{named}.json.tmp.5.6"):
            (tmp_path / name).write_text("{")
        with _held(tmp_path / f"{named}.json.lock"):
            with pytest.raises(SessionLockedError):
                await store.check(repair=True)
            assert not (tmp_path / "s.json.tmp.3.4").exists()
            assert (tmp_path / f"{named}.json.tmp.5.6").exists()
        assert _told(await store.check()) == {("leftover", named, f"{named}.json.tmp.5.6", False)}


async def test_what_cannot_be_mended_is_not_told_as_mended(
    file_store: FileSystemSessionStore,
) -> None:
    await _session(file_store, "s")
    (file_store.dir / "s.json.tmp.1.2" / "inside").mkdir(parents=True)
    [finding] = await file_store.check(repair=True)
    assert (os.path.basename(finding.path), finding.mended) == ("s.json.tmp.1.2", False)
    assert in_flight(file_store.dir) == ["s.json.tmp.1.2"]


async def test_a_read_only_disk_is_looked_over_and_not_repaired(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "size=1m") as place:
        async with FileSystemSessionStore(place) as store:
            for session_id in ("sound", "torn", "damaged", "orphan"):
                await _session(store, session_id, 2)
            with (place / "torn.json.log").open("ab") as tail:
                tail.write(TORN)
            (place / "damaged.json").write_text("{")
            (place / "orphan.json").unlink()
            (place / "sound.json.tmp.1.2").write_text("{")
            subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True, timeout=30)
            assert _told(await store.check()) == {
                ("leftover", "sound", "sound.json.tmp.1.2", False),
                ("torn tail", "torn", "torn.json.log", False),
                ("damaged", "damaged", "damaged.json", False),
                ("orphan tail", "orphan", "orphan.json.log", False),
            }
            with pytest.raises(SessionIOError) as caught:
                await store.check(repair=True)
            assert caught.value.errno == errno.EROFS


async def test_files_of_others_are_no_business_of_check(file_store: FileSystemSessionStore) -> None:
    await _session(file_store, "a")
    names = ["notes.txt", "a.json.bak", "a.json.tmp.x", "a.log", "~.json.log", "a.json.aside.x"]
    for name in names:
        (file_store.dir / name).write_text("{")
    assert await file_store.check(repair=True) == []
    assert {*names} <= set(os.listdir(file_store.dir))
    assert load_session("a", file_store.dir).session_id == "a"
