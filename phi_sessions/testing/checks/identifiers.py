"""Ids of any kind: taken and kept apart, or refused by every call."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final

from ...errors import InvalidSessionIdError
from ...lease import SupportsLease
from ...store import Expect, SessionStore
from .. import samples
from ..check import check
from ..claims import must, must_equal, must_raise
from ..trial import Trial

_NEVER: Final[tuple[Any, ...]] = ("", "\ud800", "ok\udfff", None, 7, b"bytes")

_HOSTILE: Final = (
    "../../etc/passwd",
    "/absolute",
    "..",
    ".",
    "./.",
    "~root",
    "~",
    "%2e%2e",
    "%",
    "CON",
    "nul.txt",
    "-rf",
    "--",
    "*",
    "?",
    "a[b]",
    "{tag}",
    "{}",
    "a:b",
    "a\\b",
    "a|b",
    "a\x00b",
    "\x00",
    "line\nbreak",
    "\r\n",
    "tab\t",
    "trailing.",
    "trailing ",
    " ",
    "s.json",
    "s.json.lock",
    "s.json.tmp.1.2",
    "\u202eevil",
    "e\u0301",
    "\u00e9",
    "Case",
    "case",
    "cASE",
    "\u0130stanbul",
    "stra\u00dfe",
    "strasse",
    "\u65e5\u672c\u8a9e",
    "\u0639\u0631\u0628\u064a",
    "\U0001f600",
    "\uffff",
    'quo"te\\back',
    "it's",
    "'; DROP TABLE sessions; --",
    "' OR '1'='1",
    "${HOME}",
    "$(id)",
    "%s%n",
    "_",
    "a_c",
    "abc",
    "a%c",
    "null",
    "0",
    "00",
    "1e0",
    "True",
    "someone@example.org",
    "x" * 200,
    "y" * 199,
    "\u00e9" * 33,
    "\U0001f600" * 16,
)


@check()
async def plain_ids_are_taken(trial: Trial) -> None:
    """Letters, digits, `_-@+=`, inner spaces and dots, up to 200 bytes: such an id is taken."""
    tag = trial.new_id()
    plain = [str(uuid.uuid4()), f"{tag}@example.org", f"{tag} a+b=c_d-e.f", f"{tag}größe日本語"]
    plain += [tag.ljust(200, "x"), tag.upper(), f"2024-01-01.{tag}"]
    for session_id in plain:
        await trial.store.save(trial.a_session(trial.use_id(session_id)))
    must_equal(await trial.listed(plain), plain[::-1], "the listed ids")


@check()
async def any_id_is_kept_apart_or_refused(trial: Trial) -> None:
    """A taken id comes back to the character and is nobody else's; a refused one is always."""
    store = trial.store
    ids = [each for each in _HOSTILE if await _is_free(store, each)]
    taken: dict[str, int] = {}
    for n, session_id in enumerate(ids):
        try:
            await store.save(trial.a_session(session_id, metadata={"n": n}), expect=Expect.ABSENT)
        except InvalidSessionIdError:
            await _must_refuse(store, session_id)
        else:
            taken[trial.use_id(session_id)] = n
    must(len(taken) > len(ids) // 2, f"only {len(taken)} of {len(ids)} odd ids are taken")
    newest_first = list(taken)[::-1]
    must_equal(await trial.listed(), newest_first, "the listed ids")
    cards = [info.session_id async for info in store.infos(agent_id=trial.agent)]
    must_equal(cards, newest_first, "the ids on the cards")
    for session_id, n in taken.items():
        await store.append(session_id, samples.a_loop(session_id, 1, text=session_id))
        loaded = await store.load(session_id)
        must_equal(loaded.session_id, session_id, "the id of the loaded session")
        must_equal(loaded.metadata, {"n": n}, f"the metadata of {session_id!r}")
        must_equal(len(loaded.loops), 2, f"the number of loops of {session_id!r}")
        must(await store.exists(session_id), f"{session_id!r} does not exist")
    for gone, session_id in enumerate(taken, 1):
        await store.delete(session_id)
        left = set(list(taken)[gone:])
        must_equal(set(await trial.listed()), left, f"the ids after the delete of {session_id!r}")


@check()
async def ids_that_look_alike_are_apart(trial: Trial) -> None:
    """Ids that differ in case, form of Unicode, spaces or endings name different sessions."""
    tag = trial.new_id()
    endings = ["a", "A", "a ", "a.", "a.json", "a.json.lock", "%61", "\uff41", "a\u0301", "á", "a/"]
    alike = [f"{tag}{ending}" for ending in endings]
    alike += [f" {alike[0]}", alike[0].upper(), f"{alike[0]}\x00", tag]
    kept: dict[str, int] = {}
    for n, session_id in enumerate(alike):
        try:
            await trial.store.save(trial.a_session(session_id, metadata={"n": n}))
        except InvalidSessionIdError:
            continue
        kept[trial.use_id(session_id)] = n
    await trial.store.delete(alike[0])
    del kept[alike[0]]
    for session_id, n in kept.items():
        loaded = await trial.store.load(session_id)
        must_equal(loaded.metadata, {"n": n}, f"the metadata of {session_id!r}")
    must(not await trial.store.exists(alike[0]), f"{alike[0]!r} exists though it was deleted")


@check()
async def what_cannot_be_an_id_is_refused(trial: Trial) -> None:
    """An empty id, a lone surrogate, or what is no text is refused by every call."""
    await trial.store.save(trial.a_session())
    before = await trial.states()
    for session_id in _NEVER:
        await _must_refuse(trial.store, session_id)
    must_equal(await trial.states(), before, "what is stored")


async def _is_free(store: SessionStore, session_id: str) -> bool:
    try:
        return not await store.exists(session_id)
    except InvalidSessionIdError:
        return True


async def _must_refuse(store: SessionStore, session_id: Any) -> None:
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "load": lambda: store.load(session_id),
        "find": lambda: store.find(session_id),
        "exists": lambda: store.exists(session_id),
        "delete": lambda: store.delete(session_id),
        "save": lambda: store.save(samples.a_session(session_id, "agent")),
        "save anything": lambda: store.save(
            samples.a_session(session_id, "agent"), expect=Expect.ANYTHING
        ),
        "update": lambda: store.update(session_id, lambda _: None),
    }
    if isinstance(session_id, str):
        calls["append"] = lambda: store.append(session_id, samples.a_loop("s"))
    if isinstance(store, SupportsLease):
        calls["lease"] = lambda: _hold(store, session_id)
    for name, call in calls.items():
        with must_raise(InvalidSessionIdError, f"{name} of {session_id!a}"):
            await call()


async def _hold(store: SupportsLease, session_id: str) -> None:
    async with store.lease(session_id):
        pass
