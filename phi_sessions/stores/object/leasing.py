"""Leases: an object that says who holds a session, renewed while the holder lives.

It is made once and then written over, on condition, as held or as free. A holder renews it; one
that was not renewed for as long as it says is free for all. What counts is when it was put, by the
server's clock: the hosts' clocks are never compared.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from ...errors import SessionIOError, SessionLockedError
from ...lease import Lease
from ...record import dec_hook, enc_hook
from ..server_leases import Held
from .bucket import Bucket, Refused
from .client import Got
from .layout import lease_key, new_token
from .manifest import Fate

if TYPE_CHECKING:
    from obstore import UpdateVersion

__all__ = ["Grip", "holder_of"]

_RENEWALS: Final = 3
"""How often a lease is renewed in its time."""

_WHOLE_SECONDS: Final = 1
"""What two times that are told in whole seconds may be off."""


class _Entry(msgspec.Struct, frozen=True):
    """What a lease's object says.

    Attributes:
        token: Random; no two entries of a lease have both token and beat in common.
        beat: How often it was renewed.
        seconds: How long it holds without being renewed.
        lease: Who holds it; None when it is free.
    """

    token: str
    beat: int = 0
    seconds: float = 0.0
    lease: Lease | None = None


class Grip:
    """One holder's hold on one lease.

    Args:
        bucket: Where the lease is.
        lease: What others are told.
        seconds: How long it holds without being renewed.
    """

    def __init__(self, bucket: Bucket, lease: Lease, seconds: float) -> None:
        self._bucket = bucket
        self._lease = lease
        self._key = lease_key(lease.session_id)
        self._entry = _Entry(new_token(), 0, seconds, lease)
        self._version: UpdateVersion | None = None
        self._holds_until = 0.0
        self._ends: asyncio.Event | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._is_lost = False
        self._others: tuple[UpdateVersion, float] | None = None

    async def take(self) -> Held | None:
        """Take the lease and keep it renewed, or say that another has it.

        Raises:
            SessionIOError: The storage failed.
        """
        await self._bucket.require_conditions()
        got = await self._bucket.get(self._key)
        while True:
            if got is not None:
                other = _read(got)
                is_free = other is not None and other.lease is None
                # What cannot be read is somebody's, for as long as one of ours.
                seconds = self._entry.seconds if other is None else other.seconds
                if not is_free and not await self._is_over(got, seconds):
                    return Held(None if other is None else other.lease)
            try:
                await self._put(self._entry, got.version if got is not None else None)
            except Refused as refused:
                got = refused.found
            else:
                self._ends = asyncio.Event()
                self._renewal = asyncio.create_task(self._renew(self._ends))
                return None

    async def _is_over(self, got: Got, seconds: float) -> bool:
        """Whether a lease of `seconds` has run out; the server is asked no sooner than need be."""
        here = time.monotonic()
        if self._others is not None and self._others[0] == got.version and here < self._others[1]:
            return False
        left = got.modified + seconds + _WHOLE_SECONDS - await self._bucket.now()
        self._others = got.version, here + left
        return left < 0

    async def _put(self, entry: _Entry, version: UpdateVersion | None) -> None:
        data = msgspec.json.encode(entry, enc_hook=enc_hook)

        def fate(got: Got | None) -> Fate:
            return Fate.STANDS if got is not None and got.data == data else Fate.NOT_MADE

        begun = time.monotonic()
        self._version = None
        self._version = await self._bucket.put_if(self._key, data, version, fate)
        self._entry = entry
        self._holds_until = begun + entry.seconds

    async def _renew(self, ends: asyncio.Event) -> None:
        while not self._is_lost:
            with suppress(TimeoutError):
                await asyncio.wait_for(ends.wait(), self._entry.seconds / _RENEWALS)
                return
            with suppress(SessionIOError):  # there is time for another try
                await self._write(msgspec.structs.replace(self._entry, beat=self._entry.beat + 1))

    async def _write(self, entry: _Entry) -> None:
        """Write over one's own entry; if another's is there, the lease is lost."""
        version = self._version
        if version is None:  # the last answer was lost
            got = await self._bucket.get(self._key)
            own = _read(got) if got is not None else None
            if got is None or own is None or own.token != self._entry.token:
                self._is_lost = True
                return
            version = got.version
        try:
            await self._put(entry, version)
        except Refused:
            self._is_lost = True

    async def let_go(self) -> None:
        """Give the lease back if it was taken.

        Raises:
            SessionLockedError: It was lost: it could not be renewed in time, and another took it.
            SessionIOError: It could not be renewed in time, and whether another took it cannot be
                found out.
        """
        if self._renewal is None or self._ends is None:
            return
        held_to_the_end = time.monotonic() < self._holds_until
        self._ends.set()
        await self._renewal
        self._renewal = None
        if not self._is_lost:
            try:
                await self._write(_Entry(new_token()))
            except SessionIOError:
                if held_to_the_end:
                    return  # it ends by itself
                raise
            if self._is_lost and held_to_the_end and time.monotonic() >= self._holds_until:
                return  # it ended while it was being given back
        if self._is_lost:
            session_id = self._lease.session_id
            raise SessionLockedError(
                f"the lease of session {session_id!r} was lost: it was not renewed in time",
                session_id=session_id,
                holder=await holder_of(self._bucket, session_id),
            )


async def holder_of(bucket: Bucket, session_id: str) -> Lease | None:
    """Return who holds a session; None if that cannot be told."""
    with suppress(SessionIOError):  # whoever asks is told that it is held, if not by whom
        got = await bucket.get(lease_key(session_id))
        entry = _read(got) if got is not None else None
        return entry.lease if entry is not None else None
    return None


def _read(got: Got) -> _Entry | None:
    try:
        return msgspec.json.decode(got.data, type=_Entry, dec_hook=dec_hook)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
