"""One request at a time, as obstore makes them, within a time limit.

Errors are obstore's own: `faults` tells what they mean.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple, TypeVar, cast

from ...errors import SessionTaskError
from .faults import DRIVER_ERRORS, Fault, fault_of, is_out_of_range

if TYPE_CHECKING:
    from obstore import GetOptions, ListStream, ObjectMeta, PutMode, PutResult, UpdateVersion
    from obstore.store import ObjectStore

__all__ = ["Client", "Got", "Listed"]

T = TypeVar("T")

_PAGE: Final = 1000


class Got(NamedTuple):
    """What stands at a key.

    Attributes:
        data: Its bytes, or the first of them.
        size: How many bytes there are.
        version: What a put names that is to replace just this.
        modified: When it was put, by the server's clock, in whole seconds.
    """

    data: bytes
    size: int
    version: UpdateVersion
    modified: int


class Listed(NamedTuple):
    """What a listing tells of an object."""

    key: str
    size: int
    modified: int


class Client:
    """obstore's client, below a prefix.

    Args:
        store: obstore's.
        prefix: Before every key; empty, or ending in a slash.

    Attributes:
        sends_once: Whether obstore sends no request a second time by itself.
        was_used: Whether anything was sent.
    """

    _process: ClassVar[int | None] = None  # the one that obstore's threads are in

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        retries = getattr(store, "retry_config", {"max_retries": 0})
        self.sends_once = retries is not None and retries.get("max_retries") == 0
        self.was_used = False

    async def get(self, key: str, first: int | None, seconds: float) -> Got:
        """Return what stands at `key`, or its `first` bytes."""
        path = self._prefix + key
        if first is not None:
            try:
                return await self._within(seconds, lambda: self._get(path, {"range": (0, first)}))
            except DRIVER_ERRORS as error:
                if not is_out_of_range(error):
                    raise
        return await self._within(seconds, lambda: self._get(path, None))

    async def _get(self, path: str, options: GetOptions | None) -> Got:
        result = await self._store.get_async(path, options=options)
        data = bytes(await result.bytes_async())
        meta = result.meta
        return Got(data, meta["size"], _version(meta), _seconds(meta))

    async def put(self, key: str, data: bytes, mode: PutMode, seconds: float) -> UpdateVersion:
        """Put an object and return its version."""
        path = self._prefix + key
        # In one piece: a put in several is not bound to a condition.
        return _version(
            await self._within(
                seconds,
                lambda: self._store.put_async(path, data, mode=mode, use_multipart=False),
            )
        )

    async def delete(self, keys: Sequence[str], seconds: float) -> None:
        """Remove objects, there or not."""
        await self._within(seconds, lambda: self._delete([self._prefix + key for key in keys]))

    async def _delete(self, paths: list[str]) -> None:
        try:
            await self._store.delete_async(paths)
        except FileNotFoundError as error:
            if fault_of(error) is not Fault.ABSENT:
                raise
            if len(paths) > 1:  # some services say so, and leave the rest
                for path in paths:
                    await self._delete([path])

    async def list_all(self, folder: str, seconds: float) -> AsyncIterator[list[Listed]]:
        """Yield all objects in a folder, at any depth, by pages of which each has its time."""
        lists = cast("Callable[..., ListStream[Sequence[ObjectMeta]]]", self._store.list)  # pyright: ignore[reportUnknownMemberType]
        pages = lists(self._prefix + folder, chunk_size=_PAGE)
        start = len(self._prefix)
        while True:
            try:
                page = await self._within(seconds, pages.__anext__)
            except StopAsyncIteration:
                return
            yield [Listed(meta["path"][start:], meta["size"], _seconds(meta)) for meta in page]

    async def _within(self, seconds: float, request: Callable[[], Awaitable[T]]) -> T:
        process = os.getpid()
        if Client._process is None:
            Client._process = process
        if Client._process != process:
            raise SessionTaskError(
                "this process was forked from one that had used obstore, whose threads are not"
                " here: start it by `spawn` or `forkserver`"
            )
        self.was_used = True
        async with asyncio.timeout(seconds):
            return await request()


def _seconds(meta: ObjectMeta) -> int:
    return int(meta["last_modified"].timestamp())


def _version(meta: ObjectMeta | PutResult) -> UpdateVersion:
    version: UpdateVersion = {}
    if meta["e_tag"] is not None:  # obstore gives None where it takes none
        version["e_tag"] = meta["e_tag"]
    if meta["version"] is not None:
        version["version"] = meta["version"]
    return version
