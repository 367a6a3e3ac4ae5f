"""What can go wrong with a bucket is told by the documented errors, and without the keys."""

from __future__ import annotations

import asyncio
import errno
import pickle
import socket
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import obstore.exceptions
import pytest
from object_samples import a_loop, a_session
from obstore.store import HTTPStore, LocalStore, MemoryStore
from s3_server import BUCKET

from phi_sessions import (
    SaveOutcomeUnknownError,
    SessionError,
    SessionIOError,
    SessionStore,
)
from phi_sessions.stores.object import ObjectSessionStore, open_url
from phi_sessions.stores.object.faults import DRIVER_ERRORS, Fault, fault_of, translate

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.servers.s3 import S3Server

Call = Callable[[Any], Awaitable[Any]]


async def _cards(store: SessionStore) -> object:
    return [info async for info in store.infos()]


async def _lease(store: ObjectSessionStore) -> None:
    async with store.lease("s-1"):
        pass


READS: dict[str, Call] = {
    "load": lambda store: store.load("s-1"),
    "find": lambda store: store.find("s-1"),
    "exists": lambda store: store.exists("s-1"),
    "list_ids": lambda store: store.list_ids(),
    "list_for_agent": lambda store: store.list_for_agent("agent-1"),
    "infos": _cards,
}
WRITES: dict[str, Call] = {
    "save": lambda store: store.save(a_session()),
    "save large": lambda store: store.save(a_session(loops=40, text="x" * 2_000)),
    "append": lambda store: store.append("s-1", a_loop("s-1", 7)),
    "update": lambda store: store.update("s-1", lambda session: None, create=a_session),
    "delete": lambda store: store.delete("s-1"),
    "lease": _lease,
    "sweep": lambda store: store.sweep(),
}
SECRET = "a-secret-that-nobody-sees"


async def _is_refused(store: ObjectSessionStore, call: Call) -> SessionIOError:
    with pytest.raises(SessionIOError) as caught:
        await call(store)
    error = caught.value
    assert type(error) is SessionIOError
    assert str(error).startswith("s3://")
    assert error.filename is not None
    shown = f"{error} {error!r} {error.filename} {store!r}"
    assert SECRET not in shown
    assert "Debug source" not in shown
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.errno, copy.filename, str(copy)) == (error.errno, error.filename, str(error))
    return error


@pytest.mark.parametrize("call", [*READS.values(), *WRITES.values()], ids=[*READS, *WRITES])
async def test_a_bucket_that_is_not_there(s3_server: S3Server, call: Call) -> None:
    async with open_url(s3_server.url("no-such-bucket"), timeout=5) as store:
        error = await _is_refused(store, call)
        assert error.errno == errno.ENOENT
        assert "NoSuchBucket" in str(error)


@pytest.mark.parametrize("call", [*READS.values(), *WRITES.values()], ids=[*READS, *WRITES])
async def test_keys_that_are_wrong(s3_server: S3Server, call: Call) -> None:
    for keys in (("admin", SECRET), ("nobody", SECRET)):
        async with open_url(s3_server.url(BUCKET, keys=keys), timeout=5) as store:
            assert (await _is_refused(store, call)).errno == errno.EACCES


@pytest.mark.parametrize("call", WRITES.values(), ids=WRITES)
async def test_keys_that_may_only_read(
    s3_server: S3Server, s3_store: ObjectSessionStore, s3_prefix: str, call: Call
) -> None:
    session = a_session()
    await s3_store.save(session)
    url = s3_server.url(BUCKET, s3_prefix, keys=s3_server.reader)
    async with open_url(url, timeout=5) as store:
        assert (await _is_refused(store, call)).errno == errno.EACCES
        for read in READS.values():
            assert await read(store)
    assert (await s3_store.load("s-1")).revision == session.revision


@pytest.mark.parametrize("call", [*READS.values(), *WRITES.values()], ids=[*READS, *WRITES])
async def test_an_address_that_nobody_answers_at(s3_server: S3Server, call: Call) -> None:
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        url = s3_server.url(BUCKET, keys=("admin", SECRET), endpoint=endpoint)
        async with open_url(url) as store:
            begun = time.monotonic()
            assert (await _is_refused(store, call)).errno == errno.ECONNREFUSED
            assert time.monotonic() - begun < 5


async def test_a_name_that_is_not_there(s3_server: S3Server) -> None:
    url = s3_server.url(BUCKET, endpoint="http://no-such-host.invalid:1")
    async with open_url(url, timeout=5) as store:
        await _is_refused(store, READS["load"])


