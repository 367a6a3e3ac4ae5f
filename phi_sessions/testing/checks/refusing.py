"""What could not be read again is refused before anything is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from ...errors import SessionEncodeError
from ...model import LoopRecord, Session
from .. import samples
from ..check import check
from ..claims import must, must_be_the_same, must_equal, must_raise
from ..trial import Trial
from .round_trips import nested

_BAD_VALUES: Final[Mapping[str, Any]] = {
    "NaN": float("nan"),
    "infinity": float("inf"),
    "minus infinity": [{"deep": [float("-inf")]}],
    "a lone surrogate": "a\ud800b",
    "a lone surrogate in a key": {"\udfff": 1},
    "an integer beyond 64 bits": 2**64,
    "a negative integer beyond 64 bits": -(2**63) - 1,
    "JSON that is nested too deeply": nested(127),
    "an object that is not JSON": object(),
}


def _refuses(session: Session, held: object, loops: int) -> None:
    """Say that an object that was refused has its old revision and loops."""
    must_equal(session.revision, held, "the revision of the object that was refused")
    must_equal(len(session.loops), loops, "the number of its loops")


@check()
async def a_session_that_cannot_be_read_again_is_refused(trial: Trial) -> None:
    """NaN, surrogates, what is too deep, too large or not JSON is refused; nothing has changed."""
    stored = trial.a_session(metadata={"kept": 1})
    await trial.store.save(stored)
    before, order = await trial.states(), await trial.listed()

    def in_metadata(session: Session, value: Any) -> None:
        session.metadata["bad"] = value

    def in_a_loop(session: Session, value: Any) -> None:
        session.loops[0].metadata = {"bad": value}

    def in_a_message(session: Session, value: Any) -> None:
        session.loops[0].messages.append({"role": "user", "content": value})

    places: list[Callable[[Session, Any], None]] = [in_metadata, in_a_loop, in_a_message]
    for name, value in _BAD_VALUES.items():
        for spoil in places:
            what = f"a save of {name} {spoil.__name__.replace('_', ' ')}"
            holder = await trial.store.load(stored.session_id)
            fresh = samples.a_session("kit-never-stored", trial.agent)
            for session in (holder, fresh):
                held = session.revision
                spoil(session, value)
                with must_raise(SessionEncodeError, what) as refusal:
                    await trial.store.save(session)
                must_equal(refusal.error.session_id, session.session_id, "the error's session_id")
                _refuses(session, held, 1)
            must(not await trial.store.exists(fresh.session_id), f"{what} stored something")
    must_equal(await trial.states(), before, "what is stored")
    must_equal(await trial.listed(), order, "the listed ids")


@check()
async def fields_of_a_wrong_kind_are_refused(trial: Trial) -> None:
    """A number out of its field's range, or a value of the wrong type, is refused."""
    session = trial.a_session()
    await trial.store.save(session)
    before = await trial.states()
    loop = cast("Any", session.loops[0])
    wrong: list[tuple[str, Any]] = [
        ("usage", "much"),
        ("started_at", "yesterday"),
        ("loop_id", 7),
        ("messages", "none"),
        ("turns", [None]),
    ]
    for name, value in wrong:
        right = getattr(loop, name)
        setattr(loop, name, value)
        with must_raise(SessionEncodeError, f"a save with a wrong {name}"):
            await trial.store.save(session)
        setattr(loop, name, right)
    session.loops[0].usage.input = -1
    with must_raise(SessionEncodeError, "a save with a negative number of tokens"):
        await trial.store.save(session)
    session.loops[0].usage.input = 0
    session.agent_id = cast("Any", None)
    with must_raise(SessionEncodeError, "a save without an agent"):
        await trial.store.save(session)
    must_equal(await trial.states(), before, "what is stored")
    session.agent_id = trial.agent
    await trial.store.save(session)


@check()
async def a_loop_that_cannot_be_read_again_is_not_appended(trial: Trial) -> None:
    """An append of several loops, one of them not JSON, by id or object, stores none of them."""
    session = trial.a_session()
    await trial.store.save(session)
    name, held = session.session_id, session.revision
    before = await trial.states()

    def loops(value: Any) -> list[LoopRecord]:
        bad = samples.a_loop(name, 2)
        bad.metadata = {"bad": value}
        return [samples.a_loop(name, 1), bad, samples.a_loop(name, 3)]

    for what, value in _BAD_VALUES.items():
        for target in (name, session):
            with must_raise(SessionEncodeError, f"an append of {what}"):
                await trial.store.append(target, *loops(value))
            _refuses(session, held, 1)
    never_stored = samples.a_session("kit-never-stored", trial.agent)
    with must_raise(SessionEncodeError, "an append to a session built by hand"):
        await trial.store.append(never_stored, *loops(float("nan")))
    _refuses(never_stored, None, 1)
    must_equal(await trial.states(), before, "what is stored")
    await trial.store.append(session, samples.a_loop(name, 1))


@check()
async def after_a_refusal_the_object_can_be_saved(trial: Trial) -> None:
    """Once what was wrong is put right, the same object is saved."""
    session = trial.a_session(metadata={"x": float("nan")})
    with must_raise(SessionEncodeError, "a save of NaN"):
        await trial.store.save(session)
    session.metadata["x"] = 1.0
    await trial.store.save(session)
    stored = await trial.store.load(session.session_id)
    must_be_the_same(samples.plain(stored), samples.plain(session), "what is stored")
