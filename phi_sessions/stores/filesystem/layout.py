"""Which file is what in a store's directory.

```
{name}.json                         the session; {name} stands for its id, see `phi_sessions.ids`
{name}.json.lock                    empty sidecar, flock(2) exclusive, made once and never removed
{name}.json.tmp.{pid}.{digits}      in flight
```
"""

from __future__ import annotations

import os
import re
import secrets
from typing import Final

from ...ids import id_from_name, name_from_id

__all__ = ["LOCK", "SUFFIX", "TEMPORARY", "Paths", "id_from_temporary"]

SUFFIX: Final = ".json"
LOCK: Final = ".json.lock"
TEMPORARY: Final = ".json.tmp."
_TEMPORARY: Final = re.compile(r"(.+)\.json\.tmp\.[0-9]+\.[0-9]+", re.DOTALL)


class Paths:
    """The paths of one session in `directory`.

    Raises:
        InvalidSessionIdError: The id can never name a session.
    """

    __slots__ = ("directory", "lock", "session")

    def __init__(self, directory: str, session_id: str) -> None:
        self.directory = directory
        self.session = os.path.join(directory, name_from_id(session_id) + SUFFIX)
        self.lock = self.session + ".lock"

    def temporary(self) -> str:
        """Return a new path for a file in flight. Clocks step back, so its digits are random."""
        return f"{self.session}.tmp.{os.getpid()}.{secrets.randbits(63)}"


def id_from_temporary(name: str) -> str | None:
    """Return the id whose file in flight is called `name`, or None for any other file."""
    match = _TEMPORARY.fullmatch(name)
    return id_from_name(match[1]) if match else None
