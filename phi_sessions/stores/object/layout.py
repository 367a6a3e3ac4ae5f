"""Which key means what, below the store's prefix.

```
session/{name}                      what the session is now: a manifest, or a tombstone
part/{name}/{token}                 records, immutable; the manifest names those that count
agent/{digest}/{name}~{token}       the session may be that agent's: its manifest tells
lease/{name}                        who holds the session
clock, probe                        the server's time; whether it keeps the conditions of puts
```

Only `session/` and `lease/` keys are ever written a second time, and these on condition. Every
other key has a random token in it that no two writers share: what no manifest names is garbage
for ever, and is removed without a condition, which object stores lack.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import NamedTuple

from ...ids import id_from_name, name_from_id

__all__ = [
    "AGENTS",
    "LEASES",
    "PARTS",
    "SESSIONS",
    "Marker",
    "agent_folder",
    "lease_key",
    "marker_key",
    "marker_of",
    "new_token",
    "part_key",
    "part_of",
    "session_key",
    "session_of",
]

AGENTS = "agent/"
LEASES = "lease/"
PARTS = "part/"
SESSIONS = "session/"


class Marker(NamedTuple):
    """What an entry of an agent's index tells."""

    session_id: str
    token: str


def new_token() -> str:
    """Return what no other object has in its key."""
    return secrets.token_hex(8)


def session_key(session_id: str) -> str:
    """Return where a session's manifest is."""
    return SESSIONS + name_from_id(session_id)


def session_of(key: str) -> str | None:
    """Return the session whose manifest is at `key`; None if no session's is."""
    return id_from_name(key.removeprefix(SESSIONS))


def part_key(session_id: str, token: str) -> str:
    """Return where a part of a session is."""
    return f"{PARTS}{name_from_id(session_id)}/{token}"


def part_of(key: str) -> Marker | None:
    """Return the session and the token of a part."""
    name, _, token = key.removeprefix(PARTS).partition("/")
    session_id = id_from_name(name)
    return None if session_id is None else Marker(session_id, token)


def agent_folder(agent_id: str) -> str:
    """Return the folder of an agent's index; any string is an agent's id."""
    digest = hashlib.sha256(agent_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{AGENTS}{digest}/"


def marker_key(agent_id: str, session_id: str, token: str) -> str:
    """Return where a session's entry in its agent's index is."""
    return f"{agent_folder(agent_id)}{name_from_id(session_id)}~{token}"


def marker_of(key: str) -> Marker | None:
    """Return the session and the token of an entry in an agent's index."""
    name, _, token = key.rpartition("/")[2].rpartition("~")
    session_id = id_from_name(name)
    return None if session_id is None else Marker(session_id, token)


def lease_key(session_id: str) -> str:
    """Return where a session's lease is."""
    return LEASES + name_from_id(session_id)
