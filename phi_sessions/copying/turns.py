"""One after another, at one point of what many do at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

__all__ = ["Turn", "in_turn"]


class Turn:
    """One session's place in the order of the saves."""

    def __init__(self, before: Turn | None) -> None:
        self._before = before
        self._is_over = asyncio.Event()

    async def come(self) -> None:
        """Wait until those before are saved, or need not be."""
        if self._before is not None:
            await self._before._is_over.wait()  # noqa: SLF001 - its own class
            self._before = None

    async def leave(self) -> None:
        """Let the next one come."""
        await self.come()
        self._is_over.set()


def in_turn(session_ids: list[str]) -> Iterator[tuple[str, Turn]]:
    """Yield each id with its turn, which comes when all before it have left."""
    before: Turn | None = None
    for session_id in session_ids:
        before = Turn(before)
        yield session_id, before