async def test_a_server_that_stands_still(s3_server: S3Server, s3_url: str) -> None:
    async with open_url(s3_url, timeout=0.4) as store:
        session = a_session()
        await store.save(session)
        s3_server.pause()
        try:
            for name in ("load", "list_ids"):
                begun = time.monotonic()
                assert (await _is_refused(store, READS[name])).errno == errno.ETIMEDOUT
                assert time.monotonic() - begun < 4
            session.metadata["n"] = 1
            for call in (lambda: store.save(session), lambda: store.load("s-1")):
                task = asyncio.ensure_future(call())
                await asyncio.sleep(0.05)
                task.cancel()  # it ends within the time limit all the same
                async with asyncio.timeout(5):
                    await asyncio.wait([task])
                assert task.cancelled()
            with pytest.raises(SessionIOError) as caught:
                await store.save(session)
            assert caught.value.errno == errno.ETIMEDOUT
            assert caught.value.session_id == "s-1"
        finally:
            s3_server.resume()
        async with asyncio.timeout(20):  # the same store object works again
            while True:
                try:
                    await store.update("s-1", lambda each: each.metadata.update(n=2))
                    break
                except (SessionIOError, SaveOutcomeUnknownError):
                    await asyncio.sleep(0.05)
        assert (await store.load("s-1")).metadata == {"n": 2}


class Ignoring:
    """A client of a service that takes no notice of a condition."""

    def __init__(self, ignored: str) -> None:
        self._store = MemoryStore()
        self._ignored = ignored

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def put_async(self, path: str, data: bytes, *, mode: Any, **options: Any) -> Any:
        if (mode == "create") == (self._ignored == "If-None-Match"):
            mode = "overwrite"
        return await self._store.put_async(path, data, mode=mode, **options)


@pytest.mark.parametrize("ignored", ["If-None-Match", "If-Match"])
async def test_a_service_that_ignores_conditions_is_refused_before_anything_is_written(
    ignored: str,
) -> None:
    client: Any = Ignoring(ignored)
    async with ObjectSessionStore(client) as store:
        for name, call in WRITES.items():
            if name in ("sweep", "append", "delete"):
                continue
            with pytest.raises(SessionIOError, match=ignored) as caught:
                await call(store)
            assert caught.value.errno == errno.EOPNOTSUPP
        assert await store.list_ids() == []


def test_a_client_that_cannot_put_on_condition_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="FileSystemSessionStore"):
        ObjectSessionStore(LocalStore(str(tmp_path)))
    with pytest.raises(TypeError, match="HTTPStore"):
        ObjectSessionStore(HTTPStore("http://127.0.0.1:1/"))


# obstore's own tree ------------------------------------------------------------------------------


def _tree(kind: type[BaseException]) -> set[type[BaseException]]:
    return {kind}.union(*(_tree(each) for each in kind.__subclasses__()))


def test_every_error_of_obstore_is_translated() -> None:
    public = {each for each in vars(obstore.exceptions).values() if isinstance(each, type)}
    tree = _tree(obstore.exceptions.BaseError) | {
        each for each in public if issubclass(each, BaseException)
    }
    assert len(tree) >= 12
    told = {"AlreadyExistsError": Fault.REFUSED, "PreconditionError": Fault.REFUSED}
    told |= {"GenericError": Fault.LOST, "BaseError": Fault.LOST, "JoinError": Fault.LOST}
    told |= {"NotModifiedError": Fault.LOST, "NotFoundError": Fault.LOST}  # never asked for
    for kind in (*tree, NotImplementedError, ValueError, FileNotFoundError, TimeoutError, OSError):
        assert issubclass(kind, DRIVER_ERRORS)
        error: Any = kind("what happened\n\nDebug source:\nWhat(nobody reads)")
        documented = translate(error, "s3://bucket", "s-1")
        assert isinstance(documented, SessionIOError)
        assert isinstance(documented, SessionError)
        assert str(documented) == "s3://bucket: what happened"
        expected = told.get(kind.__name__)
        if kind is FileNotFoundError:
            expected = Fault.ABSENT
        elif kind in (TimeoutError, OSError):
            expected = Fault.LOST
        assert fault_of(error) is (expected or Fault.NOT_MADE), kind


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (400, Fault.NOT_MADE),
        (403, Fault.NOT_MADE),
        (409, Fault.REFUSED),
        (412, Fault.REFUSED),
        (429, Fault.BUSY),
        (500, Fault.FAILED),
        (501, Fault.NOT_MADE),
        (502, Fault.FAILED),
        (503, Fault.BUSY),
        (504, Fault.FAILED),
    ],
)
def test_the_status_tells_what_became_of_a_request(status: int, fault: Fault) -> None:
    text = f"Error performing PUT x in 1ms - Server returned non-2xx status code: {status} What"
    assert fault_of(obstore.exceptions.GenericError(text)) is fault


def test_a_signature_in_a_query_is_not_shown() -> None:
    text = f"Error performing GET https://a.blob.core.windows.net/c/x?sv=1&sig={SECRET} in 1ms"
    shown = translate(obstore.exceptions.GenericError(text), "az://c")
    assert SECRET not in str(shown)
