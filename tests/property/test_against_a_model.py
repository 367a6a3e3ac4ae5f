"""Any calls in any order leave what a plain model of a store says."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import scaled
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from phi_sessions import (
    Expect,
    Expectation,
    FileSystemSessionStore,
    LoopRecord,
    MemorySessionStore,
    Revision,
    Session,
    SessionConflictError,
    SessionExistsError,
    SessionNotFoundError,
    SessionStore,
)
from phi_sessions.stores.filesystem import directory

IDS = ("a", "b")
HOLDERS = 3
Loop = tuple[str, str, int]
"""A loop of the model: its id, the text that it holds, and how often that is repeated."""


class Step(NamedTuple):
    """One call: what, on which session, by which holder, with what."""

    what: str
    session_id: str
    holder: int
    loops: list[Loop]
    choice: int


class Content(NamedTuple):
    """All of a session that the calls here change."""

    loops: tuple[Loop, ...] = ()
    note: int = 0


class Holder(NamedTuple):
    """A session object, and what the model says that is in it."""

    session: Session
    content: Content


CALLS = (
    "build", "load", "load", "add", "add", "add", "edit", "note", "remove", "turn round",
    "save", "save", "save", "save", "save expecting", "append", "append", "append", "append object",
    "append object", "update", "update", "return another", "delete", "compact", "open again",
)  # fmt: skip

loops_drawn = st.tuples(
    st.sampled_from([f"loop-{n}" for n in range(6)]),
    st.text(max_size=3),
    st.sampled_from([1, 1, 50, 2_000, 30_000]),
)
steps = st.builds(
    Step,
    st.sampled_from(CALLS),
    st.sampled_from(IDS),
    st.integers(0, HOLDERS - 1),
    st.lists(loops_drawn, max_size=3),
    st.integers(0, 7),
)


@pytest.mark.parametrize(
    ("backend", "small", "indent"),
    [
        pytest.param("memory", 0, None, id="memory"),
        pytest.param("file", directory._SMALL, None, id="file"),
        pytest.param("file", 0, None, id="file, saves to tails"),
        pytest.param("file", 3_000, None, id="file, saves to some tails"),
        pytest.param("file", 0, 2, id="file, indented"),
    ],
)
@settings(
    max_examples=scaled(25),
    deadline=None,
    phases=[Phase.generate],  # what is found takes minutes to shrink: add Phase.shrink to see it
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(calls=st.lists(st.lists(steps, max_size=12), min_size=1, max_size=12))
def test_any_calls_in_any_order_leave_what_a_model_says(
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    small: int,
    indent: int | None,
    calls: list[list[Step]],  # in two layers, because long plain lists are seldom drawn
) -> None:
    monkeypatch.setattr(directory, "_SMALL", small)
    with tempfile.TemporaryDirectory() as path:

        def open_store() -> SessionStore:
            if backend == "memory":
                return MemorySessionStore()
            return FileSystemSessionStore(Path(path), fsync=False, indent=indent, workers=1)

        flat = [step for some in calls for step in some]
        asyncio.run(_compare(open_store(), flat, open_store if backend == "file" else None))


async def _compare(store: SessionStore, calls: list[Step], open_again: Any) -> None:
    model = _Model(store)
    for session_id in IDS:
        model.holders[session_id, 0] = _built(session_id, Content())
    try:
        for step in calls:
            if step.what == "open again":
                if open_again is not None:
                    await model.store.aclose()
                    model.store = open_again()
            else:
                await model.take(step)
            await model.agree(step)
        if isinstance(model.store, FileSystemSessionStore):
            assert await model.store.check() == []
    finally:
        await model.store.aclose()


class _Model:
    def __init__(self, store: SessionStore) -> None:
        self.store = store
        self.stored: dict[str, tuple[Content, Revision]] = {}
        self.holders: dict[tuple[str, int], Holder] = {}

    async def take(self, step: Step) -> None:
        """Do one step to the store and to the model, and see that both answer alike."""
        key = (step.session_id, step.holder)
        match step.what:
            case "build":
                self.holders[key] = _built(step.session_id, Content(tuple(_put((), step.loops))))
            case "load":
                await self._load(key)
            case "add" | "edit" | "note" | "remove" | "turn round":
                if key in self.holders:
                    self.holders[key] = _changed(self.holders[key], step)
            case "save" | "save expecting":
                await self._save(key, step)
            case "append":
                await self._append(step)
            case "append object":
                await self._append_object(key, step)
            case "update" | "return another":
                await self._update(step)
            case "delete":
                await self._delete(key, step)
            case "compact" if isinstance(self.store, FileSystemSessionStore):
                if step.session_id in self.stored:
                    await self.store.compact(step.session_id)
                else:
                    with pytest.raises(SessionNotFoundError):
                        await self.store.compact(step.session_id)
            case _:
                pass

    async def agree(self, step: Step) -> None:
        """See that the store holds what the model holds, all of it."""
        for session_id in IDS:
            if session_id not in self.stored:
                assert await self.store.find(session_id) is None, step
                continue
            content, revision = self.stored[session_id]
            session = await self.store.load(session_id)
            assert _content(session) == content, step
            assert session.revision == revision, step
        assert set(await self.store.list_ids()) == set(self.stored)
        cards = {info.session_id: info async for info in self.store.infos()}
        assert cards.keys() == self.stored.keys()
        for session_id, card in cards.items():
            content, revision = self.stored[session_id]
            assert (card.revision, card.metadata) == (revision, {"note": content.note}), step
        for holder in self.holders.values():
            assert _content(holder.session) == holder.content, step

    async def _load(self, key: tuple[str, int]) -> None:
        if key[0] not in self.stored:
            with pytest.raises(SessionNotFoundError):
                await self.store.load(key[0])
        else:
            session = await self.store.load(key[0])
            self.holders[key] = Holder(session, self.stored[key[0]][0])

    async def _save(self, key: tuple[str, int], step: Step) -> None:
        if key not in self.holders:
            return
        session, content = self.holders[key]
        expect: Expectation = Expect.UNCHANGED
        if step.what == "save expecting":
            expect = (Expect.ANYTHING, Expect.ABSENT)[step.choice % 2]
        wrong = self._refusal(key[0], expect, session.revision)
        before = session.revision
        if wrong is not None:
            with pytest.raises(wrong):
                await self.store.save(session, expect=expect)
            assert session.revision == before
        else:
            self._keep(key[0], content, await self.store.save(session, expect=expect))
            assert session.revision == self.stored[key[0]][1]

    async def _append(self, step: Step) -> None:
        loops = [_record(loop, step.session_id) for loop in step.loops]
        if step.session_id not in self.stored:
            with pytest.raises(SessionNotFoundError):
                await self.store.append(step.session_id, *loops)
        else:
            content, _ = self.stored[step.session_id]
            content = content._replace(loops=_put(content.loops, step.loops))
            self._keep(step.session_id, content, await self.store.append(step.session_id, *loops))

    async def _append_object(self, key: tuple[str, int], step: Step) -> None:
        if key not in self.holders:
            return
        session, content = self.holders[key]
        before = session.revision
        loops = [_record(loop, step.session_id) for loop in step.loops]
        expect = Expect.ABSENT if before is None else Expect.UNCHANGED
        wrong = self._refusal(key[0], expect, before)
        if wrong is not None:
            with pytest.raises(wrong):
                await self.store.append(session, *loops)
            assert session.revision == before
            return
        revision = await self.store.append(session, *loops)
        held = content._replace(loops=_put(content.loops, step.loops))
        self.holders[key] = Holder(session, held)
        if before is None:
            self._keep(key[0], held, revision)
        else:
            there, _ = self.stored[key[0]]
            self._keep(key[0], there._replace(loops=_put(there.loops, step.loops)), revision)
        assert session.revision == revision

    async def _update(self, step: Step) -> None:
        note = step.choice + 100

        def change(session: Session) -> Session | None:
            if step.what == "return another":
                return _built(step.session_id, Content(tuple(_put((), step.loops)), note)).session
            session.metadata["note"] = note
            for loop in step.loops:
                place = {name: n for n, name in enumerate(session.loops.ids())}.get(loop[0])
                record = _record(loop, step.session_id)
                if place is None:
                    session.loops.append(record)
                else:
                    session.loops[place] = record
            return None

        create = None
        if step.choice % 2:

            def create() -> Session:
                return _built(step.session_id, Content()).session

        if step.session_id not in self.stored and create is None:
            with pytest.raises(SessionNotFoundError):
                await self.store.update(step.session_id, change)
            return
        content, _ = self.stored.get(step.session_id, (Content(), None))
        before = () if step.what == "return another" else content.loops
        updated = await self.store.update(step.session_id, change, create=create)
        assert updated.revision is not None
        self._keep(step.session_id, Content(_put(before, step.loops), note), updated.revision)

    async def _delete(self, key: tuple[str, int], step: Step) -> None:
        expect: Expectation = Expect.ANYTHING
        if step.choice % 2 and key in self.holders:
            expect = self.holders[key].session.revision or Expect.ANYTHING
        if key[0] not in self.stored:
            with pytest.raises(SessionNotFoundError):
                await self.store.delete(key[0], expect=expect)
        elif expect not in (Expect.ANYTHING, self.stored[key[0]][1]):
            with pytest.raises(SessionConflictError):
                await self.store.delete(key[0], expect=expect)
        else:
            await self.store.delete(key[0], expect=expect)
            del self.stored[key[0]]

    def _refusal(
        self, session_id: str, expect: Expectation, held: Revision | None
    ) -> type[Exception] | None:
        found = self.stored[session_id][1] if session_id in self.stored else None
        if expect is Expect.ABSENT:
            return None if found is None else SessionExistsError
        if expect is Expect.UNCHANGED and held is not None and held != found:
            return SessionConflictError
        return None

    def _keep(self, session_id: str, content: Content, revision: Revision) -> None:
        self.stored[session_id] = content, revision


def _put(loops: tuple[Loop, ...] | list[Loop], news: list[Loop]) -> tuple[Loop, ...]:
    result = list(loops)
    for loop in news:
        places = [n for n, other in enumerate(result) if other[0] == loop[0]]
        if places:
            result[places[-1]] = loop
        else:
            result.append(loop)
    return tuple(result)


def _record(loop: Loop, session_id: str) -> LoopRecord:
    loop_id, text, times = loop
    message = {"role": "user", "content": text * times}
    return LoopRecord(loop_id, session_id, "agent", messages=[message], metadata=[text, times])


def _loop(record: LoopRecord) -> Loop:
    text, times = record.metadata
    assert record.messages == [{"role": "user", "content": text * times}]
    return record.loop_id, text, times


def _content(session: Session) -> Content:
    return Content(tuple(_loop(record) for record in session.loops), session.metadata["note"])


def _built(session_id: str, content: Content) -> Holder:
    loops = [_record(loop, session_id) for loop in content.loops]
    session = Session(session_id, "agent", loops=loops, metadata={"note": content.note})
    return Holder(session, content)


def _changed(holder: Holder, step: Step) -> Holder:
    """Change a held session, not what is stored; ids may come to be there twice."""
    session, (loops, note) = holder
    news = list(loops)
    place = step.choice % len(news) if news else None
    if step.what == "add":
        session.loops.extend(_record(loop, step.session_id) for loop in step.loops)
        news.extend(step.loops)
    elif step.what == "note":
        session.metadata["note"] = note = step.choice
    elif step.what == "turn round":
        session.loops = list(reversed(session.loops))
        news.reverse()
    elif place is not None and step.what == "remove":
        del session.loops[place]
        del news[place]
    elif place is not None and step.what == "edit":
        loop_id, _, times = news[place]
        record = session.loops[place]
        record.metadata = ["new", times]
        record.messages[0]["content"] = "new" * times
        news[place] = (loop_id, "new", times)
    return Holder(session, Content(tuple(news), note))
