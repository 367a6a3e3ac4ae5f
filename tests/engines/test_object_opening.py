"""From a URL, or a store object of obstore, to a store."""

from __future__ import annotations

import asyncio
import gc
import warnings
from typing import TYPE_CHECKING

import pytest
from object_samples import a_session
from obstore.store import MemoryStore
from s3_server import BUCKET, s3_client

from phi_sessions import SessionTaskError
from phi_sessions.stores.object import ObjectSessionStore, open_url

if TYPE_CHECKING:
    from benchmarks.servers.s3 import S3Server

SECRET = "a-secret-that-nobody-sees"


async def test_options_come_from_the_url(s3_server: S3Server, s3_prefix: str) -> None:
    url = s3_server.url(BUCKET, s3_prefix)
    async with open_url(f"{url}&timeout=7.5&lock_timeout=2&lease_expiry=3&user_agent=me") as store:
        assert (store._bucket._timeout, store._lock_timeout, store._lease_expiry) == (7.5, 2.0, 3.0)
        await store.save(a_session())
    async with open_url(f"{url}&timeout=7.5", timeout=9.0) as store:
        assert store._bucket._timeout == 9.0
        assert await store.list_ids() == ["s-1"]


async def test_options_come_as_arguments(s3_server: S3Server, s3_prefix: str) -> None:
    config = s3_server.config()
    async with ObjectSessionStore(f"s3://{BUCKET}", prefix=s3_prefix, config=config) as store:
        await store.save(a_session())
    async with open_url(s3_server.url(BUCKET, s3_prefix)) as store:
        assert await store.list_ids() == ["s-1"]


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT"])
async def test_options_come_from_the_environment(
    s3_server: S3Server, s3_prefix: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    key, secret = s3_server.admin
    monkeypatch.setenv(name, s3_server.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_REGION", s3_server.region)
    async with open_url(f"s3://{BUCKET}/{s3_prefix}") as store:
        await store.save(a_session())
    assert [each["path"] for each in s3_client(s3_server).list(f"{s3_prefix}/session").collect()]


async def test_places_below_each_other_are_apart(s3_server: S3Server, s3_prefix: str) -> None:
    client = s3_client(s3_server)
    stores = [
        ObjectSessionStore(client, prefix=s3_prefix),
        ObjectSessionStore(client, prefix=f"/{s3_prefix}//deeper/"),
        open_url(s3_server.url(BUCKET, f"{s3_prefix}/deeper/still")),
        open_url(s3_server.url(BUCKET, f"{s3_prefix}/deep")),
    ]
    for n, store in enumerate(stores):
        await store.save(a_session(f"s-{n}"))
    for n, store in enumerate(stores):
        assert await store.list_ids() == [f"s-{n}"]
        await store.aclose()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://bucket/prefix",
        "file:///tmp/x",
        "memory:///",
        "https://example.com/bucket",
        "s3:///prefix",
        f"s3://key:{SECRET}@bucket/prefix",
        f"s3://bucket/prefix?nonsense={SECRET}",
        f"s3://bucket/?secret_access_key={SECRET}&conditional_put=never",
        f"s3://bucket?secret_access_key=a#{SECRET}",
        "s3://bucket/a/../b",
        "s3://bucket/a/./b",
        "s3://bucket/..",
        "s3://bucket/a/%2E%2e/b",
        "s3://bucket/a%2F..%2Fb",
        "s3://bucket/?timeout=soon",
        "s3://bucket/?timeout=inf",
        "s3://bucket/?timeout=0",
        "s3://bucket/?allow_http=perhaps",
    ],
)
def test_a_url_that_leads_nowhere_is_a_mistake_of_the_caller(url: str) -> None:
    with pytest.raises(ValueError) as caught:
        open_url(url)
    assert SECRET not in f"{caught.value} {caught.value.__cause__}"


async def test_a_hash_in_a_prefix_is_percent_encoded(s3_server: S3Server, s3_prefix: str) -> None:
    with pytest.raises(ValueError, match="%23"):
        open_url(f"s3://{BUCKET}/tenant#1")
    stores = [open_url(s3_server.url(BUCKET, f"{s3_prefix}/tenant#{n}")) for n in range(2)]
    for n, store in enumerate(stores):
        await store.save(a_session(f"s-{n}"))
    for n, store in enumerate(stores):
        assert repr(store) == f"ObjectSessionStore('s3://{BUCKET}/{s3_prefix}/tenant#{n}')"
        assert await store.list_ids() == [f"s-{n}"]
        await store.aclose()


def test_other_mistakes_are_told_as_well() -> None:
    with pytest.raises(ValueError, match="prefix"):
        ObjectSessionStore(MemoryStore(), prefix="a/../b")
    with pytest.raises(ValueError, match="positive"):
        ObjectSessionStore(MemoryStore(), lease_expiry=0)
    with pytest.raises(ValueError, match="options"):
        ObjectSessionStore(MemoryStore(), config={"region": "x"})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/a/b?region=r", "s3://bucket/a/b"),
        ("gs://bucket/a?skip_signature=true", "gs://bucket/a"),
        ("az://container/a?account_name=me&skip_signature=true", "az://container/a"),
    ],
)
def test_every_service_has_a_url(url: str, shown: str) -> None:
    assert repr(open_url(url)) == f"ObjectSessionStore({shown!r})"


async def test_obstores_memory_serves_tests() -> None:
    client = MemoryStore()
    async with ObjectSessionStore(client) as store, ObjectSessionStore(client) as other:
        session = a_session(loops=40, text="x" * 2_000)
        await store.save(session)
        assert await other.load("s-1") == session
        await other.delete("s-1")
        assert await store.list_ids() == []


async def test_what_was_given_is_not_closed(s3_server: S3Server, s3_prefix: str) -> None:
    client = s3_client(s3_server)
    async with ObjectSessionStore(client, prefix=s3_prefix) as store:
        await store.save(a_session())
    with pytest.raises(SessionTaskError):
        await store.load("s-1")
    await store.aclose()
    async with ObjectSessionStore(client, prefix=s3_prefix) as again:
        assert await again.list_ids() == ["s-1"]


def test_a_store_that_is_dropped_unclosed_warns(s3_url: str) -> None:
    stores = [open_url(s3_url)]
    asyncio.run(stores[0].save(a_session()))
    gc.collect()
    with pytest.warns(ResourceWarning, match="unclosed ObjectSessionStore"):
        stores.clear()


def test_one_that_was_not_used_or_was_closed_or_given_its_client_does_not_warn(
    s3_url: str, s3_server: S3Server, s3_prefix: str
) -> None:
    stores = [open_url(s3_url), open_url(s3_url)]
    stores.append(ObjectSessionStore(s3_client(s3_server), prefix=s3_prefix))
    asyncio.run(stores[1].list_ids())
    asyncio.run(stores[1].aclose())
    asyncio.run(stores[2].list_ids())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stores.clear()
        gc.collect()
