"""The store: sessions in a bucket, through obstore."""

from __future__ import annotations

import math
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ...codec import StoredRecord
from ...errors import SessionCorruptError, SessionError
from ...info import Selection, SessionInfo
from ...lease import Lease, SupportsLease
from ...model import Revision, Session
from ...store import Expect, Expectation, OnError
from ..base import BaseStore, Outcome, Stored, not_found, pack, require, unpack
from ..finishing import to_its_end
from ..patience import Patience
from ..server_leases import in_line, until_given
from ..turnstile import Turnstile
from . import listing, sweeping
from .bucket import Bucket
from .client import Client
from .crowd import for_each
from .drafts import INLINE, Draft, ReadParts, draft_append, draft_removal, draft_save
from .leasing import Grip, holder_of
from .manifest import Manifest, size_of
from .memo import Memo
from .opening import connect, options_of, place_of, place_of_url, require_conditional_puts
from .reading import Found, Moved, Reader
from .writing import Writer

if TYPE_CHECKING:
    from obstore.store import ObjectStore

__all__ = ["ObjectSessionStore", "open_url"]

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 1.0
"""Seconds between two attempts to take a lease that another holds."""


class ObjectSessionStore(BaseStore, SupportsLease):
    """Keeps sessions in a bucket of S3, Google Cloud Storage, Azure, or what is compatible.

    Any number of tasks, threads, processes and hosts may share the sessions, and what was
    acknowledged is as safe as the service keeps its objects. All that it asks of the service is
    that a listing and a read show what was put before, and that a put keeps its condition
    (`If-None-Match: *`, `If-Match`; on Google's service the generation). Amazon S3, Google Cloud
    Storage, Azure Blob Storage, Cloudflare R2, MinIO and SeaweedFS say that they do; the last is
    the one that the tests run on. The first write tries it out, since a server that ignores a
    condition would lose updates in silence.

    A session is one object, as long as its records take less than 32 KB. A save or an append is
    then one put, preceded by a read if this store object did not work on the session lately; a
    new session takes another put, for its agent's index. Records beyond that are in parts, which
    are folded so that a session never has more than a few dozen: an append sends 32 KB besides its
    own records at the most, and each record is sent again once for each eightfold growth of the
    session. A load is one read, and one for each part.

    `list_ids` costs one request for each thousand sessions, and a short read for each session
    that was put in the same second as another. `infos` reads the first 4 KB of each session that
    it yields; with `agent_id` of those in the agent's index, all before it yields the first.
    `list_for_agent` lists that index and loads what it names. The order is that of the server's
    clock, in whole seconds, and within a second that of the writers' clocks.

    A deleted session leaves a tombstone of 704 bytes, and writers that die leave objects that
    nothing names: `sweep` removes both. In a bucket with versioning each change keeps what it
    replaced; have a lifecycle rule expire noncurrent versions. Google's service takes about one
    change of a session in a second, and this store sends again what it turned down.

    A lease is an object that its holder renews. If the holder dies, or cannot renew it, it is free
    when `lease_expiry` has passed by the server's clock; a holder that lost it so is told by
    `SessionLockedError` when it gives it back.

    A process that was forked after obstore had been used cannot use it: obstore's threads are not
    there. Calls raise `SessionTaskError`; start processes by `spawn` or `forkserver`.

    Args:
        store: A store object of obstore (not `LocalStore`, which cannot replace on condition), or
            a URL: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, with
            options of obstore behind it (`?endpoint=...&region=...`). What is not given is taken
            from the environment as obstore does.
        prefix: Before the name of each object; below the URL's.
        timeout: Seconds that one request may take, and as many again to find out whether it was
            made if its answer was lost. Requests of a store object that was given are bound to its
            own limits, too.
        lock_timeout: Seconds to wait for a session that others keep changing.
        lease_expiry: Seconds that a lease outlives its holder.
        config: Options for obstore's store, if `store` is a URL.
        client_options: Options for its HTTP client, if `store` is a URL.
        credential_provider: What gives it keys, if `store` is a URL.

    Raises:
        ValueError: The URL or an option is not one that obstore knows.
        TypeError: The store object cannot put on condition.
    """

    lacks = frozenset()

    def __init__(
        self,
        store: str | ObjectStore,
        *,
        prefix: str = "",
        timeout: float = 30.0,
        lock_timeout: float = 30.0,
        lease_expiry: float = 30.0,
        config: Mapping[str, Any] | None = None,
        client_options: Mapping[str, Any] | None = None,
        credential_provider: Callable[[], Any] | None = None,
    ) -> None:
        super().__init__()
        if not (timeout > 0 and lock_timeout > 0 and 0 < lease_expiry < math.inf):
            raise ValueError(
                "timeout, lock_timeout and lease_expiry must be positive, the last one finite"
            )
        if isinstance(store, str):
            place = place_of_url(store)
            client = connect(
                store, timeout, config or {}, client_options or {}, credential_provider
            )
        else:
            if config or client_options or credential_provider:
                raise ValueError("options go to the store object when it is made")
            place, client = place_of(store), store
        require_conditional_puts(client)
        steps = [step for step in prefix.split("/") if step]
        if any(step in (".", "..") for step in steps):
            raise ValueError(f"no prefix: {prefix!r}")
        self._place = "/".join([place, *steps])
        self._client = Client(client, "".join(f"{step}/" for step in steps))
        self._bucket = Bucket(self._client, self._place, timeout)
        self._reader = Reader(self._bucket)
        self._memo = Memo()
        self._writer = Writer(self._bucket, self._reader, self._memo, lock_timeout)
        self._lock_timeout = lock_timeout
        self._lease_expiry = lease_expiry
        self._turnstile = Turnstile()
        self._lease_line = Turnstile()
        self._is_own = isinstance(store, str)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._place!r})"

    def __del__(self) -> None:
        if getattr(self, "_is_own", False) and not self._closed and self._client.was_used:
            warnings.warn(f"unclosed {self!r}: use `async with`", ResourceWarning, 2, source=self)

    async def list_ids(self) -> list[str]:
        self._check_open()
        return await listing.ids(self._bucket, self._reader)

    async def exists(self, session_id: str) -> bool:
        self._check(session_id)
        with _naming(session_id):
            return await self._reader.exists(session_id)

    async def list_for_agent(self, agent_id: str, *, on_error: OnError = "raise") -> list[Session]:
        self._check_open()

        async def read(session_id: str) -> tuple[Found, Stored] | None:
            try:
                found, stored = await self._load(session_id)
            except SessionCorruptError:
                if on_error != "skip":
                    raise
                return None
            if stored is None or stored.header.agent_id != agent_id:
                return None
            return found, stored

        may_be = await listing.ids_of_agent(self._bucket, agent_id)
        read_all = [each for each in await for_each(may_be, read) if each is not None]
        return [unpack(stored) for _, stored in sorted(read_all, key=_newest_first)]

    async def infos(
        self,
        *,
        agent_id: str | None = None,
        active_after: datetime | None = None,
        limit: int | None = None,
        on_error: OnError = "raise",
    ) -> AsyncIterator[SessionInfo]:
        self._check_open()
        selection = Selection(agent_id, active_after, limit)
        if selection.is_complete:
            return
        if agent_id is not None:
            source = listing.cards_of_agent(self._bucket, self._reader, agent_id)
        else:
            most = limit if active_after is None else None
            source = listing.cards(self._bucket, self._reader, most)
        async with aclosing(source):
            async for card in source:
                if card.front is None and on_error == "skip":
                    continue
                if selection.takes(info := card.info):
                    yield info
                if selection.is_complete:
                    return

    @asynccontextmanager
    async def lease(
        self,
        session_id: str,
        *,
        owner: str | None = None,
        timeout: float = 0.0,  # noqa: ASYNC109 - the contract's word
    ) -> AsyncGenerator[Lease]:
        self._check(session_id)
        lease = Lease.of_this_process(session_id, owner)
        patience = Patience.for_lease(timeout, session_id)
        holder = partial(holder_of, self._bucket)
        with _naming(session_id):
            async with in_line(self._lease_line, session_id, patience, holder):
                grip = Grip(self._bucket, lease, self._lease_expiry)
                try:
                    await until_given(
                        grip.take, patience, first=_FIRST_PAUSE, longest=_LONGEST_PAUSE
                    )
                    yield lease
                except BaseException:
                    with suppress(SessionError):  # the first error is the one to hear of
                        await to_its_end(grip.let_go())
                    raise
                await to_its_end(grip.let_go())

    async def sweep(self, *, older_than: timedelta = timedelta(hours=1)) -> list[str]:
        """Remove what nobody needs, and return the names of the objects that are gone.

        These are objects that a writer had put before it died, and tombstones of sessions that
        were deleted. It reads a little of every session: run it now and then, for example each
        night. Others may use the sessions meanwhile.

        A tombstone keeps a request that was lost on its way from bringing the session back. It is
        left alone if the store object of obstore was given and sends requests again by itself
        (have `retry_config={"max_retries": 0}`). If this dies while it removes one, a session of
        that id can be made again an hour later.

        Args:
            older_than: How long ago they were put. Less than an hour only while nobody writes: a
                writer puts a session's parts a while before it names them.

        Raises:
            SessionIOError: The storage failed.
            SessionTaskError: The store is closed.
        """
        self._check_open()
        return await sweeping.sweep(self._bucket, self._reader, older_than.total_seconds())

    async def _write(self, session: Session, expect: Expectation, outcome: Outcome) -> None:
        session_id = session.session_id
        async with self._turn(session_id):
            outcome.parcel = parcel = await pack(session)
            if expect is Expect.ANYTHING:
                parcel = parcel._replace(origin=None)  # what is there may lack a part: write all
            is_small = size_of(parcel.records) <= INLINE
            # Most sessions that are saved by rule are new, and large ones are worth a look.
            guess = Found() if is_small and isinstance(expect, Expect) else None

            async def plan(found: Found) -> Draft:
                if found.damage is not None and expect is not Expect.ANYTHING:
                    raise found.damage
                require(expect, _revision(found), session_id)
                if expect is Expect.UNCHANGED and isinstance(found.state, Manifest):
                    await self._reader.require_parts(session_id, found.state.parts)
                return await draft_save(parcel, found.state, self._parts_of(session_id))

            await self._writer.change(session_id, plan, outcome, guess=guess)

    async def _append(
        self, session_id: str, records: list[StoredRecord], expect: Expectation, outcome: Outcome
    ) -> None:
        async def plan(found: Found) -> Draft:
            if found.damage is not None:
                raise found.damage
            require(expect, _revision(found), session_id)
            if not isinstance(found.state, Manifest):
                raise not_found(session_id)
            return await draft_append(session_id, records, found.state, self._parts_of(session_id))

        async with self._turn(session_id):
            await self._writer.change(session_id, plan, outcome)

    async def _remove(self, session_id: str, expect: Expectation) -> bool:
        async def plan(found: Found) -> Draft | None:
            if found.damage is not None:
                raise found.damage
            if not isinstance(found.state, Manifest):
                return None
            require(expect, found.state.revision, session_id)
            await self._reader.require_parts(session_id, found.state.parts)
            return draft_removal(session_id, found.state)

        async with self._turn(session_id):
            return await self._writer.change(session_id, plan, Outcome())

    async def _read(self, session_id: str) -> Stored | None:
        with _naming(session_id):
            found, stored = await self._load(session_id)
        self._memo.put(session_id, found)
        return stored

    async def _load(self, session_id: str) -> tuple[Found, Stored | None]:
        found = await self._reader.look(session_id)
        while True:
            try:
                return found, await self._reader.stored(session_id, found)
            except Moved:
                found = await self._reader.look_again(session_id, found)

    def _parts_of(self, session_id: str) -> ReadParts:
        return lambda parts: self._reader.parts(session_id, parts)

    @asynccontextmanager
    async def _turn(self, session_id: str) -> AsyncGenerator[None]:
        """Wait for this caller's turn among those who change the session through this object."""
        patience = Patience(self._lock_timeout, session_id)
        async with self._turnstile.through(session_id, patience):
            with _naming(session_id):
                yield


def open_url(url: str, **options: Any) -> ObjectSessionStore:
    """Return a store for `s3://bucket/prefix`, `gs://...` or `az://...`.

    Args:
        url: Where. The part behind `?` holds options of obstore, such as `endpoint`, `region` and
            keys, and `timeout`, `lock_timeout` and `lease_expiry` of the store.
        options: Of the store; these count more.

    Raises:
        ValueError: The URL or an option is not one that obstore knows.
    """
    rest, own = options_of(url)
    return ObjectSessionStore(rest, **(own | options))


@contextmanager
def _naming(session_id: str) -> Generator[None]:
    """Have errors of requests, which know nothing of sessions, name the session."""
    try:
        yield
    except SessionError as error:
        error.session_id = error.session_id or session_id
        raise


def _revision(found: Found) -> Revision | None:
    return found.state.revision if isinstance(found.state, Manifest) else None


def _newest_first(read: tuple[Found, Stored]) -> tuple[int, int, str]:
    found, stored = read
    assert isinstance(found.state, Manifest)
    return -found.modified, -found.state.saved_at, stored.header.session_id
