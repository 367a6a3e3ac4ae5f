"""Listings while others save, append and delete."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from .. import samples
from ..check import check
from ..claims import must, must_equal
from ..elsewhere import together
from ..trial import Trial


@asynccontextmanager
async def _churn(trial: Trial) -> AsyncGenerator[tuple[set[str], set[str]]]:
    """Save some sessions over and over, let others come and go; give the ids of both kinds."""
    stay = trial.new_ids(trial.scale.sessions, "stay")
    go = trial.new_ids(3, "go")
    for name in stay:
        await trial.store.save(trial.a_session(name))
    done = False

    async def change(mine: list[str]) -> None:
        while not done:
            for n, name in enumerate(mine):
                if n % 2:
                    await trial.store.save(trial.a_session(name))
                else:
                    await trial.store.append(name, samples.a_loop(name, 1))
                await asyncio.sleep(0)  # a store may answer without giving others their turn

    async def come_and_go(name: str) -> None:
        while not done:
            await trial.store.save(trial.a_session(name))
            await asyncio.sleep(0)
            await trial.store.delete(name)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(change(stay[::2]))
        group.create_task(change(stay[1::2]))
        for name in go:
            group.create_task(come_and_go(name))
        try:
            yield set(stay), set(go)
        finally:
            done = True


async def _must_list_each_once(
    trial: Trial, listing: Callable[[], Awaitable[list[str]]], what: str
) -> None:
    async with _churn(trial) as (stay, go):
        for _ in range(trial.scale.rounds * 2):
            listed = [name for name in await listing() if name in stay | go]
            twice = {name for name in listed if listed.count(name) > 1}
            must_equal(twice, set[str](), f"sessions that {what} has twice")
            missed = stay.difference(listed)
            must(not missed, f"{what} missed {len(missed)} of {len(stay)} sessions: {missed}")
            await asyncio.sleep(0)


@check()
async def list_ids_has_each_session_once_while_others_write(trial: Trial) -> None:
    """A session that is there all the time is in `list_ids` once, whatever happens meanwhile."""
    await _must_list_each_once(trial, trial.store.list_ids, "list_ids")


@check()
async def infos_have_each_session_once_while_others_write(trial: Trial) -> None:
    """A session that is there all the time has one card, of all and of an agent's."""

    async def of_all() -> list[str]:
        return [info.session_id async for info in trial.store.infos()]

    async def of_the_agent() -> list[str]:
        return [info.session_id async for info in trial.store.infos(agent_id=trial.agent)]

    await _must_list_each_once(trial, of_all, "infos")
    await _must_list_each_once(trial, of_the_agent, "an agent's infos")


@check()
async def list_for_agent_has_each_session_once_while_others_write(trial: Trial) -> None:
    """A session that is there all the time is an agent's once; those that vanish are left out."""

    async def of_the_agent() -> list[str]:
        found = await trial.store.list_for_agent(trial.agent)
        return [session.session_id for session in found]

    await _must_list_each_once(trial, of_the_agent, "list_for_agent")


@check()
async def a_session_that_moves_up_while_cards_are_read_has_one_card(trial: Trial) -> None:
    """What is saved between two cards of a long listing is neither left out nor listed twice."""
    names = trial.new_ids(trial.scale.sessions * 10)
    await together(*(trial.store.save(trial.a_session(name, loops=0)) for name in names))
    for agent in (trial.agent, None):
        order = await trial.listed()
        listed: list[str] = []
        async for info in trial.store.infos(agent_id=agent):
            listed.append(info.session_id)
            if len(listed) == 1:
                for name in (*order[-3:], order[1], order[len(order) // 2]):
                    await trial.store.append(name, samples.a_loop(name, 1))
        mine = [name for name in listed if name in set(names)]
        must_equal(len(mine), len(set(mine)), "the number of different sessions among the cards")
        missed = set(names).difference(mine)
        must(not missed, f"{len(missed)} of {len(names)} sessions have no card: {missed}")
