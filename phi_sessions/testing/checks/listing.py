"""Listings: in which order, of what, and how many."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from ...errors import SessionConflictError
from ...timestamp import Timestamp
from .. import samples
from ..check import check
from ..claims import must, must_be_the_same, must_equal, must_raise
from ..trial import Trial


async def _cards(trial: Trial, **wanted: Any) -> list[str]:
    return [info.session_id async for info in trial.store.infos(**wanted)]


async def _must_be_listed(trial: Trial, expected: list[str], when: str) -> None:
    """Say that all ways to list the check's own sessions give this order."""
    must_equal(await trial.listed(), expected, f"list_ids {when}")
    mine = set(expected)
    cards = [each for each in await _cards(trial) if each in mine]
    must_equal(cards, expected, f"infos {when}")
    must_equal(await _cards(trial, agent_id=trial.agent), expected, f"an agent's infos {when}")
    found = await trial.store.list_for_agent(trial.agent)
    must_equal([each.session_id for each in found], expected, f"list_for_agent {when}")


@check()
async def the_most_recently_saved_is_listed_first(trial: Trial) -> None:
    """Every listing begins with the session that was saved last, whatever its name or its times."""
    a, b, c = sorted(trial.new_ids(3))
    for name in (b, c, a):
        await trial.store.save(trial.a_session(name))
    await _must_be_listed(trial, [a, c, b], "after three saves")
    await trial.store.save(await trial.store.load(b))
    await _must_be_listed(trial, [b, a, c], "after one was saved again")
    await trial.store.load(c)
    await _must_be_listed(trial, [b, a, c], "after one was loaded")
    await trial.store.delete(a)
    await trial.store.save(trial.a_session(a))
    await _must_be_listed(trial, [a, b, c], "after one was made anew")


@check()
async def the_most_recently_appended_to_is_listed_first(trial: Trial) -> None:
    """An append moves a session to the front of every listing, as a save does."""
    a, b, c = trial.new_ids(3)
    for name in (a, b, c):
        await trial.store.save(trial.a_session(name))
    await trial.clock_moves()
    await trial.store.append(a, samples.a_loop(a, 1))
    await _must_be_listed(trial, [a, c, b], "after an append by id")
    await trial.clock_moves()
    await trial.store.append(await trial.store.load(b), samples.a_loop(b, 1))
    await _must_be_listed(trial, [b, a, c], "after an append by object")
    await trial.store.update(c, lambda session: session.metadata.update(n=1))
    await _must_be_listed(trial, [c, b, a], "after an update")


@check()
async def many_saves_in_a_row_keep_their_order(trial: Trial) -> None:
    """Sessions that are saved in quick succession are listed in that order, newest first."""
    names = trial.new_ids(trial.scale.sessions * 3)
    for name in names:
        await trial.store.save(trial.a_session(name, loops=0))
    await _must_be_listed(trial, names[::-1], "after many saves")


@check()
async def a_refused_save_does_not_move_a_session(trial: Trial) -> None:
    """What was refused leaves the order of the listings as it was."""
    session, other = trial.a_session(), trial.a_session()
    old = await trial.store.save(session)
    await trial.store.save(session)
    await trial.store.save(other)
    with must_raise(SessionConflictError, "a save that expects the old revision"):
        await trial.store.save(session, expect=old)
    expected = [other.session_id, session.session_id]
    await _must_be_listed(trial, expected, "after a refused save")


@check()
async def a_card_tells_what_the_session_tells(trial: Trial) -> None:
    """A card has the session's ids, times to the nanosecond, metadata and revision."""
    session = trial.a_session(
        loops=4,
        created_at=Timestamp.parse("2024-02-29T12:34:56.123456789Z"),
        last_active_at=Timestamp.parse("2024-03-01T00:00:00.000000001Z"),
        metadata={"title": "a \U0001f600", "nested": {"list": [1, 2.5, None, samples.LARGEST]}},
    )
    for step in ("a save", "an append", "another save"):
        if step == "an append":
            await trial.store.append(session, samples.a_loop(session.session_id, 9))
        else:
            session.metadata["step"] = step
            await trial.store.save(session)
        info = await trial.card()
        told = (info.session_id, info.agent_id, info.revision)
        expected = (session.session_id, session.agent_id, session.revision)
        must_equal(told, expected, f"what the card tells after {step}")
        times = (str(info.created_at), str(info.last_active_at))
        expected_times = (str(session.created_at), str(session.last_active_at))
        must_equal(times, expected_times, f"the times on the card after {step}")
        must_be_the_same(info.metadata, session.metadata, f"the card's metadata after {step}")
        must(info.size is None or info.size > 0, f"the card's size after {step} is {info.size}")


@check()
async def a_cards_metadata_is_the_callers_own(trial: Trial) -> None:
    """Changing what a card holds changes nothing that is stored, and no other card."""
    await trial.store.save(trial.a_session(metadata={"tags": ["a"]}))
    for _ in range(3):
        info = await trial.card()
        must_equal(info.metadata, {"tags": ["a"]}, "the card's metadata")
        info.metadata["tags"].append("b")


