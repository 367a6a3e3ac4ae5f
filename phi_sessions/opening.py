"""From a URL to the store that it names."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast, get_type_hints
from urllib.parse import parse_qsl, unquote_to_bytes, urlsplit

import msgspec

from .errors import MissingDependencyError
from .store import SessionStore
from .stores.filesystem import FileSystemSessionStore
from .stores.memory import MemorySessionStore

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["ENTRY_POINTS", "open_store"]

ENTRY_POINTS: Final = "phi_sessions.stores"
"""The group in which a package registers stores of its own."""

_ENGINES: Final = {
    "sqlite": "sqlite",
    "postgresql": "postgres",
    "postgres": "postgres",
    "redis": "redis",
    "rediss": "redis",
    "s3": "object",
    "gs": "object",
    "az": "object",
}
"""The module below `phi_sessions.stores` that each scheme is served by."""

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_DRIVE: Final = re.compile(r"/[A-Za-z]:(?:[/\\]|$)")
_OCTAL: Final = frozenset({"mode"})
"""Options that are written as chmod takes them."""


def open_store(url: str, **options: Any) -> SessionStore:
    """Return the store that `url` names, as its class would be called.

    `async with open_store("file:sessions") as store:` closes it, too. The built-in URLs are

    ```
    file:sessions      file:///var/sessions      a directory, relative or absolute
    memory:                                      this object; each call makes a new one
    sqlite:///s.db     sqlite:////var/s.db       a file, relative or absolute
    postgresql://user:password@host/database     also postgres:
    redis://host/0     rediss://host/0           rediss: over TLS
    s3://bucket/prefix gs://... az://...         S3, Google Cloud Storage, Azure Blob Storage
    ```

    Nothing is opened before the store's first call, and only the package that the scheme needs
    is imported. What the engines' URLs may hold is described by their stores. A `file:` URL is
    percent-encoded (a `?` in a name is `%3F`), and what follows its `?` are options, as in
    `file:sessions?lock_timeout=2&fsync=false`; there `mode` is octal, and `null` is None.

    A package adds schemes of its own by entry points in the group `phi_sessions.stores`: the name
    is the scheme, the value a function that takes the URL and the options and returns a
    `SessionStore`. The schemes above cannot be taken over.

    Args:
        url: Which store. It is not shown in errors, as there may be a password in it.
        options: Keywords of the store's class, such as `lock_timeout=2.0`.

    Raises:
        ValueError: The URL has no scheme, one that nobody serves, or a part that its store
            cannot take.
        TypeError: The store has no such option, or the URL is not a string.
        MissingDependencyError: A package that the store needs is not installed; the error names
            the extra that installs it.
    """
    if not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"a store's URL is a string, not {type(url).__name__}")
    found = _SCHEME.match(url)
    if found is None:
        raise ValueError(
            "a store's URL begins with a scheme: file:NAME for a directory, sqlite:///NAME for a"
            f" database file, or one of {_listed()}"
        )
    scheme, rest = found[1].lower(), url[found.end() :]
    if scheme == "file":
        return _open_directory(rest, options)
    if scheme == "memory":
        return _open_memory(rest, options)
    if scheme in _ENGINES:
        _check_host(url)
        engine = import_module(f".stores.{_ENGINES[scheme]}", __package__)
        open_url = cast("Callable[..., SessionStore]", engine.open_url)
        return open_url(f"{scheme}:{rest}", **options)
    return _open_registered(scheme, rest, options)


def _open_directory(rest: str, options: dict[str, Any]) -> FileSystemSessionStore:
    path, _, query = rest.partition("?")
    options = _with_query("file", FileSystemSessionStore, query, options)
    return FileSystemSessionStore(directory_of(path, windows=os.name == "nt"), **options)


def _open_memory(rest: str, options: dict[str, Any]) -> MemorySessionStore:
    path, _, query = rest.partition("?")
    if path not in ("", "//"):
        raise ValueError("memory: takes no name: each call makes a store of its own")
    return MemorySessionStore(**_with_query("memory", MemorySessionStore, query, options))


def directory_of(path: str, *, windows: bool) -> str:
    r"""Return the directory that a `file:` URL names by what follows the colon.

    Args:
        path: Percent-encoded.
        windows: Whether a leading drive letter is one, and `//host` is `\\host`.

    Raises:
        ValueError: It names none.
    """
    if path.startswith("//"):
        host, slash, path = path[2:].partition("/")
        path = slash + path
        if windows and re.fullmatch("[A-Za-z]:", host):
            path = host + path  # file://C:/sessions, one slash too few
        elif host and host.lower() != "localhost":
            if not windows:
                raise ValueError(
                    "after file:// comes a host: write file:NAME for a relative directory,"
                    " file:///NAME for an absolute one"
                )
            path = f"//{host}{path}"
    directory = os.fsdecode(unquote_to_bytes(os.fsencode(path)))
    if windows and _DRIVE.match(directory):
        directory = directory[1:]
    if not directory:
        raise ValueError("file: names no directory: write file:NAME, or file:. for this one")
    if "\0" in directory:
        raise ValueError("a directory's name cannot hold a NUL")
    return directory


def _with_query(
    scheme: str, store: type[SessionStore], query: str, options: dict[str, Any]
) -> dict[str, Any]:
    """Return `options` and those of the URL, which are read as the constructor declares them."""
    kinds = get_type_hints(store.__init__)
    parameters = inspect.signature(store).parameters.values()
    known = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    merged = dict(options)
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise ValueError(
                f"{scheme}: has no option {name!r}, but {', '.join(known) or 'none at all'}"
                " (in a name, ? is written %3F)"
            )
        if name in merged:
            raise ValueError(f"the option {name!r} is given twice")
        merged[name] = _read(name, text, kinds[name])
    return merged


def _read(name: str, text: str, kind: Any) -> Any:
    try:
        value = int(text, 8) if name in _OCTAL else msgspec.convert(text, kind, strict=False)
        if value != value:
            raise ValueError("it is not a number")
        return value
    except (ValueError, msgspec.ValidationError) as error:
        raise ValueError(f"the option {name!r} cannot be {text!r}") from error


def _check_host(url: str) -> None:
    try:
        urlsplit(url)
        return
    except ValueError:
        pass  # its text, and that of every engine that asks the same, may show the password
    raise ValueError("the host in the store's URL cannot be read")


def _open_registered(scheme: str, rest: str, options: dict[str, Any]) -> SessionStore:
    claims = [point for point in _registered() if point.name.lower() == scheme]
    if not claims:
        drive = "; a drive is written file:///C:/NAME" if len(scheme) == 1 else ""
        raise ValueError(f"no store has the scheme {scheme!r}, but {_listed()}{drive}")
    if len({point.value for point in claims}) > 1:
        rivals = " and ".join(sorted(point.value for point in claims))
        raise ValueError(f"the scheme {scheme!r} is registered twice, by {rivals}")
    try:
        open_url = cast("Callable[..., object]", claims[0].load())
    except MissingDependencyError:
        raise
    except ImportError as error:
        raise MissingDependencyError(
            f"the store for {scheme}: cannot be imported from {claims[0].value}: {error}"
        ) from error
    store = open_url(f"{scheme}:{rest}", **options)
    if not isinstance(store, SessionStore):
        raise TypeError(f"{claims[0].value} returned no SessionStore, but {type(store).__name__}")
    return store


def _registered() -> tuple[EntryPoint, ...]:
    from importlib.metadata import entry_points  # it takes as long as a tenth of this package

    return tuple(entry_points(group=ENTRY_POINTS))


def _listed() -> str:
    names = {"file", "memory", *_ENGINES, *(point.name.lower() for point in _registered())}
    return ", ".join(f"{name}:" for name in sorted(names))
