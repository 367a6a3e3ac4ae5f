"""`copy_sessions` meets damage, refusals and targets that do not keep what they acknowledge."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from contract_samples import a_loop, a_session, content
from copy_stores import Refusing, filled

from phi_sessions import (
    CopySummary,
    Expect,
    Expectation,
    FileSystemSessionStore,
    MemorySessionStore,
    Revision,
    Session,
    SessionCorruptError,
    SessionEncodeError,
    SessionError,
    SessionIOError,
    SessionLockedError,
    SessionNotFoundError,
    SessionStore,
    SessionTaskError,
    Timestamp,
    copy_sessions,
)


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[FileSystemSessionStore]:
    """A file store in a directory of its own, whatever `store` is; closed afterwards."""
    async with FileSystemSessionStore(tmp_path / "files") as made:
        yield made


@pytest.fixture
async def memory() -> AsyncIterator[MemorySessionStore]:
    """A memory store; closed afterwards."""
    async with MemorySessionStore() as made:
        yield made


# What is damaged or refused -----------------------------------------------------------------------


DAMAGED = 2, 6


@pytest.fixture
async def damaged(files: FileSystemSessionStore) -> FileSystemSessionStore:
    """A store of twelve sessions; of one a loop record is damaged, of one the header."""
    await filled(files)
    with_record, with_header = (files.dir / f"%s%2F{n}.json" for n in DAMAGED)
    sound = with_record.read_bytes()
    with_record.write_bytes(sound.replace(b'"messages":[', b'"messages":7,"x":[', 1))
    with_header.write_bytes(b'{"session_id":7}')
    assert with_record.read_bytes() != sound
    return files


async def test_a_damaged_session_is_raised(
    damaged: FileSystemSessionStore, store: SessionStore
) -> None:
    for options in ({}, {"agent_id": "agent-0"}, {"where": lambda _: True}):
        async with MemorySessionStore() as target:
            with pytest.raises(SessionCorruptError):
                await copy_sessions(damaged, target, **options)  # type: ignore[arg-type]
    with pytest.raises(SessionCorruptError) as caught:
        await copy_sessions(damaged, store)
    assert caught.value.session_id in {"s/2", "s/6"}


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize(
    "filters",
    [
        {"agent_id": "agent-0"},
        {"where": lambda info: info.session_id in {"s/0", "s/4", "s/5"} and info.metadata["n"] < 5},
        {"active_after": datetime(2020, 1, 1, tzinfo=UTC), "agent_id": "agent-0"},
    ],
)
async def test_a_damaged_session_that_nobody_asked_for_is_no_hindrance(
    filters: Any, on_error: Any, damaged: FileSystemSessionStore, store: SessionStore
) -> None:
    asked = ["s/0", "s/4", "s/5"]
    summary = await copy_sessions(damaged, store, session_ids=asked, on_error=on_error, **filters)
    assert summary == CopySummary(copied=2)
    assert await store.list_ids() == ["s/4", "s/0"]


@pytest.mark.parametrize("filters", [{"agent_id": "agent-1"}, {"where": lambda _: False}])
async def test_a_damaged_session_that_was_asked_for_is_told_whatever_the_filter(
    filters: Any, damaged: FileSystemSessionStore, memory: MemorySessionStore
) -> None:
    asked = ["s/0", "s/6"]
    with pytest.raises(SessionCorruptError) as caught:
        await copy_sessions(damaged, memory, session_ids=asked, **filters)
    assert caught.value.session_id == "s/6"
    summary = await copy_sessions(damaged, memory, session_ids=asked, on_error="skip", **filters)
    assert (summary.copied, [each.session_id for each in summary.failures]) == (0, ["s/6"])


@pytest.mark.parametrize(
    ("filters", "copied"),
    [
        ({}, 10),
        ({"agent_id": "agent-0"}, 4),
        ({"where": lambda info: info.agent_id == "agent-0"}, 4),
        ({"active_after": datetime(2020, 1, 1, tzinfo=UTC)}, 10),
    ],
)
async def test_damaged_sessions_are_reported_and_the_others_copied(
    filters: Any, copied: int, damaged: FileSystemSessionStore, store: SessionStore
) -> None:
    summary = await copy_sessions(damaged, store, on_error="skip", **filters)
    failures = {failure.session_id: failure.error for failure in summary.failures}
    assert (summary.copied, summary.failed, len(await store.list_ids())) == (copied, 2, copied)
    assert failures.keys() == {"s/2", "s/6"}
    for session_id, error in failures.items():
        assert isinstance(error, SessionCorruptError)
        assert (error.session_id, bool(error.reason), error.__traceback__) == (
            session_id,
            True,
            None,
        )


async def test_a_damaged_session_in_the_target_is_not_replaced(
    damaged: FileSystemSessionStore, memory: MemorySessionStore
) -> None:
    await filled(memory)
    paths = [damaged.dir / f"%s%2F{n}.json" for n in DAMAGED]
    before = [path.read_bytes() for path in paths]
    with pytest.raises(SessionCorruptError):
        await copy_sessions(memory, damaged, on_conflict="replace")
    summary = await copy_sessions(memory, damaged, on_conflict="replace", on_error="skip")
    assert {failure.session_id for failure in summary.failures} == {"s/2", "s/6"}
    assert [path.read_bytes() for path in paths] == before


@pytest.mark.parametrize("kind", [SessionEncodeError, SessionLockedError])
async def test_a_session_that_the_target_refuses_is_reported(
    kind: type[SessionError], store: SessionStore
) -> None:
    ids = await filled(store)
    async with Refusing(kind("not this one", session_id="s/5")) as target:
        with pytest.raises(kind, match="not this one"):
            await copy_sessions(store, target)
        summary = await copy_sessions(store, target, on_error="skip")
        assert (summary.copied + summary.equal, summary.failed) == (11, 1)
        assert isinstance(summary.failures[0].error, kind)
        assert await target.list_ids() == [each for each in ids if each != "s/5"]


async def test_a_session_that_cannot_be_read_is_reported(store: SessionStore) -> None:
    class Unreadable(MemorySessionStore):
        async def find(self, session_id: str) -> Session | None:
            if session_id == "s/5":
                raise SessionIOError("permission denied", session_id=session_id, errno=13)
            return await super().find(session_id)

        async def exists(self, session_id: str) -> bool:
            return await super().find(session_id) is not None

    async with Unreadable() as source:
        await filled(source)
        with pytest.raises(SessionIOError, match="permission denied"):
            await copy_sessions(source, store)
        summary = await copy_sessions(source, store, on_error="skip")
        assert [failure.session_id for failure in summary.failures] == ["s/5"]
        assert len(await store.list_ids()) == 11


async def test_a_target_that_cannot_save_any_more_is_raised_in_any_case(
    store: SessionStore,
) -> None:
    await filled(store)
    error = SessionIOError("no space left", session_id="s/5", errno=28)
    async with Refusing(error) as target:
        with pytest.raises(SessionIOError, match="no space left"):
            await copy_sessions(store, target, on_error="skip")
        assert len(await target.list_ids()) == 5


async def test_a_store_that_does_not_answer_any_more_is_raised_in_any_case(
    store: SessionStore,
) -> None:
    class Dead(MemorySessionStore):
        async def find(self, session_id: str) -> Session | None:
            raise SessionIOError("connection refused", session_id=session_id, errno=111)

        exists = find  # type: ignore[assignment]

    await filled(store)
    async with Dead() as dead:
        with pytest.raises(SessionIOError, match="connection refused"):
            await copy_sessions(store, dead, on_error="skip")


async def test_a_closed_store_is_raised_in_any_case(
    store: SessionStore, memory: MemorySessionStore
) -> None:
    await filled(store)
    await memory.aclose()
    for source, target in ((store, memory), (memory, store)):
        with pytest.raises(SessionTaskError):
            await copy_sessions(source, target, on_error="skip")


# What was saved is looked at ----------------------------------------------------------------------


class Forgetful(MemorySessionStore):
    """A target that says that it saved, and has something else."""

    def __init__(self, loss: str) -> None:
        super().__init__()
        self.loss = loss

    async def save(self, session: Session, *, expect: Expectation = Expect.UNCHANGED) -> Revision:
        kept = copy.deepcopy(session)
        if self.loss == "everything":
            session.revision = Revision("1")
            return session.revision
        if self.loss == "a record":
            del kept.loops[-1]
        elif self.loss == "an order":
            kept.loops.reverse()
        elif self.loss == "a value":
            kept.loops[0].metadata = {"number": False}  # which Python finds equal to 0
        elif self.loss == "a number's kind":
            kept.metadata["n"] = 1.0
        elif self.loss == "a digit":
            kept.created_at = Timestamp.parse(str(kept.created_at)[:-2] + "Z")
        session.revision = await super().save(kept, expect=expect)
        return session.revision


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        ("everything", "gone"),
        ("a record", "it has 1 loop records, not 2"),
        ("an order", "loop record"),
        ("a value", "loop record"),
        ("a number's kind", "header"),
        ("a digit", "header"),
    ],
)
async def test_a_target_that_does_not_keep_what_it_acknowledged_is_found_out(
    loss: str, reason: str, store: SessionStore
) -> None:
    moment = Timestamp.parse("2024-02-29T12:34:56.123456789Z")
    await store.save(a_session(loops=2, created_at=moment, metadata={"n": 1}))
    async with Forgetful(loss) as target:
        with pytest.raises(SessionCorruptError, match=reason) as caught:
            await copy_sessions(store, target)
        assert caught.value.session_id == "s-1"
    async with Forgetful(loss) as target:
        summary = await copy_sessions(store, target, on_error="skip")
        assert (summary.copied, summary.failed) == (0, 1)
    async with Forgetful(loss) as target:
        assert (await copy_sessions(store, target, verify=False)).copied == 1


class Busy(MemorySessionStore):
    """A target in which somebody is at work on what was just saved."""

    def __init__(self, change: str) -> None:
        super().__init__()
        self.change = change

    async def save(self, session: Session, *, expect: Expectation = Expect.UNCHANGED) -> Revision:
        revision = await super().save(session, expect=expect)
        if self.change == "append":
            await self.append(session.session_id, a_loop("s-1", 9))
        elif self.change == "save":
            other = await self.load(session.session_id)
            other.metadata = {"n": 2}
            await super().save(other)
        else:
            await self.delete(session.session_id)
        return revision


@pytest.mark.parametrize("change", ["append", "save"])
async def test_a_copy_that_somebody_changes_before_it_is_read_back_is_no_damage(
    change: str, store: SessionStore
) -> None:
    await store.save(a_session(loops=2))
    async with Busy(change) as target:
        assert await copy_sessions(store, target) == CopySummary(copied=1)
        assert content(await target.load("s-1")) != content(await store.load("s-1"))


async def test_a_copy_that_is_gone_before_it_is_read_back_is_told(store: SessionStore) -> None:
    await store.save(a_session(loops=2))
    async with Busy("delete") as target:
        with pytest.raises(SessionCorruptError, match="gone"):
            await copy_sessions(store, target)


class Rewriting(SessionStore):
    """Four methods, which keep values and no texts: the JSON has an order of keys of its own."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    async def save(self, session: Session, *, expect: Expectation = Expect.UNCHANGED) -> Revision:
        async with MemorySessionStore() as encoder:
            await encoder.save(copy.deepcopy(content(session)))
            kept = encoder._kept[session.session_id].parcel
        texts = [kept.head, *(text for _, text in kept.records)]
        self.kept[session.session_id] = json.dumps([json.loads(t) for t in texts], sort_keys=True)
        session.revision = Revision(str(len(self.kept)))
        return session.revision

    async def load(self, session_id: str) -> Session:
        if session_id not in self.kept:
            raise SessionNotFoundError("not there", session_id=session_id)
        head, *records = json.loads(self.kept[session_id])
        session = await self._read({**head, "loops": records})
        session.revision = Revision("1")
        return session

    async def _read(self, document: dict[str, Any]) -> Session:
        path = Path(self.directory) / "s-1.json"
        path.write_text(json.dumps(document))
        async with FileSystemSessionStore(path.parent) as decoder:
            return await decoder.load("s-1")

    async def list_ids(self) -> list[str]:
        return list(reversed(self.kept))

    async def delete(self, session_id: str, *, expect: Expectation = Expect.ANYTHING) -> None:
        del self.kept[session_id]

    directory: Path


async def test_a_target_that_keeps_values_but_no_texts_is_held_to_the_values(
    store: SessionStore, tmp_path: Path
) -> None:
    await store.save(a_session(loops=2, metadata={"z": 1, "a": [1.0, {"y": 2**63, "b": "é"}]}))
    target = Rewriting()
    target.directory = tmp_path
    async with target:
        assert await copy_sessions(store, target) == CopySummary(copied=1)
        assert await copy_sessions(store, target) == CopySummary(equal=1)
        assert await copy_sessions(target, store) == CopySummary(equal=1)
