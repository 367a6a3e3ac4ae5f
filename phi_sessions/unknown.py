"""Keys of typed records that this version does not know, on their way in and out.

msgspec would drop them. On the way in they are gathered under one key that the records have a
field for; on the way out they are scattered among their siblings again. Only typed records are
touched, never the plain JSON inside them. Both change the objects that they are given.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import msgspec

from .record import EXTRA, JSONObject

__all__ = ["gather", "scatter"]


_info = cache(msgspec.inspect.type_info)


def gather(kind: type, value: Any) -> Any:
    """Move the unknown keys of `value`, and of all records in it, under `EXTRA`."""
    return _gather(_info(kind), value)


def scatter(kind: type, value: Any) -> Any:
    """Undo `gather`.

    Raises:
        ValueError: A record's unknown keys hold one that it knows.
    """
    return _scatter(_info(kind), value)


def _gather(kind: msgspec.inspect.Type, value: Any) -> Any:
    if struct := _struct(kind, value):
        fields, obj = _fields(struct), cast("JSONObject", value)
        extra = {key: obj.pop(key) for key in list(obj) if key not in fields}
        for key in obj:
            obj[key] = _gather(fields[key], obj[key])
        if extra:
            obj[EXTRA] = extra
    elif item := _item(kind, value):
        value[:] = [_gather(item, element) for element in value]
    return value


def _scatter(kind: msgspec.inspect.Type, value: Any) -> Any:
    if struct := _struct(kind, value):
        fields, obj = _fields(struct), cast("JSONObject", value)
        extra = obj.pop(EXTRA, {})
        if not isinstance(extra, dict):
            raise ValueError("`extra` is not an object")
        for key in obj:
            obj[key] = _scatter(fields[key], obj[key])
        if taken := fields.keys() & cast("JSONObject", extra).keys():
            raise ValueError(f"`extra` holds known keys: {', '.join(sorted(taken))}")
        obj.update(cast("JSONObject", extra))
    elif item := _item(kind, value):
        value[:] = [_scatter(item, element) for element in value]
    return value


@cache
def _fields(struct: type) -> dict[str, msgspec.inspect.Type]:
    info = cast("msgspec.inspect.StructType", _info(struct))
    return {field.encode_name: field.type for field in info.fields if field.encode_name != EXTRA}


def _struct(kind: msgspec.inspect.Type, value: Any) -> type | None:
    if isinstance(value, dict):
        for option in _options(kind):
            if isinstance(option, msgspec.inspect.StructType):
                return option.cls
    return None


def _item(kind: msgspec.inspect.Type, value: Any) -> msgspec.inspect.Type | None:
    if isinstance(value, list):
        for option in _options(kind):
            if isinstance(option, msgspec.inspect.ListType):
                return option.item_type
    return None


def _options(kind: msgspec.inspect.Type) -> tuple[msgspec.inspect.Type, ...]:
    return kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)
