"""Processes that are killed in the middle of their work."""

from __future__ import annotations

import asyncio

from ...errors import SessionError
from ...model import LoopRecord, Session
from ...promise import Promise
from ...store import SessionStore
from .. import samples
from ..check import check
from ..children import Child, Line, Work, children
from ..claims import broken, must, must_equal
from ..elsewhere import together
from ..trial import OpenStore, Trial, opened

_KEPT = {Promise.RESTART}


def _version(name: str, agent: str, n: int) -> Session:
    """Return a session all of whose parts say `n`, and that is longer or shorter each time."""
    session = samples.a_session(name, agent, loops=1 + n % 7, metadata={"n": n})
    for loop in session.loops:
        loop.metadata = n
        loop.messages.append({"role": "user", "content": f"{n}" * 2_000})
    return session


def _appended(name: str, n: int) -> LoopRecord:
    return samples.a_loop(name, n, text=f"{n}" * 1_000)


async def _save_for_ever(line: Line, open_store: OpenStore, name: str, agent: str) -> None:
    async with await opened(open_store) as store:
        await line.ready()
        n = 0
        while True:
            session = _version(name, agent, n)
            await store.save(session)
            line.say((n, session.revision))
            n += 1


async def _append_for_ever(line: Line, open_store: OpenStore, name: str, agent: str) -> None:
    async with await opened(open_store) as store:
        await store.save(Session(name, agent))
        await line.ready()
        n = 0
        while True:
            line.say((n, await store.append(name, _appended(name, n))))
            n += 1


async def _killed(trial: Trial, work: Work) -> list[tuple[str, int]]:
    """Kill writers in the middle of their work; return the last that each had acknowledged."""
    await trial.store.aclose()
    names = trial.new_ids(trial.scale.kills, "killed")
    at_once = 1 if Promise.PROCESSES in trial.store.lacks else len(names)
    found: list[tuple[str, int]] = []
    for start in range(0, len(names), at_once):
        each = names[start : start + at_once]
        async with children(trial, work, [(name, trial.agent) for name in each]) as started:
            for child in started:
                child.go()
            last = await together(*(_kill_one(trial, child) for child in started))
        found += zip(each, last, strict=True)
    return found


async def _kill_one(trial: Trial, child: Child) -> int:
    last = -1
    for _ in range(trial.chance.randrange(3, 30)):
        last, _ = await child.said()
    await asyncio.sleep(trial.chance.uniform(0, 0.004))  # at any moment of what it does next
    unheard = await child.killed()
    return unheard[-1][0] if unheard else last


async def _load(trial: Trial, store: SessionStore, name: str) -> Session:
    try:
        async with trial.promptly("a load after a writer was killed"):
            return await store.load(name)
    except SessionError as error:
        broken(f"a session whose writer was killed does not load: {error!r}")


@check(needs=_KEPT, processes=True)
async def a_killed_saver_leaves_what_it_had_acknowledged(trial: Trial) -> None:
    """A session whose saver is killed is whole, and is its last acknowledged save, or the next."""
    killed = await _killed(trial, _save_for_ever)
    store = await trial.reopen()
    for name, last in killed:
        session = await _load(trial, store, name)
        n = session.metadata["n"]
        must(n in (last, last + 1), f"save {last} was acknowledged, and {n} is stored")
        parts = [loop.metadata for loop in session.loops]
        must_equal(parts, [n] * (1 + n % 7), f"the loops of save {n}")
        texts = [loop.messages for loop in session.loops]
        expected = [loop.messages for loop in _version(name, trial.agent, n).loops]
        must_equal(texts, expected, f"the messages of save {n}")
        await _goes_on(trial, store, session)


@check(needs=_KEPT, processes=True)
async def a_killed_appender_leaves_all_that_it_had_acknowledged(trial: Trial) -> None:
    """A session whose appender is killed holds every acknowledged loop, in order, none by half."""
    killed = await _killed(trial, _append_for_ever)
    store = await trial.reopen()
    for name, last in killed:
        session = await _load(trial, store, name)
        numbers = [loop.metadata["number"] for loop in session.loops]
        must_equal(numbers, list(range(len(numbers))), "the loops, in order")
        must(
            len(numbers) in (last + 1, last + 2),
            f"{last + 1} loops were acknowledged, and {len(numbers)} are stored",
        )
        for n, loop in enumerate(session.loops):
            must_equal(loop.messages, _appended(name, n).messages, f"the messages of loop {n}")
        await _goes_on(trial, store, session)


async def _goes_on(trial: Trial, store: SessionStore, session: Session) -> None:
    """Say that whoever comes after the killed one can write at once."""
    async with trial.promptly("a save and an append after a writer was killed"):
        session.metadata["after"] = True
        await store.save(session)
        await store.append(session, samples.a_loop(session.session_id, 10_000))
    must_equal(await store.load(session.session_id), session, "what is stored")
