"""Which key means what, below the store's prefix.

```
session/{name}                      what the session is now: a manifest, or a tombstone
part/{name}/{token}                 records, immutable; the manifest names those that count
agent/{digest}/{name}~{token}       the session may be that agent's: its manifest tells
lease/{name}                        who holds the session
own/clock, own/probe                the server's time; whether it keeps the conditions of puts
```

Another store's prefix may begin with this one's, and go on with one of these folders: no key of
one store is one that another writes, or takes for its own garbage.

Only `session/` and `lease/` keys are ever written a second time, and these on condition. Every
other key has a random token in it that no two writers share: what no manifest names is garbage
for ever, and is removed without a condition, which object stores lack.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Final, NamedTuple

from ...ids import id_from_name, name_from_id

__all__ = [
    "AGENTS",
    "CLOCK",
    "LEASES",
    "PARTS",
    "PROBE",
    "SESSIONS",
    "Marker",
    "agent_folder",
    "lease_key",
    "marker_key",
    "marker_of",
    "new_token",
    "part_folder",
    "part_key",
    "part_of",
    "session_key",
    "session_of",
]

AGENTS = "agent/"
CLOCK = "own/clock"
LEASES = "lease/"
PARTS = "part/"
PROBE = "own/probe"
SESSIONS = "session/"

_PART: Final = re.compile(r"part/([^/]+)/([0-9a-f]{16})")
_MARKER: Final = re.compile(r"agent/[0-9a-f]{32}/([^/]+)~([0-9a-f]{16})")
_OF_TWO_STEPS: Final = frozenset(key.rstrip("/") for key in (LEASES, SESSIONS))
"""Folders of which a key may look like a part, if they are below the folder of parts."""


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


def part_folder(session_id: str) -> str:
    """Return the folder of a session's parts."""
    return f"{PARTS}{name_from_id(session_id)}/"


def part_key(session_id: str, token: str) -> str:
    """Return where a part of a session is."""
    return part_folder(session_id) + token


def part_of(key: str) -> Marker | None:
    """Return the session and the token of a part; None if it may be another store's object."""
    found = _marker(_PART, key)
    return None if found is None or found.session_id in _OF_TWO_STEPS else found


def agent_folder(agent_id: str) -> str:
    """Return the folder of an agent's index; any string is an agent's id."""
    digest = hashlib.sha256(agent_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{AGENTS}{digest}/"


def marker_key(agent_id: str, session_id: str, token: str) -> str:
    """Return where a session's entry in its agent's index is."""
    return f"{agent_folder(agent_id)}{name_from_id(session_id)}~{token}"


def marker_of(key: str) -> Marker | None:
    """Return the session and the token of an entry in an agent's index; None if it is none."""
    return _marker(_MARKER, key)


def lease_key(session_id: str) -> str:
    """Return where a session's lease is."""
    return LEASES + name_from_id(session_id)


def _marker(shape: re.Pattern[str], key: str) -> Marker | None:
    found = shape.fullmatch(key)
    session_id = None if found is None else id_from_name(found[1])
    return None if found is None or session_id is None else Marker(session_id, found[2])
