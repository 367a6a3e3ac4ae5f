"""What was saved comes back, and nothing is shared between the caller and the store."""

from __future__ import annotations

import string
from typing import Any

from ...loops import Loops
from ...model import Session
from ...timestamp import Timestamp
from .. import samples, texts
from ..check import check
from ..claims import must, must_be_the_same, must_equal
from ..elsewhere import together
from ..trial import Trial


async def _keeps(trial: Trial, session: Session, what: str) -> Session:
    """Save a session and load it, and save and load what was loaded, too."""
    saved = samples.plain(session)
    await trial.store.save(session)
    loaded = await trial.store.load(session.session_id)
    must_be_the_same(samples.plain(loaded), saved, what)
    loaded.loops = Loops(list(loaded.loops))  # its records are written anew
    await trial.store.save(loaded)
    again = await trial.store.load(session.session_id)
    must_be_the_same(samples.plain(again), saved, f"{what}, saved a second time,")
    return again


@check()
async def every_field_and_variant_comes_back(trial: Trial) -> None:
    """A session with every field and every variant of the model is loaded as it was saved."""
    for formation in range(3):
        session = samples.rich_session(trial.new_id(), trial.agent, formation=formation)
        loaded = await _keeps(trial, session, "a session with every field")
        session.revision = loaded.revision
        must_equal(loaded, session, "the loaded object")


@check()
async def what_phi_core_writes_comes_back(trial: Trial) -> None:
    """Sessions as phi-core writes them are loaded as they were saved."""
    ids = iter(trial.new_ids(len(texts.TEXTS)))
    for about, session in texts.sessions_of_texts(trial.agent, ids).items():
        await _keeps(trial, session, f"the text {about!r}")


@check()
async def unknown_keys_are_kept(trial: Trial) -> None:
    """Keys that this version does not know survive load and save, on every record."""
    session = samples.rich_session(trial.new_id(), trial.agent)
    await _keeps(trial, samples.with_unknown_keys(session), "a session with unknown keys")


@check()
async def times_keep_nine_digits(trial: Trial) -> None:
    """Time stamps come back with all their digits and their zone."""
    stamps = [
        "2024-02-29T12:34:56.123456789Z",
        "2024-03-01T00:00:00.000000001+02:00",
        "1969-12-31T23:59:59.999999999Z",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59.1Z",
    ]
    for stamp in stamps:
        session = trial.a_session(
            created_at=Timestamp.parse(stamp), last_active_at=Timestamp.parse(stamp)
        )
        session.loops[0].started_at = session.loops[0].turns[0].ended_at = Timestamp.parse(stamp)
        loaded = await _keeps(trial, session, f"a session of {stamp}")
        for found in (loaded.created_at, loaded.last_active_at, loaded.loops[0].started_at):
            must_equal(str(found), stamp, "a time")
            must_equal(found, Timestamp.parse(stamp), "a time")


@check()
async def numbers_keep_their_size_and_kind(trial: Trial) -> None:
    """Integers up to 64 bits without a sign and floats come back as they were."""
    integers = [0, -1, 2**53, 2**53 + 1, -(2**63), 2**63 - 1, 2**63, samples.LARGEST]
    floats = [0.0, -0.0, 1.0, -2.5, 1e16, 1e-7, 5e-324, 1.7976931348623157e308, 0.1, 1 / 3]
    numbers = {"integers": integers, "floats": floats, "mixed": [1, 1.0, True, "1", None]}
    session = trial.a_session(metadata=numbers)
    session.loops[0].metadata = numbers
    session.loops[0].messages.append({"role": "user", "content": [], "timestamp": integers[-1]})
    session.loops[0].usage.total_tokens = samples.LARGEST
    await _keeps(trial, session, "a session of numbers")


@check()
async def deeply_nested_json_is_kept(trial: Trial) -> None:
    """JSON comes back that is nested as deeply as a session may be: 127 levels in all."""
    session = trial.a_session(metadata={"deep": nested(125)})
    session.loops[0].metadata = nested(124)
    await _keeps(trial, session, "a deep session")


def nested(levels: int) -> Any:
    """Return so many lists and objects inside each other."""
    value: Any = "bottom"
    for level in range(levels):
        value = [value] if level % 2 else {"down": value}
    return value


@check()
async def any_text_is_kept(trial: Trial) -> None:
    """Text comes back to the character: control characters, any script, any form of Unicode."""
    strings = [
        "".join(map(chr, range(0x20))),
        "".join(map(chr, range(0x20, 0x100))),
        "\u2028\u2029\ufeff\ufffe\uffff\u200e\u202e",
        "e\u0301 \u00e9 A\u030a \u212b \ufb01",
        "\U0001f701\U0001f469\u200d\U0001f680\U0010ffff\U00010000",
        "\ue000\u0378",
        "",
        " \t\r\n ",
    ]
    session = trial.a_session(metadata={text: text for text in strings})
    session.loops[0].rejection = strings[0]
    session.loops[0].messages = [{"role": text, "content": text} for text in strings]
    session.loops += [samples.a_loop(session.session_id, text=text) for text in strings]
    for loop, text in zip(session.loops, ["first", *strings], strict=True):
        loop.loop_id = f"{text}."
    await _keeps(trial, session, "a session of odd texts")


