"""Saying what must hold, with messages that tell without a test runner what went wrong."""

from __future__ import annotations

import reprlib
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final, Generic, NoReturn, TypeVar, cast

__all__ = [
    "BrokenPromiseError",
    "Refusal",
    "SkipCheck",
    "broken",
    "difference",
    "must",
    "must_be_the_same",
    "must_equal",
    "must_raise",
    "shown",
]

_short: Final = reprlib.Repr()
_short.maxstring = _short.maxother = 160
_short.maxlist = _short.maxtuple = _short.maxset = _short.maxdict = 12

E = TypeVar("E", bound=BaseException)


class BrokenPromiseError(AssertionError):
    """A store does not keep what the contract promises."""


class SkipCheck(Exception):
    """A check does not apply; the text says why."""


def shown(value: object) -> str:
    """Return `value` as a person wants to see it: not more than a few lines."""
    return _short.repr(value)


def broken(message: str) -> NoReturn:
    """Say that a promise is broken.

    Raises:
        BrokenPromiseError: Always.
    """
    raise BrokenPromiseError(message)


def must(holds: object, message: str) -> None:
    """Say that something has to be true.

    Raises:
        BrokenPromiseError: It is not.
    """
    if not holds:
        broken(message)


def must_equal(found: object, expected: object, what: str) -> None:
    """Say that `what` has to be `expected`.

    Raises:
        BrokenPromiseError: It is not.
    """
    if found != expected:
        broken(f"{what}: expected {shown(expected)}, found {shown(found)}")


def must_be_the_same(found: object, expected: object, what: str) -> None:
    """Say that two pieces of plain JSON have to be the same, to the kind of each number.

    Raises:
        BrokenPromiseError: They are not; the message names the first place where they differ.
    """
    if where := difference(found, expected):
        broken(f"{what} is not as it was: {where}")


def difference(found: object, expected: object, path: str = "") -> str | None:
    """Return where two pieces of plain JSON differ, or None. The order of keys does not count."""
    if type(found) is not type(expected):
        return f"{path or 'it'} was {shown(expected)} and is {shown(found)}"
    if isinstance(found, dict):
        return _between_objects(
            cast("dict[str, Any]", found), cast("dict[str, Any]", expected), path
        )
    if isinstance(found, list):
        ours: list[Any] = [*found]  # pyright: ignore[reportUnknownVariableType]
        theirs = cast("list[Any]", expected)
        if len(ours) != len(theirs):
            return f"{path or 'it'} had {len(theirs)} elements and has {len(ours)}"
        places = (
            difference(a, b, f"{path}[{n}]")
            for n, (a, b) in enumerate(zip(ours, theirs, strict=True))
        )
        return next(filter(None, places), None)
    if repr(found) != repr(expected):  # tells -0.0 from 0.0
        return f"{path or 'it'} was {shown(expected)} and is {shown(found)}"
    return None


def _between_objects(found: dict[str, Any], expected: dict[str, Any], path: str) -> str | None:
    if lost := expected.keys() - found.keys():
        return f"{path or 'it'} lost the keys {shown(sorted(lost))}"
    if new := found.keys() - expected.keys():
        return f"{path or 'it'} has the new keys {shown(sorted(new))}"
    places = (difference(found[key], expected[key], f"{path}.{key}") for key in found)
    return next(filter(None, places), None)


class Refusal(Generic[E]):
    """The error that was raised inside `must_raise`."""

    def __init__(self) -> None:
        self._error: E | None = None

    @property
    def error(self) -> E:
        """The error, once it was raised."""
        assert self._error is not None
        return self._error

    def heard(self, error: E) -> None:
        """Keep the error."""
        self._error = error


@contextmanager
def must_raise(kind: type[E], what: str) -> Generator[Refusal[E]]:
    """Say that `what`, done inside this, has to be refused with an error of this kind.

    Raises:
        BrokenPromiseError: It is not refused, or with another error.
    """
    refusal = Refusal[E]()
    try:
        yield refusal
    except kind as error:
        refusal.heard(error)
    except (BrokenPromiseError, SkipCheck):
        raise
    except Exception as error:
        raise BrokenPromiseError(
            f"{what}: expected {kind.__name__}, raised {type(error).__name__}: {error}"
        ) from error
    else:
        broken(f"{what}: expected {kind.__name__}, nothing was raised")
