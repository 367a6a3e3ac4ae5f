"""A session's list of loop records, decoded one by one when they are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from operator import eq
from typing import Any, Generic, Protocol, SupportsIndex, TypeVar, cast, overload

__all__ = ["Entry", "Loops"]


class _HasLoopId(Protocol):
    loop_id: str


R = TypeVar("R", bound=_HasLoopId)


class Entry(Generic[R]):
    """One record: its stored text, its decoded object, or both.

    The text is what a store holds. Once the object was handed out it may have been changed, so it
    is the object that counts; until then the text is kept to the byte.
    """

    __slots__ = ("_decode", "record", "stored_id", "text")

    def __init__(
        self,
        record: R | None = None,
        text: bytes | None = None,
        loop_id: str = "",
        decode: Callable[[bytes], R] | None = None,
    ) -> None:
        self.record = record
        self.text = text
        self.stored_id = loop_id
        self._decode = decode

    @property
    def loop_id(self) -> str:
        """The record's id, known without decoding."""
        return self.stored_id if self.record is None else self.record.loop_id

    def get(self) -> R:
        """Return the record, decoded on the first call."""
        if self.record is None:
            assert self._decode is not None
            assert self.text is not None
            self.record = self._decode(self.text)
        return self.record

    def __getstate__(self) -> tuple[R | None, bytes | None, str, Callable[[bytes], R] | None]:
        return self.record, self.text, self.stored_id, self._decode

    def __setstate__(
        self, state: tuple[R | None, bytes | None, str, Callable[[bytes], R] | None]
    ) -> None:
        self.record, self.text, self.stored_id, self._decode = state


class Loops(MutableSequence[R], Generic[R]):
    """A list of loop records. Slices are lists of records; a copy shares the records."""

    __slots__ = ("entries", "origin")

    def __init__(self, records: Iterable[R] = ()) -> None:
        self.entries: list[Entry[R]] = (
            list(records.entries)
            if isinstance(records, Loops)
            else [Entry(record) for record in records]
        )
        self.origin: object = None  # what the store keeps, for the store to compare with

    @classmethod
    def of_entries(cls, entries: Iterable[Entry[R]]) -> Loops[R]:
        """Return a list that holds `entries` themselves."""
        loops = cls()
        loops.entries = list(entries)
        return loops

    def ids(self) -> list[str]:
        """Return the `loop_id` of each record, decoding none."""
        # What `Entry.loop_id` says, without a call for each: there may be very many.
        return [
            entry.stored_id if entry.record is None else entry.record.loop_id
            for entry in self.entries
        ]

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[R]:
        return (entry.get() for entry in self.entries)

    @overload
    def __getitem__(self, index: SupportsIndex) -> R: ...
    @overload
    def __getitem__(self, index: slice) -> list[R]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> R | list[R]:
        if isinstance(index, slice):
            return [entry.get() for entry in self.entries[index]]
        return self.entries[index].get()

    @overload
    def __setitem__(self, index: SupportsIndex, value: R) -> None: ...
    @overload
    def __setitem__(self, index: slice, value: Iterable[R]) -> None: ...
    def __setitem__(self, index: SupportsIndex | slice, value: R | Iterable[R]) -> None:
        if isinstance(index, slice):
            self.entries[index] = [Entry(record) for record in cast("Iterable[R]", value)]
        else:
            self.entries[index] = Entry(cast("R", value))

    def __delitem__(self, index: SupportsIndex | slice) -> None:
        del self.entries[index]

    def insert(self, index: SupportsIndex, value: R) -> None:
        self.entries.insert(index, Entry(value))

    def clear(self) -> None:
        self.entries.clear()

    def reverse(self) -> None:
        self.entries.reverse()

    def sort(self, *, key: Callable[[R], Any], reverse: bool = False) -> None:
        """Put the records in order, as `list.sort` does."""
        self.entries.sort(key=lambda entry: key(entry.get()), reverse=reverse)

    def copy(self) -> Loops[R]:
        """Return a list of the same records."""
        return Loops(self)

    def __copy__(self) -> Loops[R]:
        return self.copy()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Loops | list | tuple):
            others = cast("Sequence[object]", other)
            return len(self) == len(others) and all(map(eq, self, others))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} loop records>"
