"""Which file is what in a store's directory.

```
{name}.json                         the session; {name} stands for its id, see `phi_sessions.ids`
{name}.json.lock                    empty sidecar, flock(2) exclusive, made once and never removed
{name}.json.lease                   sidecar, flocked while somebody holds the session; says who
{name}.json.log                     what was appended since the session file was written, see `tail`
{name}.json.aside.{pid}.{digits}    a damaged file, or a tail that belongs to no session file
{name}.json.tmp.{pid}.{digits}      in flight
```
"""

from __future__ import annotations

import os
import re
import secrets
from typing import Final

from ...ids import id_from_name, name_from_id

__all__ = ["LOCK", "SUFFIX", "TAIL", "TEMPORARY", "Paths", "id_from_temporary"]

SUFFIX: Final = ".json"
LOCK: Final = ".json.lock"
TAIL: Final = ".json.log"
TEMPORARY: Final = ".json.tmp."
_ASIDE: Final = re.compile(r"(.+)\.json\.aside\.[0-9]+\.[0-9]+", re.DOTALL)
_TEMPORARY: Final = re.compile(r"(.+)\.json\.tmp\.[0-9]+\.[0-9]+", re.DOTALL)


class Paths:
    """The paths of one session in `directory`.

    Raises:
        InvalidSessionIdError: The id can never name a session.
    """

    __slots__ = ("directory", "lease", "lock", "session", "tail")

    def __init__(self, directory: str, session_id: str) -> None:
        self.directory = directory
        self.session = os.path.join(directory, name_from_id(session_id) + SUFFIX)
        self.lock = self.session + ".lock"
        self.lease = self.session + ".lease"
        self.tail = self.session + ".log"

    def temporary(self) -> str:
        """Return a new path for a file in flight. Clocks step back, so its digits are random."""
        return f"{self.session}.tmp.{os.getpid()}.{secrets.randbits(63)}"

    def aside(self) -> str:
        """Return a new path for what is set aside."""
        return f"{self.session}.aside.{os.getpid()}.{secrets.randbits(63)}"


def is_aside(name: str) -> bool:
    """Return whether a file called `name` was set aside."""
    match = _ASIDE.fullmatch(name)
    return match is not None and id_from_name(match[1]) is not None


def id_from_temporary(name: str) -> str | None:
    """Return the id whose file in flight is called `name`, or None for any other file."""
    match = _TEMPORARY.fullmatch(name)
    return id_from_name(match[1]) if match else None
