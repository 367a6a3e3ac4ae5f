"""What every typed record has: open enums, unknown keys that are kept, hooks for msgspec."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Self, TypeVar, cast

import msgspec

from .timestamp import Timestamp

__all__ = [
    "EXTRA",
    "F32",
    "U32",
    "U64",
    "JSONObject",
    "OneOf",
    "OpenEnum",
    "Record",
    "always",
    "dec_hook",
    "empty",
    "enc_hook",
    "require_one",
]

JSONObject = dict[str, Any]
"""A JSON object that the store carries and does not look into."""

EXTRA: Final = "~extra"
"""The key that msgspec sees a record's unknown keys under; the codec keeps it out of files."""

U32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
# msgspec takes no bound above 2**63 - 1; the codec refuses what is above 2**64 - 1.
U64 = Annotated[int, msgspec.Meta(ge=0)]
# Half a step beyond the largest single: what rounds to it is written as 3.4028235e38.
F32 = Annotated[float, msgspec.Meta(ge=-3.4028235677973366e38, le=3.4028235677973366e38)]

T = TypeVar("T")

# Subclasses of these are encoded as what they extend.
_PLAIN: Final[tuple[type[Any], ...]] = (int, float, dict, list)


def always(value: T) -> T:
    """Give a field a default that is written even when it is the value."""
    return msgspec.field(default_factory=lambda: value)


def empty() -> list[Any]:
    """Return a new list; unlike with `list` itself as the default, an empty one is written."""
    return []


class Record(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """The base of all typed records.

    Attributes:
        extra: Keys that this version does not know, as they were read; they are written back.
    """

    extra: JSONObject = msgspec.field(default={}, name=EXTRA)  # msgspec makes a new one each time

    def __rich_repr__(self) -> Any:
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            if field.name != "extra" or value:
                yield field.name, value

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({inner})"


class OneOf(Record):
    """A record that stands for a choice: one of its fields is set, or a key of a later version."""

    def __post_init__(self) -> None:
        require_one(self)


def require_one(choice: msgspec.Struct) -> None:
    """Make sure that a choice is made.

    Raises:
        ValueError: None is, or several are.
    """
    names = [name for name in choice.__struct_fields__ if name != "extra"]
    known = sum(getattr(choice, name) is not None for name in names)
    if known > 1 or not (known or getattr(choice, "extra", None)):
        raise ValueError(f"exactly one must be set: {', '.join(names)}")


class OpenEnum(StrEnum):
    """An enumeration that takes the variants of later versions as they come."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        member = str.__new__(cls, value)
        member._name_ = value
        member._value_ = value
        return member


def dec_hook(kind: type, value: Any) -> Any:
    """Build what msgspec does not know itself."""
    if kind is Timestamp:
        if isinstance(value, str):
            return Timestamp.parse(value)
        raise ValueError(f"a time stamp is text, not {type(value).__name__}")
    raise NotImplementedError(kind)


def enc_hook(value: Any) -> Any:
    """Turn what msgspec does not know itself into what it knows."""
    if isinstance(value, Timestamp):
        return str(value)
    if isinstance(value, datetime):
        return str(Timestamp.from_datetime(value))
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, msgspec.Raw):  # JSON itself takes it as it is
        return msgspec.json.decode(value)
    for plain in _PLAIN:
        if isinstance(value, plain):
            make = cast("Callable[[Any], Any]", plain)
            return make(value)
    raise NotImplementedError(f"a value of type {type(value).__name__} is not JSON")
