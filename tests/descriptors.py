"""Which files this process has open."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def none_left(why: object = "") -> Iterator[None]:
    """Fail when something is open at the end that was not open before.

    What earlier tests left to the garbage collector may be closed meanwhile.
    """
    before = _open()
    yield
    left = _open() - before
    assert left == set(), f"descriptors left, {why}"


def _open() -> set[str]:
    """Return the descriptors by number and file; the one that is used for it is not there."""
    found = set[str]()
    for number in os.listdir("/proc/self/fd"):
        try:
            file = os.readlink(f"/proc/self/fd/{number}").removesuffix(" (deleted)")
        except FileNotFoundError:
            continue
        found.add(f"{number}: {file}")
    return found