@check()
async def saved_at_is_when_it_was_saved(trial: Trial) -> None:
    """Where cards tell when a session was saved, a later save or append has no earlier time."""
    session, last = trial.a_session(), None
    for n in range(6):
        if n % 2:
            await trial.store.append(session, samples.a_loop(session.session_id, n))
        else:
            await trial.store.save(session)
        info = await trial.card()
        if info.saved_at is None:
            trial.skip("the store's cards do not tell when a session was saved")
        must(last is None or info.saved_at >= last, f"{info.saved_at} comes after {last}")
        last = info.saved_at


@check()
async def a_limit_gives_the_newest(trial: Trial) -> None:
    """`limit` bounds how many cards there are: the first of those that are asked for."""
    names = trial.new_ids(trial.scale.sessions)
    rare = trial.new_agent("rare")
    for n, name in enumerate(names):
        await trial.store.save(trial.a_session(name, rare if n % 10 == 0 else trial.agent, loops=0))
    for agent in (trial.agent, rare):
        all_of_it = await _cards(trial, agent_id=agent)
        expected = [name for n, name in enumerate(names) if (agent == rare) == (n % 10 == 0)]
        must_equal(all_of_it, expected[::-1], "an agent's cards without a limit")
        for limit in (0, 1, 2, len(all_of_it) - 1, len(all_of_it), len(all_of_it) + 1, 1000):
            found = await _cards(trial, agent_id=agent, limit=limit)
            must_equal(found, all_of_it[:limit], f"an agent's cards with limit={limit}")
    must_equal(len(await _cards(trial, limit=3)), 3, "the number of cards with limit=3")
    must_equal(await _cards(trial, limit=0), [], "the cards with limit=0")


@check()
async def active_after_is_exact(trial: Trial) -> None:
    """`active_after` excludes the moment itself, to the nanosecond, and takes any zone."""
    names = trial.new_ids(4)
    for n, name in enumerate(names):
        moment = Timestamp.parse(f"2024-01-01T00:00:00.00000000{n}Z")
        await trial.store.save(trial.a_session(name, last_active_at=moment))
    midnight = datetime(2024, 1, 1, tzinfo=UTC)
    for after, expected in (
        (Timestamp.parse("2024-01-01T00:00:00.000000001Z"), [names[3], names[2]]),
        (Timestamp.parse("2024-01-01T02:00:00.000000001+02:00"), [names[3], names[2]]),
        (midnight, [names[3], names[2], names[1]]),
        (midnight.astimezone(timezone(-timedelta(hours=5))), [names[3], names[2], names[1]]),
        (midnight + timedelta(microseconds=1), []),
        (datetime(1, 1, 1, tzinfo=UTC), names[::-1]),
        (datetime(9999, 1, 1, tzinfo=UTC), []),
    ):
        found = await _cards(trial, agent_id=trial.agent, active_after=after)
        must_equal(found, expected, f"the cards active after {after}")
        found = await _cards(trial, agent_id=trial.agent, active_after=after, limit=1)
        must_equal(found, expected[:1], f"the first card active after {after}")
        mine = [each for each in await _cards(trial, active_after=after) if each in names]
        must_equal(mine, expected, f"all agents' cards active after {after}")


@check()
async def a_mistaken_filter_is_an_error(trial: Trial) -> None:
    """A time without a zone and a negative limit are a `ValueError`, not an empty listing."""
    await trial.store.save(trial.a_session())
    with must_raise(ValueError, "a time without a zone"):
        await _cards(trial, active_after=datetime(2024, 1, 1))  # noqa: DTZ001 - the point
    with must_raise(ValueError, "a negative limit"):
        await _cards(trial, limit=-1)


@check()
async def whoever_has_seen_enough_may_stop(trial: Trial) -> None:
    """Listings that are left in the middle, closed or just dropped, leave nothing held."""
    names = trial.new_ids(trial.scale.sessions)
    for name in names:
        await trial.store.save(trial.a_session(name, loops=0))
    async with trial.promptly("going on after listings that were left in the middle"):
        for n in range(60):
            cards: Any = trial.store.infos(agent_id=trial.agent)
            async for info in cards:
                must_equal(info.session_id, names[-1], "the first card")
                break
            if n % 2:
                await cards.aclose()
                must_equal([info async for info in cards], [], "the cards after closing")
            del cards  # dropped ones are closed by the event loop as it goes round
            await asyncio.sleep(0)
        never_begun: Any = trial.store.infos()
        await never_begun.aclose()
        await trial.store.save(trial.a_session(names[0]))
        must_equal((await trial.listed())[:1], names[:1], "the session that was saved last")


@check()
async def listings_side_by_side_do_not_disturb_each_other(trial: Trial) -> None:
    """Listings that are read in turns give all cards each, and a reader may append meanwhile."""
    names = trial.new_ids(trial.scale.sessions)
    for name in names:
        await trial.store.save(trial.a_session(name, loops=0))
    one: Any = trial.store.infos(agent_id=trial.agent)
    two: Any = trial.store.infos(agent_id=trial.agent)
    seen = [(a.session_id, (await anext(two)).session_id) async for a in one]
    must_equal(seen, [(name, name) for name in names[::-1]], "the cards of both")
    must_equal([info async for info in two], [], "what is left of the second")
    listed: list[str] = []
    async for info in trial.store.infos(agent_id=trial.agent):
        listed.append(info.session_id)
        await trial.store.append(info.session_id, samples.a_loop(info.session_id, 1))
    must_equal(sorted(listed), sorted(names), "the cards while what was listed was appended to")
