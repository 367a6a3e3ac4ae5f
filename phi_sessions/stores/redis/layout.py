"""Where everything lies: the keys of a session, and the indexes beside it.

```
{phi:17}:s:NAME       hash     the session: rev, agent, saved, size, count, head, trail, l:LOOP_ID
{phi:17}:r:NAME       list     its loop records, in their order
{phi:17}:g:NAME       string   what the last writers of a deleted session wrote, for an hour
{phi:17}:lease:NAME   string   who leases it
{phi:17}:times        zset     the bucket's sessions by the time of their last save
{phi:17}:agents       zset     the same, agent by agent: each member begins with the agent's digest
{phi:17}:expiry       zset     those that expire, by when
```

A session lives in one of 64 buckets, told by its id. What stands in braces decides the slot of a
cluster, so that a session and the indexes that name it are in one slot: one script changes all of
them, or none, on a single server and on a cluster alike. The price is that a listing asks 64 keys.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, NamedTuple
from zlib import crc32

from ...ids import name_from_id

__all__ = ["BUCKETS", "Bucket", "Layout", "Place", "digest_of"]

BUCKETS: Final = 64
"""Part of the layout: with another number, sessions would not be found again."""


class Bucket(NamedTuple):
    """The keys of the indexes of one bucket."""

    tag: bytes
    times: bytes
    agents: bytes
    expiry: bytes


class Place(NamedTuple):
    """Where one session is kept."""

    name: bytes
    bucket: Bucket

    @property
    def session(self) -> bytes:
        """The key of its hash."""
        return self.bucket.tag + b":s:" + self.name

    @property
    def records(self) -> bytes:
        """The key of its list of loop records."""
        return self.bucket.tag + b":r:" + self.name

    @property
    def gone(self) -> bytes:
        """The key of what is remembered of it when it was deleted."""
        return self.bucket.tag + b":g:" + self.name

    @property
    def lease(self) -> bytes:
        """The key of its lease."""
        return self.bucket.tag + b":lease:" + self.name


class Layout:
    """The keys of all that is kept under one prefix.

    Raises:
        ValueError: The prefix holds a brace, which would move the keys to other slots.
    """

    def __init__(self, prefix: str) -> None:
        if "{" in prefix or "}" in prefix:
            raise ValueError(f"a prefix cannot hold braces: {prefix!r}")
        self.buckets = [_bucket(f"{{{prefix}:{number}}}".encode()) for number in range(BUCKETS)]

    def place(self, session_id: str) -> Place:
        """Return where the session is kept.

        Raises:
            InvalidSessionIdError: The id can never name a session.
        """
        return self.place_of_name(name_from_id(session_id).encode())

    def place_of_name(self, name: bytes) -> Place:
        """Return where the session whose id is encoded as `name` is kept."""
        return Place(name, self.buckets[crc32(name) % BUCKETS])


def _bucket(tag: bytes) -> Bucket:
    return Bucket(tag, tag + b":times", tag + b":agents", tag + b":expiry")


def digest_of(agent_id: str) -> bytes:
    """Return what stands for the agent in the index: 32 characters for any string."""
    return blake2b(agent_id.encode(errors="surrogatepass"), digest_size=16).hexdigest().encode()
