"""Telling what an event loop's thread did while the loop stood still."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import FrameType
from typing import Final

__all__ = ["LoopWatch", "loop_watched"]

_BEAT: Final = 0.005
_SAMPLES: Final = 5
"""How often in a row a thread must be found asleep in the same place to count as stuck there."""


class LoopWatch:
    """Samples the loop's thread from another thread while the loop's heart does not beat.

    A loop that does not get the processor because others have it is not to blame. So a stall counts
    if the thread slept in one place for all of it, or if it used that much processor time itself.

    Attributes:
        stalls: What was found: how long, and where the thread was.
    """

    def __init__(self, bound: float) -> None:
        self.stalls: list[str] = []
        self._bound = bound
        self._thread = threading.current_thread()
        self._last = time.monotonic()
        self._spent = time.thread_time()
        self._where = ""
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="loop watch", daemon=True)

    async def beat(self) -> None:
        """Beat until cancelled, and tell of work that kept the loop's thread busy for too long."""
        self._watcher.start()
        try:
            while True:
                now, spent = time.monotonic(), time.thread_time()
                if (busy := spent - self._spent) > self._bound:
                    self.stalls.append(
                        f"busy for {busy:.3f} s; at one moment it was at{self._where}"
                    )
                self._last, self._spent, self._where = now, spent, " (not seen)"
                await asyncio.sleep(_BEAT)
        finally:
            self._over.set()

    def _watch(self) -> None:
        seen: list[tuple[float, tuple[int, int] | None]] = []
        while not self._over.wait(_BEAT):
            last, now = self._last, time.monotonic()
            if now - last < 3 * _BEAT:
                seen.clear()
                continue
            frame = _frame_of(self._thread)
            if frame is None:
                continue
            place = (id(frame), frame.f_lasti) if _is_asleep(self._thread) else None
            if place is None or (seen and seen[-1][1] != place):
                seen.clear()
            seen.append((now, place))
            self._where = _told(frame)
            stuck = now - seen[0][0]
            if place is not None and len(seen) >= _SAMPLES and stuck > self._bound:
                if last == self._last:  # it did not beat while we looked
                    self.stalls.append(f"stuck for {stuck:.3f} s and more at{self._where}")
                seen.clear()


def _frame_of(thread: threading.Thread) -> FrameType | None:
    frames = sys._current_frames()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    return frames.get(thread.ident or 0)


def _told(frame: FrameType) -> str:
    """Return the innermost calls of a thread, as a traceback shows them."""
    lines = traceback.format_list(traceback.extract_stack(frame, limit=6))
    return "\n" + "".join(lines).rstrip()


def _is_asleep(thread: threading.Thread) -> bool:
    """Return whether a thread waits in the kernel, or True where that cannot be told."""
    try:
        with open(f"/proc/self/task/{thread.native_id}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"S", b"D")
    except OSError:
        return True


@asynccontextmanager
async def loop_watched(bound: float) -> AsyncGenerator[LoopWatch]:
    """Watch the running loop for stalls longer than `bound` seconds."""
    watch = LoopWatch(bound)
    beating = asyncio.create_task(watch.beat())
    await asyncio.sleep(2 * _BEAT)
    try:
        yield watch
        await asyncio.sleep(2 * _BEAT)
    finally:
        beating.cancel()
        await asyncio.wait([beating])
