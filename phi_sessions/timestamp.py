"""Points in time with nine digits, as phi-core writes them."""

from __future__ import annotations

import re
import time
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, Final, Self, cast

__all__ = ["Timestamp"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST: Final = -62_135_596_800 * 10**9
_LATEST: Final = 253_402_300_799_999_999_999
_MICROSECOND: Final = timedelta(microseconds=1)
_CANONICAL: Final = re.compile(
    r"(?!0000)\d{4}-\d\d-\d\dT(?!24)\d\d:\d\d:(?!60)\d\d(?:\.(\d+))?(?:Z|[+-]\d\d:?\d\d)", re.ASCII
)
_LENIENT: Final = re.compile(
    r"(?P<year>[+-]\d{4,}|\d{4})-(?P<month>\d\d?)-(?P<day>\d\d?)(?:[Tt]|[ ]+)"
    r"(?P<hour>\d\d?):(?P<minute>\d\d?):(?P<second>\d\d?)(?:\.(?P<fraction>\d+))?"
    r"\s*(?:[Zz]|(?P<sign>[+-])(?P<zh>\d\d):?(?P<zm>\d\d))\s*",
    re.ASCII,
)


class Timestamp(datetime):
    """An aware `datetime` that keeps nanoseconds and the very text it was read from.

    It is a `datetime` everywhere one is expected. `str()` gives RFC 3339 text. Two stamps that
    differ in the last three digits differ. What a `datetime` cannot say (a leap second, a year
    beyond 9999) is kept as text and shows as the nearest `datetime`. Arithmetic gives a stamp of
    microseconds.
    """

    __slots__ = ("_nanosecond", "_text")
    _text: str
    _nanosecond: int

    @classmethod
    def utc_now(cls) -> Self:
        """Return the current time, UTC, in nanoseconds."""
        return cls.from_nanoseconds(time.time_ns())

    @classmethod
    def from_nanoseconds(cls, nanoseconds: int) -> Self:
        """Return the stamp `nanoseconds` after 1970-01-01T00:00:00Z, or the nearest there is."""
        micros, rest = divmod(min(max(nanoseconds, _EARLIEST), _LATEST), 1000)
        stamp = cls.from_datetime(_EPOCH + timedelta(microseconds=micros))
        stamp._nanosecond = rest  # noqa: SLF001 - its own class
        return stamp

    @classmethod
    def from_datetime(cls, moment: datetime) -> Self:
        """Return `moment` as a stamp in UTC.

        Raises:
            ValueError: `moment` has no time zone.
        """
        if moment.tzinfo is None:
            raise ValueError("a time stamp needs a time zone: use datetime.now(UTC)")
        if isinstance(moment, cls):
            return moment
        u = moment.astimezone(UTC)
        return cls(u.year, u.month, u.day, u.hour, u.minute, u.second, u.microsecond, u.tzinfo)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read RFC 3339 text, as loosely as phi-core's reader does.

        Raises:
            ValueError: It is not a time with a zone.
        """
        if canonical := _CANONICAL.fullmatch(text):
            stamp, digits = cls.fromisoformat(text), canonical[1]
        else:
            stamp, digits = cls._parse_lenient(text)
        if digits and len(digits) > 6:
            stamp._nanosecond = int(digits[6:9].ljust(3, "0"))  # noqa: SLF001 - its own class
        stamp._text = text  # noqa: SLF001
        return stamp

    @classmethod
    def _parse_lenient(cls, text: str) -> tuple[Self, str]:
        match = _LENIENT.fullmatch(text)
        if match is None:
            raise ValueError(f"not a time stamp: {text!r}")
        year, month, day, hour, minute, second = (
            int(match[name]) for name in ("year", "month", "day", "hour", "minute", "second")
        )
        digits = match["fraction"] or ""
        micro = int(digits[:6].ljust(6, "0"))
        if second == 60:
            second, micro, digits = 59, 999_999, "999999999"
        clamped = min(max(year, 1), 9999)
        if clamped != year:
            datetime(
                2000 + year % 400, month, day, tzinfo=UTC
            )  # the calendar repeats: is it a date?
            month, day = (12, 31) if year > 9999 else (1, 1)
        offset = timedelta(hours=int(match["zh"] or 0), minutes=int(match["zm"] or 0))
        zone = timezone(-offset if match["sign"] == "-" else offset)
        return cls(clamped, month, day, hour, minute, second, micro, zone), digits

    @property
    def nanosecond(self) -> int:
        """The last three digits: nanoseconds within the microsecond, 0 to 999."""
        return getattr(self, "_nanosecond", 0)

    @property
    def nanoseconds(self) -> int:
        """Nanoseconds since 1970-01-01T00:00:00Z."""
        return (self - cast("Self", _EPOCH)) // _MICROSECOND * 1000 + self.nanosecond

    def __str__(self) -> str:
        text = getattr(self, "_text", None)
        if text is None:
            if self.tzinfo is None:
                return self.isoformat()
            seconds = self.astimezone(UTC).isoformat(timespec="seconds")[:19]
            digits = f"{self.microsecond:06d}{self.nanosecond:03d}"
            while digits.endswith("000"):
                digits = digits[:-3]
            text = f"{seconds}.{digits}Z" if digits else f"{seconds}Z"
            self._text = text
        return text

    def __repr__(self) -> str:
        return f"Timestamp({str(self)!r})"

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return type(self).parse, (str(self),)

    __hash__ = datetime.__hash__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, datetime):
            return datetime.__eq__(self, other)
        return datetime.__eq__(self, other) and self.nanosecond == _nanosecond(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: date) -> bool:
        if isinstance(other, datetime) and datetime.__eq__(self, other):
            return self.nanosecond < _nanosecond(other)
        return super().__lt__(cast("datetime", other))

    def __le__(self, other: date) -> bool:
        return not self > other

    def __gt__(self, other: date) -> bool:
        if isinstance(other, datetime) and datetime.__eq__(self, other):
            return self.nanosecond > _nanosecond(other)
        return super().__gt__(cast("datetime", other))

    def __ge__(self, other: date) -> bool:
        return not self < other


def _nanosecond(moment: datetime) -> int:
    return moment.nanosecond if isinstance(moment, Timestamp) else 0