@check()
async def a_session_without_loops_is_kept(trial: Trial) -> None:
    """A session that holds nothing yet is stored, listed and loaded."""
    session = Session(trial.new_id(), trial.agent)
    await _keeps(trial, session, "an empty session")
    must_equal(await trial.listed(), [session.session_id], "the listed ids")


@check()
async def a_large_session_is_kept(trial: Trial) -> None:
    """A session of about a megabyte in many records comes back whole."""
    letters = "".join(trial.chance.choices(string.printable, k=trial.scale.large // 100))
    session = trial.a_session(loops=0)
    name = session.session_id
    session.loops += [samples.a_loop(name, n, text=f"{letters}{n}") for n in range(50)]
    await _keeps(trial, session, "a large session")


@check()
async def one_large_record_is_kept(trial: Trial) -> None:
    """A single record of about a megabyte comes back whole."""
    text = "".join(trial.chance.choices(string.printable, k=1000)) * (trial.scale.large // 1000)
    session = trial.a_session()
    session.loops[0].messages.append({"role": "user", "content": text})
    await _keeps(trial, session, "a session with one large record")


@check()
async def a_save_replaces_all_of_what_was_there(trial: Trial) -> None:
    """Nothing of the session before is left after a save: no loops, no metadata, no agent."""
    name = trial.new_id()
    await trial.store.save(trial.a_session(name, loops=5, metadata={"old": True}))
    session = trial.a_session(name, trial.new_agent(), loops=1)
    await trial.store.save(session)
    loaded = await trial.store.load(name)
    must_be_the_same(samples.plain(loaded), samples.plain(session), "what was loaded")


@check()
async def a_loaded_session_can_be_changed_and_saved(trial: Trial) -> None:
    """Loops that were changed, removed, moved and added on a loaded session are saved so."""
    name = trial.new_id()
    await trial.store.save(trial.a_session(name, loops=5))
    for change in range(4):
        session = await trial.store.load(name)
        must_equal(len(session.loops), 5, "the number of loops")
        if change == 0:
            session.loops[1].metadata = {"looked at": True}
        elif change == 1:
            del session.loops[0]
            session.loops.append(samples.a_loop(name, 9))
        elif change == 2:
            session.loops.reverse()
            session.metadata["turned"] = True
        else:
            session.loops.clear()
        expected = samples.plain(session)
        await trial.store.save(session)
        loaded = await trial.store.load(name)
        must_be_the_same(samples.plain(loaded), expected, f"the session after change {change}")


@check()
async def save_returns_the_revision_that_load_finds(trial: Trial) -> None:
    """A save returns a new revision, puts it into the session, and a load finds the same."""
    session = trial.a_session()
    revisions: list[Any] = []
    for n in range(5):
        session.metadata["n"] = n // 2  # a save that changes nothing makes a new state, too
        revision = await trial.store.save(session)
        must_equal(session.revision, revision, "the revision of the saved object")
        loaded = await trial.store.load(session.session_id)
        must_equal(loaded.revision, revision, "the revision of the loaded object")
        revisions.append(revision)
    must_equal(len(set(revisions)), 5, "the number of different revisions")


@check()
async def each_load_gives_a_fresh_object(trial: Trial) -> None:
    """Changing a loaded session changes neither what is stored nor what others loaded."""
    saved = trial.a_session(metadata={"tags": ["a"]})
    await trial.store.save(saved)
    before = samples.plain(saved)
    first = await trial.store.load(saved.session_id)
    must_be_the_same(samples.plain(first), before, "what was loaded")
    second = await trial.store.load(saved.session_id)
    must(first is not second, "two loads gave one object")
    first.metadata["tags"].append("b")
    first.loops[0].messages.clear()
    first.loops.clear()
    third = await trial.store.load(saved.session_id)
    for found in (second, third, *await trial.store.list_for_agent(trial.agent)):
        must_be_the_same(samples.plain(found), before, "what somebody else loaded")


@check()
async def a_change_after_the_save_is_not_stored(trial: Trial) -> None:
    """Changing the saved object afterwards does not change what is stored."""
    session = trial.a_session(metadata={"tags": ["a"]})
    await trial.store.save(session)
    before = samples.plain(session)
    session.metadata["tags"].append("b")
    session.loops[0].messages[0]["content"] = "changed"
    session.loops.append(samples.a_loop(session.session_id, 1))
    loaded = await trial.store.load(session.session_id)
    must_be_the_same(samples.plain(loaded), before, "what is stored")


@check()
async def loads_change_nothing(trial: Trial) -> None:
    """Loading, at once and again and again, leaves the state and its revision as they were."""
    session = trial.a_session(loops=3)
    revision = await trial.store.save(session)
    found = await together(*(trial.store.load(session.session_id) for _ in range(20)))
    must_equal({each.revision for each in found}, {revision}, "the revisions")
    for each in found:
        must_be_the_same(samples.plain(each), samples.plain(session), "what was loaded")
