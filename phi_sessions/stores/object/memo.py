"""What a store remembers of the sessions that it worked on last: a guess, tried by the server."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from ..forking import renew_in_child
from .drafts import INLINE
from .manifest import Manifest
from .reading import Found

__all__ = ["Memo"]

_MOST: Final = 256


class Memo:
    """The last known states of a few sessions, so that a change need not read them first.

    A put is bound to the version that stands in the memo. If that is not the server's any more
    the put is refused and the state is read: a memo can cost a request, never an update.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, Found] = OrderedDict()
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """Forget who of the parent process was inside."""
        self._mutex = threading.Lock()

    def get(self, session_id: str) -> Found | None:
        """Return what was last known of a session."""
        with self._mutex:
            found = self._known.get(session_id)
            if found is not None:
                self._known.move_to_end(session_id)
            return found

    def put(self, session_id: str, found: Found) -> None:
        """Remember a session, and forget the one that was not asked for for the longest time."""
        if not isinstance(found.state, Manifest) or len(found.state.head) > INLINE:
            self.forget(session_id)
            return
        with self._mutex:
            self._known[session_id] = found
            self._known.move_to_end(session_id)
            if len(self._known) > _MOST:
                self._known.popitem(last=False)

    def forget(self, session_id: str) -> None:
        """Know nothing of a session."""
        with self._mutex:
            self._known.pop(session_id, None)
