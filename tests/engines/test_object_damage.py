"""What is damaged in a bucket is told, and left as it is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from object_samples import a_session
from s3_server import s3_client

from phi_sessions import Expect, LoopRecord, SessionCorruptError
from phi_sessions.ids import name_from_id
from phi_sessions.stores.object import ObjectSessionStore, open_url

if TYPE_CHECKING:
    from benchmarks.servers.s3 import S3Server


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "begun": lambda data: b"{",
    "without its end": lambda data: data[:-1],
    "half": lambda data: data[: len(data) // 2],
    "of a later format": lambda data: data.replace(b'"format":1', b'"format":2'),
    "another session's": lambda data: data.replace(b"s-1", b"s-2"),
    "without an agent": lambda data: data.replace(b'"agent_id"', b'"agent"', 1),
    "no text": lambda data: b"\xff" + data,
    "twice": lambda data: data + data,
    "no record": lambda data: data.replace(b'"loop_id"', b'"loop"', 1),
}


@pytest.mark.parametrize(
    ("damage", "loops"),
    [(name, 2) for name in DAMAGES] + [(name, 40) for name in DAMAGES if name != "no record"],
)
async def test_a_damaged_session_is_told_and_left_alone(
    s3_store: ObjectSessionStore, s3_server: S3Server, s3_prefix: str, damage: str, loops: int
) -> None:
    session = a_session(loops=loops, text="x" * 2_000)
    await s3_store.save(session)
    client = s3_client(s3_server)
    path = f"{s3_prefix}/session/s-1"
    sound = bytes(client.get(path).bytes())
    damaged = DAMAGES[damage](sound)
    assert damaged != sound
    client.put(path, damaged)
    for call in (
        lambda: s3_store.load("s-1"),
        lambda: s3_store.append("s-1", LoopRecord("l", "s-1", "agent-1")),
        lambda: s3_store.delete("s-1"),
        lambda: s3_store.save(a_session()),
        lambda: s3_store.list_for_agent("agent-1"),
    ):
        with pytest.raises(SessionCorruptError) as caught:
            await call()  # type: ignore[no-untyped-call]
        assert caught.value.session_id == "s-1"
        assert caught.value.path is not None
        assert caught.value.path.startswith("s3://")
        assert caught.value.path.endswith("session/s-1")
    assert await s3_store.exists("s-1")
    assert await s3_store.list_ids() == ["s-1"]
    assert await s3_store.list_for_agent("agent-1", on_error="skip") == []
    assert await s3_store.list_for_agent("agent-2") == []
    assert bytes(client.get(path).bytes()) == damaged
    await s3_store.save(session, expect=Expect.ANYTHING)
    assert await s3_store.load("s-1") == session


async def test_a_damaged_or_missing_part_is_told(
    s3_store: ObjectSessionStore, s3_server: S3Server, s3_prefix: str
) -> None:
    await s3_store.save(a_session(loops=40, text="x" * 2_000))
    client = s3_client(s3_server)
    [part] = client.list(f"{s3_prefix}/part").collect()
    path = part["path"]
    sound = bytes(client.get(path).bytes())
    middle = len(sound) // 2
    wrong = sound[:middle] + b"\n" + sound[middle + 1 :]
    for damaged in (sound[:-9], b"", wrong, sound.replace(b'"loop_id"', b'"loop id"')):
        client.put(path, damaged)
        with pytest.raises(SessionCorruptError) as caught:
            await s3_store.load("s-1")
        assert (caught.value.session_id, caught.value.path) == ("s-1", f"s3://sessions/{path}")
        assert [info.session_id async for info in s3_store.infos()] == ["s-1"]
    client.delete(path)
    with pytest.raises(SessionCorruptError, match="missing"):
        await s3_store.load("s-1")
    client.put(path, sound)
    assert len((await s3_store.load("s-1")).loops) == 40


async def test_a_holder_who_replaces_anything_writes_all_that_is_missing(
    s3_store: ObjectSessionStore, s3_server: S3Server, s3_prefix: str
) -> None:
    session = a_session(loops=40, text="x" * 2_000)
    await s3_store.save(session)
    client = s3_client(s3_server)
    [part] = client.list(f"{s3_prefix}/part").collect()
    client.delete(part["path"])
    session.metadata["n"] = 1
    await s3_store.save(session, expect=Expect.ANYTHING)
    assert await s3_store.load("s-1") == session


@pytest.mark.parametrize("session_id", ["s-1", "a/b", "%", "ü"])
@pytest.mark.parametrize("call", ["delete", "delete this", "save", "prune"])
async def test_a_session_that_lacks_a_part_is_neither_deleted_nor_replaced_unasked(
    s3_store: ObjectSessionStore,
    s3_url: str,
    s3_server: S3Server,
    s3_prefix: str,
    call: str,
    session_id: str,
) -> None:
    await s3_store.save(a_session(session_id + "~", loops=40, text="x" * 2_000))
    revision = await s3_store.save(a_session(session_id, loops=40, text="x" * 2_000))
    client = s3_client(s3_server)
    name = name_from_id(session_id)
    [path] = [
        each["path"]
        for each in client.list(f"{s3_prefix}/part").collect()
        if f"/{name}/" in each["path"]
    ]
    sound = bytes(client.get(path).bytes())
    old = timedelta(minutes=-1)
    async with open_url(s3_url) as other:
        calls: dict[str, Callable[[ObjectSessionStore], Any]] = {
            "delete": lambda store: store.delete(session_id),
            "delete this": lambda store: store.delete(session_id, expect=revision),
            "save": lambda store: store.save(a_session(session_id)),
            "prune": lambda store: store.prune(older_than=old),
        }
        for damaged in (None, sound[:-1]):
            if damaged is None:
                client.delete(path)
            else:
                client.put(path, damaged)
            for store in (s3_store, other):
                with pytest.raises(SessionCorruptError) as caught:
                    await calls[call](store)
                assert caught.value.session_id == session_id
                assert await store.exists(session_id)
        client.put(path, sound)
        assert len((await other.load(session_id)).loops) == 40
        await calls[call](other)
