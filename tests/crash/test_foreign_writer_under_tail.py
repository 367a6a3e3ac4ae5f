"""A program that knows no tails may rewrite or remove a session file under one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from crash_sessions import ID
from crash_tails import loop, set_aside

from phi_sessions import (
    Expect,
    FileSystemSessionStore,
    Session,
    SessionConflictError,
    SessionNotFoundError,
    load_session,
)

FIRST = ["first-0", "first-1"]
APPENDED = ["then-0", "then-1"]


async def _with_a_tail(store: FileSystemSessionStore) -> Session:
    session = Session(ID, "agent")
    session.loops += [loop(loop_id) for loop_id in FIRST]
    await store.save(session)
    for loop_id in APPENDED:
        await store.append(ID, loop(loop_id))
    return await store.load(ID)


def _path(store: FileSystemSessionStore) -> Path:
    return store.dir / f"{ID}.json"


def _tail(store: FileSystemSessionStore) -> Path:
    return store.dir / f"{ID}.json.log"


def _write(path: Path, data: bytes) -> None:
    """Write as phi-core does: another file, renamed."""
    temporary = path.with_name(f"{path.name}.tmp.{os.getpid()}.1")
    temporary.write_bytes(data)
    temporary.replace(path)


def _as_phi_core(path: Path, *, add: str = "") -> bytes:
    """Return what phi-core would write that read a session file: it knows neither revisions."""
    value = json.loads(path.read_bytes())
    value.pop("revision")
    value.pop("supersedes", None)
    if add:
        value["loops"].append({**value["loops"][-1], "loop_id": add})
    return json.dumps(value, indent=2).encode()


def rewrites(path: Path) -> list[str]:
    _write(path, _as_phi_core(path))
    return FIRST


def adds(path: Path) -> list[str]:
    _write(path, _as_phi_core(path, add="foreign"))
    return [*FIRST, "foreign"]


def rewrites_in_place(path: Path) -> list[str]:
    path.write_bytes(_as_phi_core(path))
    return FIRST


def recreates(path: Path) -> list[str]:
    data = _as_phi_core(path, add="foreign")
    path.unlink()
    _write(path, data)
    return [*FIRST, "foreign"]


Foreign = Callable[[Path], list[str]]
each_foreign = pytest.mark.parametrize(
    "foreign", [rewrites, adds, rewrites_in_place, recreates], ids=lambda f: f.__name__
)


@each_foreign
async def test_a_rewritten_session_is_what_counts_and_the_tail_is_reported(
    file_store: FileSystemSessionStore, foreign: Foreign, caplog: pytest.LogCaptureFixture
) -> None:
    await _with_a_tail(file_store)
    expected = foreign(_path(file_store))
    assert (await file_store.load(ID)).loops.ids() == expected
    assert str(_tail(file_store)) in caplog.text
    findings = await file_store.check()
    assert [(str(f.kind), f.path, f.session_id) for f in findings] == [
        ("orphan tail", str(_tail(file_store)), ID)
    ]


@each_foreign
@pytest.mark.parametrize("change", ["append", "save", "delete", "compact", "append to object"])
async def test_the_next_change_sets_the_tail_aside_and_brings_nothing_back(
    file_store: FileSystemSessionStore,
    foreign: Foreign,
    change: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await _with_a_tail(file_store)
    acknowledged = _tail(file_store).read_bytes()
    expected = foreign(_path(file_store))
    session = await file_store.load(ID)
    caplog.clear()
    match change:
        case "append":
            await file_store.append(ID, loop("next"))
        case "append to object":
            await file_store.append(session, loop("next"))
        case "save":
            session.loops.append(loop("next"))
            await file_store.save(session)
        case "delete":
            await file_store.delete(ID)
            await file_store.save(Session(ID, "agent"), expect=Expect.ABSENT)
            await file_store.append(ID, loop("next"))
            expected = []
        case _:
            await file_store.compact(ID)
            await file_store.append(ID, loop("next"))
    assert set_aside(file_store.dir) == [acknowledged]
    assert "is kept as" in caplog.text
    assert (await file_store.load(ID)).loops.ids() == [*expected, "next"]
    await file_store.append(ID, loop("last"))
    assert (await file_store.load(ID)).loops.ids() == [*expected, "next", "last"]
    assert {str(finding.kind) for finding in await file_store.check()} == {"set aside"}


@each_foreign
async def test_a_holder_from_before_is_refused(
    file_store: FileSystemSessionStore, foreign: Foreign
) -> None:
    session = await _with_a_tail(file_store)
    expected = foreign(_path(file_store))
    with pytest.raises(SessionConflictError):
        await file_store.save(session)
    with pytest.raises(SessionConflictError):
        await file_store.append(session, loop("next"))
    assert load_session(ID, file_store.dir).loops.ids() == expected


async def test_a_removed_session_is_gone_and_its_tail_is_kept(
    file_store: FileSystemSessionStore, caplog: pytest.LogCaptureFixture
) -> None:
    await _with_a_tail(file_store)
    acknowledged = _tail(file_store).read_bytes()
    _path(file_store).unlink()
    assert not await file_store.exists(ID)
    assert await file_store.list_ids() == []
    with pytest.raises(SessionNotFoundError):
        await file_store.load(ID)
    with pytest.raises(SessionNotFoundError):
        await file_store.append(ID, loop("next"))
    with pytest.raises(SessionNotFoundError):
        await file_store.delete(ID)
    assert [str(finding.kind) for finding in await file_store.check()] == ["orphan tail"]
    assert _tail(file_store).read_bytes() == acknowledged
    await file_store.save(Session(ID, "agent"), expect=Expect.ABSENT)
    assert (await file_store.load(ID)).loops.ids() == []
    assert set_aside(file_store.dir) == [acknowledged]
    assert "is kept as" in caplog.text
    await file_store.append(ID, loop("next"))
    assert (await file_store.load(ID)).loops.ids() == ["next"]


async def test_the_same_bytes_restored_have_their_tail_again(
    file_store: FileSystemSessionStore, caplog: pytest.LogCaptureFixture
) -> None:
    session = await _with_a_tail(file_store)
    data = _path(file_store).read_bytes()
    _path(file_store).unlink()
    _write(_path(file_store), data)
    assert (await file_store.load(ID)).loops.ids() == [*FIRST, *APPENDED]
    assert await file_store.check() == []
    session.loops.append(loop("next"))
    await file_store.save(session)
    await file_store.append(ID, loop("last"))
    assert (await file_store.load(ID)).loops.ids() == [*FIRST, *APPENDED, "next", "last"]
    assert caplog.records == []


@pytest.mark.parametrize("since", ["compact", "save", "append and compact", "delete and save"])
async def test_an_older_session_file_restored_brings_no_later_tail_with_it(
    file_store: FileSystemSessionStore, since: str
) -> None:
    session = await _with_a_tail(file_store)
    old = _path(file_store).read_bytes()
    match since:
        case "compact":
            await file_store.compact(ID)
        case "save":
            await file_store.save(session)
        case "append and compact":
            await file_store.append(ID, loop("more"))
            await file_store.compact(ID)
        case _:
            await file_store.delete(ID)
            await file_store.save(Session(ID, "agent"))
    await file_store.append(ID, loop("later"))
    acknowledged = _tail(file_store).read_bytes()
    _write(_path(file_store), old)
    assert (await file_store.load(ID)).loops.ids() == FIRST
    await file_store.append(ID, loop("next"))
    assert (await file_store.load(ID)).loops.ids() == [*FIRST, "next"]
    assert set_aside(file_store.dir) == [acknowledged]


async def test_a_tail_beside_phi_cores_file_is_never_begun(
    file_store: FileSystemSessionStore,
) -> None:
    await _with_a_tail(file_store)
    await file_store.compact(ID)
    rewrites(_path(file_store))
    await file_store.append(ID, loop("next"))
    assert not _tail(file_store).exists()
    value = json.loads(_path(file_store).read_bytes())
    assert [record["loop_id"] for record in value["loops"]] == [*FIRST, *APPENDED, "next"]
