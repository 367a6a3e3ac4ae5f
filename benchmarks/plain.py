"""The model as a user of msgspec alone would write it: the rival in decoding and encoding.

Two rivals read the same fields from the same bytes. `typed` keeps the package's own loop records,
whose time stamps keep nine digits and need a hook. `native` has msgspec's own types only
(`datetime`, `str`), which is less than phi-core's files hold, and faster. `fastest_*` tell which
is the stricter floor.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

from phi_sessions import LoopRecord, Session, Timestamp
from phi_sessions.record import OpenEnum, Record, dec_hook, enc_hook

from .measure import Contestant, alternate

__all__ = ["Read", "fastest_encode", "fastest_read", "native_session"]

Read = Callable[[bytes], Any]


@cache
def native(record: type[Record]) -> type[Any]:
    """Return a plain struct with the fields of `record` and msgspec's own types."""
    hints = get_type_hints(record, include_extras=True)
    fields = [field for field in msgspec.structs.fields(record) if field.name != "extra"]
    return msgspec.defstruct(
        f"Native{record.__name__}",
        [
            (f.name, _native(hints[f.name]))
            if f.required
            else (f.name, _native(hints[f.name]), None)
            for f in sorted(fields, key=lambda f: not f.required)
        ],
        rename={field.name: field.encode_name for field in fields},
        omit_defaults=True,
    )


def _native(kind: Any) -> Any:
    if kind is Timestamp:
        return datetime
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is not None and isinstance(origin, type) and origin.__name__ == "Loops":
        return list[_native(LoopRecord)]  # type: ignore[misc]
    if origin is list:
        return list[_native(arguments[0])]  # type: ignore[misc]
    if origin in (Union, types.UnionType):
        return Union[tuple(_native(option) for option in arguments)]  # noqa: UP007
    if isinstance(kind, type):
        if issubclass(kind, Record):
            return native(kind)
        if issubclass(kind, OpenEnum):
            return str
    return kind


@cache
def _typed() -> type[Any]:
    hints = get_type_hints(Session, include_extras=True) | {"loops": list[LoopRecord]}
    fields = [field for field in msgspec.structs.fields(Session) if field.name != "extra"]
    return msgspec.defstruct(
        "TypedSession",
        [
            (f.name, hints[f.name]) if f.required else (f.name, hints[f.name], None)
            for f in sorted(fields, key=lambda f: not f.required)
        ],
    )


def native_session(data: bytes) -> Any:
    """Read a file into plain structs of msgspec's own types."""
    return _read_native()(data)


@cache
def _read_native() -> Read:
    return msgspec.json.Decoder(native(Session)).decode


@cache
def _read_typed() -> Read:
    return msgspec.json.Decoder(_typed(), dec_hook=dec_hook).decode


async def fastest_read(data: bytes, rounds: int) -> tuple[str, Read]:
    """Return the name of the rival that reads `data` faster, and the rival."""
    rivals = {"native": _read_native(), "typed": _read_typed()}
    name = await _fastest({name: lambda r=read: r(data) for name, read in rivals.items()}, rounds)
    return name, rivals[name]


async def fastest_encode(data: bytes, rounds: int) -> tuple[str, Callable[[], bytes]]:
    """Return the name of the rival that writes what `data` holds faster, and the rival."""
    native_value, typed_value = _read_native()(data), _read_typed()(data)
    native_encode = msgspec.json.Encoder().encode
    typed_encode = msgspec.json.Encoder(enc_hook=enc_hook).encode
    rivals: dict[str, Callable[[], bytes]] = {
        "native": lambda: native_encode(native_value),
        "typed": lambda: typed_encode(typed_value),
    }
    name = await _fastest(rivals, rounds)
    return name, rivals[name]


async def _fastest(rivals: dict[str, Callable[[], Any]], rounds: int) -> str:
    contestants = {name: Contestant(run) for name, run in rivals.items()}
    samples = await alternate(contestants, rounds, warm_up=1)
    return min(rivals, key=samples.p50)
