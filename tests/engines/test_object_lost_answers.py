"""A lost answer is not a conflict, and a conflict is not a lost answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from object_proxy import Act, Proxy, proxy_to
from object_samples import a_loop, a_session, ids_of, text_of
from s3_server import BUCKET, s3_client

from phi_sessions import (
    Expect,
    SaveOutcomeUnknownError,
    SessionConflictError,
    SessionExistsError,
    SessionIOError,
    SessionNotFoundError,
    SessionStore,
)
from phi_sessions.stores.object import ObjectSessionStore, open_url

if TYPE_CHECKING:
    from benchmarks.servers.s3 import S3Server


@pytest.fixture
async def proxy(s3_server: S3Server) -> AsyncIterator[Proxy]:
    async with proxy_to(s3_server.port) as running:
        yield running


@pytest.fixture
async def far(s3_server: S3Server, s3_prefix: str, proxy: Proxy) -> AsyncIterator[Any]:
    """A store of the same place as `s3_store`, reached through the proxy."""
    url = s3_server.url(BUCKET, s3_prefix, endpoint=proxy.endpoint)
    async with open_url(url, timeout=0.6) as store:
        await store.save(a_session("warm"))
        yield store


LOST = [Act.LOSE_ANSWER, Act.LOSE_REQUEST, Act.FAIL, Act.TURN_DOWN]


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("act", LOST)
async def test_a_new_session_is_made_once(
    far: SessionStore, s3_store: SessionStore, proxy: Proxy, act: Act, times: int
) -> None:
    proxy.only(act, "PUT", "/session/s-1", times)
    session = a_session()
    revision = await far.save(session, expect=Expect.ABSENT)
    assert session.revision == revision == (await s3_store.load("s-1")).revision
    await far.save(session)  # the holder's revision is the stored one
    with pytest.raises(SessionExistsError):
        await far.save(a_session(), expect=Expect.ABSENT)


@pytest.mark.parametrize("act", LOST)
async def test_changes_are_made_once(
    far: SessionStore, s3_store: SessionStore, proxy: Proxy, act: Act
) -> None:
    session = a_session(metadata={"n": 0})
    await far.save(session)
    for n in range(1, 4):
        proxy.only(act, "PUT", "/session/s-1")
        await far.update("s-1", lambda each: each.metadata.update(n=each.metadata["n"] + 1))
        proxy.only(act, "PUT", "/session/s-1")
        await far.append("s-1", a_loop("s-1", n))
    stored = await s3_store.load("s-1")
    assert stored.metadata == {"n": 3}
    assert ids_of(stored) == [f"s-1.loop.{n}" for n in range(4)]
    with pytest.raises(SessionConflictError):
        await far.save(session)


@pytest.mark.parametrize("act", LOST)
async def test_a_delete_is_made_once(
    far: SessionStore, s3_store: SessionStore, proxy: Proxy, act: Act
) -> None:
    session = a_session()
    await far.save(session)
    proxy.only(act, "PUT", "/session/s-1")
    await far.delete("s-1", expect=session.revision)
    assert await s3_store.find("s-1") is None
    with pytest.raises(SessionNotFoundError):
        await far.delete("s-1")


@pytest.mark.parametrize("act", [Act.LOSE_ANSWER, Act.FAIL])
async def test_a_save_that_was_made_and_followed_by_others_is_no_conflict(
    far: ObjectSessionStore, s3_store: SessionStore, proxy: Proxy, act: Act
) -> None:
    session = a_session()
    await far.save(session)
    others = 0

    async def another() -> None:
        nonlocal others
        others += 1
        await s3_store.append("s-1", a_loop("s-1", 100 + others))

    proxy.only(act, "PUT", "/session/s-1", meanwhile=another)
    session.metadata["mine"] = True
    revision = await far.save(session)
    assert others == 1
    stored = await s3_store.load("s-1")
    assert stored.metadata == {"mine": True}
    assert stored.revision != revision == session.revision
    with pytest.raises(SessionConflictError) as caught:  # what the holder has is old by now
        await far.save(session)
    assert caught.value.found == stored.revision


async def test_a_save_that_was_not_made_and_followed_by_others_is_a_conflict(
    far: ObjectSessionStore, s3_store: SessionStore, proxy: Proxy
) -> None:
    session = a_session()
    await far.save(session)

    async def another() -> None:
        await s3_store.append("s-1", a_loop("s-1", 100))

    proxy.only(Act.LOSE_REQUEST, "PUT", "/session/s-1", meanwhile=another)
    session.metadata["mine"] = True
    with pytest.raises(SessionConflictError):
        await far.save(session)
    assert (await s3_store.load("s-1")).metadata == {}


async def test_a_save_that_was_made_and_then_deleted_is_no_conflict(
    far: ObjectSessionStore, s3_store: SessionStore, proxy: Proxy
) -> None:
    session = a_session()
    await far.save(session)
    proxy.only(Act.LOSE_ANSWER, "PUT", "/session/s-1", meanwhile=lambda: s3_store.delete("s-1"))
    assert await far.save(session) == session.revision
    assert await s3_store.find("s-1") is None
    with pytest.raises(SessionConflictError):
        await far.save(session)


async def test_an_append_that_was_made_is_not_made_again_over_what_followed(
    far: ObjectSessionStore, s3_store: SessionStore, proxy: Proxy
) -> None:
    await far.save(a_session())
    proxy.only(
        Act.LOSE_ANSWER,
        "PUT",
        "/session/s-1",
        meanwhile=lambda: s3_store.append("s-1", a_loop("s-1", 5, text="theirs")),
    )
    await far.append("s-1", a_loop("s-1", 5, text="mine"))
    stored = await s3_store.load("s-1")
    assert text_of(stored, -1) == "theirs"


async def test_a_put_that_comes_late_changes_nothing_any_more(
    far: ObjectSessionStore, s3_store: SessionStore, proxy: Proxy
) -> None:
    session = a_session()
    await far.save(session)
    for change in ("save", "append", "delete", "create"):
        proxy.only(Act.KEEP, "PUT", "/session/s-1")
        if change == "save":
            session.metadata["saved"] = True
            await far.save(session)
        elif change == "append":
            await far.append(session, a_loop("s-1", 7))
        elif change == "delete":
            await far.delete("s-1")
        else:
            await far.save(a_session(metadata={"again": True}), expect=Expect.ABSENT)
    await s3_store.delete("s-1")
    await s3_store.save(a_session(metadata={"theirs": True}))
    before = await s3_store.load("s-1")
    assert proxy.kept == 4
    await proxy.release()
    assert await s3_store.load("s-1") == before
    await s3_store.delete("s-1")
    assert await s3_store.list_ids() == ["warm"]


@pytest.mark.parametrize(
    ("act", "change"),
    [
        (Act.LOSE_REQUEST, "save"),
        (Act.LOSE_ANSWER, "save"),
        (Act.LOSE_ANSWER, "append"),
        (Act.LOSE_ANSWER, "delete"),
    ],
)
async def test_what_cannot_be_found_out_is_said_to_be_unknown(
    far: ObjectSessionStore, s3_store: SessionStore, proxy: Proxy, act: Act, change: str
) -> None:
    session = a_session()
    before = await far.save(session)
    proxy.rule = lambda method, path: act if "/session/s-1" in path else Act.PASS
    with pytest.raises(SaveOutcomeUnknownError, match="may have been made") as caught:
        if change == "save":
            await far.save(session)
        elif change == "append":
            await far.append(session, a_loop("s-1", 1))
        else:
            await far.delete("s-1", expect=before)
    assert caught.value.session_id == "s-1"
    assert session.revision == before
    assert len(session.loops) == 1
    stored = await s3_store.find("s-1")  # made or not, it is one whole state
    if act is Act.LOSE_REQUEST:
        assert stored is not None
        assert stored.revision == before
    else:
        assert stored is None or stored.revision != before
        assert (stored is None) == (change == "delete")


async def test_a_server_that_fails_again_and_again_made_nothing(
    far: ObjectSessionStore, s3_store: SessionStore, proxy: Proxy
) -> None:
    session = a_session()
    await far.save(session)
    proxy.rule = lambda method, path: Act.TURN_DOWN if method == "PUT" else Act.PASS
    with pytest.raises(SessionIOError, match="503") as caught:
        await far.save(session)
    assert not isinstance(caught.value, SaveOutcomeUnknownError)
    assert (await s3_store.load("s-1")).revision == session.revision


@pytest.mark.parametrize("act", [Act.LOSE_ANSWER, Act.LOSE_REQUEST, Act.FAIL, Act.TURN_DOWN])
async def test_reads_listings_and_removals_are_sent_again(
    far: ObjectSessionStore, s3_store: SessionStore, proxy: Proxy, act: Act
) -> None:
    await s3_store.save(a_session(loops=40, text="x" * 2_000))
    for method, part in (("GET", "/session/s-1"), ("GET", "/part/"), ("GET", "list-type")):
        proxy.only(act, method, part, 2)
        assert len((await far.load("s-1")).loops) == 40
        assert sorted(await far.list_ids()) == ["s-1", "warm"]
        assert len(await far.list_for_agent("agent-1")) == 2
    proxy.only(act, "PUT", "/part/", 2)
    await far.save(a_session("s-2", loops=40, text="x" * 2_000))
    proxy.only(act, "POST", "delete", 2)
    await far.delete("s-2")
    assert [method for method, _ in proxy.seen].count("POST") >= 1
    assert sorted(await s3_store.list_ids()) == ["s-1", "warm"]


async def test_a_client_that_sends_again_by_itself_is_no_different(
    s3_server: S3Server, s3_prefix: str, proxy: Proxy
) -> None:
    from obstore.store import S3Store

    config: Any = s3_server.config(endpoint=proxy.endpoint)
    client = S3Store(BUCKET, config=config, client_options={"allow_http": True})
    async with ObjectSessionStore(client, prefix=s3_prefix) as store:
        for act in (Act.FAIL, Act.TURN_DOWN):  # which obstore takes for worth another try
            session = a_session(f"s-{act.name}")
            proxy.only(act, "PUT", f"/session/s-{act.name}")
            await store.save(session, expect=Expect.ABSENT)
            proxy.only(act, "PUT", f"/session/s-{act.name}")
            session.metadata["n"] = 1
            await store.save(session)
            proxy.only(act, "PUT", f"/session/s-{act.name}")
            await store.delete(session.session_id, expect=session.revision)
        assert await store.list_ids() == []


async def test_what_was_put_for_a_refused_save_is_removed(
    far: ObjectSessionStore, s3_store: ObjectSessionStore, s3_server: S3Server, s3_prefix: str
) -> None:
    await s3_store.save(a_session(loops=40, text="x" * 2_000))
    client = s3_client(s3_server)
    before = sorted(each["path"] for each in client.list(s3_prefix).collect())
    with pytest.raises(SessionExistsError):
        await far.save(a_session(), expect=Expect.ABSENT)
    with pytest.raises(SessionExistsError):
        await far.save(a_session(loops=50, text="y" * 2_000), expect=Expect.ABSENT)
    assert sorted(each["path"] for each in client.list(s3_prefix).collect()) == before
