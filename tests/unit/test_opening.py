"""`open_store` makes the store that a URL names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from phi_sessions import (
    FileSystemSessionStore,
    MemorySessionStore,
    Session,
    SessionStore,
    open_store,
)
from phi_sessions.opening import directory_of

BUILT_IN = [
    "az",
    "file",
    "gs",
    "memory",
    "postgres",
    "postgresql",
    "redis",
    "rediss",
    "s3",
    "sqlite",
]
PASSWORD = "hunter2"


def option(store: SessionStore, name: str) -> Any:
    """Return an option of a file store, wherever it keeps it."""
    if name == "lock_timeout":
        return store._retry.keywords["timeout"]  # type: ignore[attr-defined]
    for thing in (store, store._directory):  # type: ignore[attr-defined]
        for known in (name, f"_{name}"):
            if hasattr(thing, known):
                return getattr(thing, known)
    raise AssertionError(name)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and all that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


# Directories --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "directory"),
    [
        ("file:sessions", "sessions"),
        ("file:./a/b", "./a/b"),
        ("file:../a", "../a"),
        ("file:.", "."),
        ("file:/var/sessions", "/var/sessions"),
        ("file:///var/sessions", "/var/sessions"),
        ("file://localhost/var/sessions", "/var/sessions"),
        ("FILE:sessions", "sessions"),
        ("file:with%20space", "with space"),
        ("file:with space", "with space"),
        ("file:gr%C3%B6%C3%9Fe", "größe"),
        ("file:größe", "größe"),
        ("file:what%3F", "what?"),
        ("file:100%25", "100%"),
        ("file:100%", "100%"),
        ("file:a#b", "a#b"),
        ("file:a+b", "a+b"),
        ("file:a:b", "a:b"),
        ("file:~/sessions", "~/sessions"),
        ("file:raw%FFbyte", os.fsdecode(b"raw\xffbyte")),
    ],
)
def test_a_file_url_names_a_directory(url: str, directory: str) -> None:
    store = open_store(url)
    assert type(store) is FileSystemSessionStore
    assert store.dir == Path(directory)


def test_a_path_becomes_a_url_and_a_path_again(tmp_path: Path) -> None:
    path = tmp_path / "a b" / "ö?#%20&=+;:@" / os.fsdecode(b"\xff")
    store = open_store(path.as_uri())
    assert isinstance(store, FileSystemSessionStore)
    assert store.dir == path


@pytest.mark.parametrize(
    ("path", "directory"),
    [
        ("///C:/sessions", "C:/sessions"),
        ("/C:/sessions", "C:/sessions"),
        ("C:/sessions", "C:/sessions"),
        ("C:\\sessions", "C:\\sessions"),
        ("//C:/sessions", "C:/sessions"),
        ("///C:", "C:"),
        ("///c%3A/a%20b", "c:/a b"),
        ("//server/share/sessions", "//server/share/sessions"),
        ("////server/share", "//server/share"),
        ("//localhost/C:/sessions", "C:/sessions"),
        ("sessions", "sessions"),
        ("/sessions", "/sessions"),
        ("/CC:/sessions", "/CC:/sessions"),
    ],
)
def test_on_windows_a_file_url_may_name_a_drive_or_a_host(path: str, directory: str) -> None:
    assert directory_of(path, windows=True) == directory


def test_elsewhere_a_drive_is_a_name_like_any_other() -> None:
    assert directory_of("///C:/sessions", windows=False) == "/C:/sessions"


@pytest.mark.parametrize("url", ["file:", "file://", "file:?fsync=false", "file://localhost"])
def test_a_file_url_that_names_no_directory_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"names no directory: write file:NAME"):
        open_store(url)


def test_a_name_with_a_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        open_store("file:a%00b")


@pytest.mark.skipif(os.name == "nt", reason="there a host is a part of a directory's name")
def test_two_slashes_before_a_relative_directory_are_explained() -> None:
    with pytest.raises(ValueError, match=r"write file:NAME for a relative directory"):
        open_store("file://sessions")


async def test_nothing_is_made_before_the_first_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_store("file:outer/sessions") as store:
        assert list(tmp_path.iterdir()) == []
        await store.save(Session("s-1", "a"))
    assert [each.name for each in tmp_path.glob("outer/sessions/*.json")] == ["s-1.json"]


# Options ------------------------------------------------------------------------------------------


def test_options_are_the_keywords_of_the_class() -> None:
    store = open_store("file:sessions", lock_timeout=1.5, indent=2)
    assert (option(store, "lock_timeout"), option(store, "indent")) == (1.5, 2)
    with pytest.raises(TypeError, match="colour"):
        open_store("file:sessions", colour="red")
    with pytest.raises(TypeError, match="colour"):
        open_store("memory:", colour="red")


@pytest.mark.parametrize(
    ("query", "name", "value"),
    [
        ("lock_timeout=2", "lock_timeout", 2.0),
        ("lock_timeout=0.25", "lock_timeout", 0.25),
        ("fsync=false", "fsync", False),
        ("fsync=0", "fsync", False),
        ("fsync=True", "fsync", True),
        ("indent=2", "indent", 2),
        ("indent=null", "indent", None),
        ("mode=640", "mode", 0o640),
        ("mode=0640", "mode", 0o640),
        ("mode=0o640", "mode", 0o640),
        ("max_bytes=1000&tails=false", "max_bytes", 1000),
        ("lock%5Ftimeout=3", "lock_timeout", 3.0),
    ],
)
def test_options_in_a_file_url_are_read_as_the_class_declares_them(
    query: str, name: str, value: object
) -> None:
    store = open_store(f"file:sessions?{query}")
    assert isinstance(store, FileSystemSessionStore)
    assert store.dir == Path("sessions")
    found = option(store, name)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("colour=red", r"no option 'colour', but lock_timeout, .*fsync.*%3F"),
        ("dir=elsewhere", "no option 'dir'"),
        ("lock_timeout=soon", "'lock_timeout' cannot be 'soon'"),
        ("lock_timeout", "'lock_timeout' cannot be ''"),
        ("lock_timeout=nan", "'lock_timeout' cannot be 'nan'"),
        ("fsync=maybe", "'fsync' cannot be 'maybe'"),
        ("mode=rw", "'mode' cannot be 'rw'"),
        ("mode=0888", "'mode' cannot be '0888'"),
        ("indent=1&indent=2", "'indent' is given twice"),
    ],
)
def test_options_that_a_file_url_cannot_have_are_refused(query: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        open_store(f"file:sessions?{query}")


def test_an_option_is_given_in_the_url_or_beside_it_but_not_twice() -> None:
    store = open_store("file:sessions?fsync=false", lock_timeout=1.0)
    assert (option(store, "fsync"), option(store, "lock_timeout")) == (False, 1.0)
    with pytest.raises(ValueError, match="'fsync' is given twice"):
        open_store("file:sessions?fsync=false", fsync=True)


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("colour=red", "colour"),
        ("prefix=mine", "prefix"),
        ("timeout=3", "timeout"),
        ("retry=3", "retry"),
        ("ssl_keyfile=x", "ssl_keyfile"),
        ("parser_class=x", "parser_class"),
        ("credential_provider=x", "credential_provider"),
        ("protocol=2&db=1&db=2", "db"),
    ],
)
def test_options_that_a_redis_url_cannot_have_are_refused(query: str, name: str) -> None:
    with pytest.raises(ValueError, match=f": .*{name}"):
        open_store(f"redis://host/0?{query}")


@pytest.mark.parametrize(
    "query",
    [
        "client_name=me&health_check_interval=3",
        "db=3&protocol=3&decode_responses=true",
        "max_connections=3&socket_timeout=1&retry_on_timeout=true",
        "username=me&password=%40",
    ],
)
def test_options_of_the_driver_stand_in_a_redis_url(query: str) -> None:
    for place in ("redis://host/0", "rediss://host/0"):
        assert "host" in repr(open_store(f"{place}?{query}"))


@pytest.mark.parametrize(
    "query", ["timeout=inf", "timeout=1e18", "timeout=nan", "lock_timeout=nan", "lease_expiry=inf"]
)
def test_times_that_an_object_store_cannot_wait_for_are_refused(query: str) -> None:
    name, _, seconds = query.partition("=")
    with pytest.raises(ValueError, match=name):
        open_store(f"s3://bucket?{query}")
    with pytest.raises(ValueError, match=name):
        open_store("s3://bucket", **{name: float(seconds)})


@pytest.mark.parametrize("name", ["timeout", "region", "user_agent"])
def test_an_option_of_an_object_store_is_given_once(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is given twice"):
        open_store(f"s3://bucket?{name}=1&allow_http=true&{name}=2")


# Memory -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["memory:", "memory://", "Memory:", "memory:?"])
async def test_a_memory_url_makes_a_store_of_its_own_each_time(url: str) -> None:
    async with open_store(url) as one, open_store(url) as other:
        assert type(one) is MemorySessionStore
        await one.save(Session("s-1", "a"))
        assert await other.list_ids() == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("memory:shared", "no name"),
        ("memory://shared", "no name"),
        ("memory:?size=1", "no option 'size', but none at all"),
    ],
)
def test_a_memory_url_has_nothing_behind_its_colon(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        open_store(url)


# Schemes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["", "sessions", "/var/sessions", "./a", ":", "//host/a", "1:a", "é:a"]
)
def test_a_url_without_a_scheme_is_refused_with_what_to_write(url: str) -> None:
    with pytest.raises(ValueError, match=r"write|begins with a scheme: file:NAME") as caught:
        open_store(url)
    for scheme in BUILT_IN:
        assert f"{scheme}:" in str(caught.value)


@pytest.mark.parametrize(
    "url", ["mysql://host/a", "files:a", "postgresql+asyncpg://host/a", "http:"]
)
def test_an_unknown_scheme_is_refused_with_the_known_ones(url: str) -> None:
    with pytest.raises(ValueError, match=f"no store has the scheme '{url[:4]}") as caught:
        open_store(url)
    known = str(caught.value).partition(", but ")[2]
    assert known == ", ".join(f"{scheme}:" for scheme in BUILT_IN)


def test_a_windows_path_is_explained() -> None:
    with pytest.raises(ValueError, match="a drive is written file:///C:/NAME"):
        open_store("C:\\sessions")


def test_a_path_object_is_no_url(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"a string, not (Posix|Windows)Path"):
        open_store(tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        f"{PASSWORD}",
        f"//user:{PASSWORD}@host/a",
        f"user:{PASSWORD}@host/a",
        f"file://user:{PASSWORD}@host/a",
        f"mysql://user:{PASSWORD}@host/a",
        f"memory://user:{PASSWORD}@host",
        f"postgresql://user:{PASSWORD}@[::1/a",
        f"postgresql://user:{PASSWORD}@host:port/a",
        f"postgresql://user:{PASSWORD}@ho\u2100st/a",
        f"postgres://user:{PASSWORD}@",
        f"redis://:{PASSWORD}@host:port/0",
        f"redis://:{PASSWORD}@[::1/0",
        f"redis://:{PASSWORD}@host/0?colour=red",
        f"redis://host/0?password={PASSWORD}&colour=red",
        f"redis://host/0?retry={PASSWORD}",
        f"redis://:a?{PASSWORD}=b@host/0",
        f"rediss://:{PASSWORD}@host/not-a-number",
        f"redis://:{PASSWORD}@ho\u2100st/0",
        f"s3://key:{PASSWORD}@/a",
        f"s3://key:{PASSWORD}@[::1/a",
        f"s3://?secret_access_key={PASSWORD}",
        f"s3://bucket?secret_access_key=a#{PASSWORD}",
        f"s3://key:{PASSWORD}#b@bucket/a",
        f"gs://key:{PASSWORD}@ho\u2100st/a",
        f"az://account:{PASSWORD}@/a",
        f"sqlite://user:{PASSWORD}@host/s.db",
    ],
)
def test_a_password_is_in_no_error_and_no_name(url: str) -> None:
    try:
        store = open_store(url)
    except (ValueError, TypeError) as error:
        said = [str(each) + repr(each) for each in chain(error)]
        assert PASSWORD not in "".join(said)
    else:
        assert PASSWORD not in repr(store)
