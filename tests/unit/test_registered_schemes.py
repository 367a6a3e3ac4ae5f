"""Stores of other packages, which `open_store` finds by their entry points."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from phi_sessions import (
    FileSystemSessionStore,
    MemorySessionStore,
    MissingDependencyError,
    Session,
    open_store,
)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that registers stores."""
    (tmp_path / "outer_store.py").write_text(
        "from phi_sessions import MemorySessionStore\n"
        "class OuterStore(MemorySessionStore):\n"
        "    def __init__(self, url, size):\n"
        "        super().__init__()\n"
        "        self.url, self.size = url, size\n"
        "def open_url(url, *, size=1):\n"
        "    return OuterStore(url, size)\n"
        "def wrong(url):\n"
        "    return url\n"
    )
    (tmp_path / "outer_needs.py").write_text("import a_driver_that_is_not_there\n")
    register(
        tmp_path,
        "outer",
        outer="outer_store:open_url",
        Upper="outer_store:open_url",
        wrong="outer_store:wrong",
        needs="outer_needs:open_url",
        absent="not_there_at_all:open_url",
        file="outer_store:open_url",
        memory="outer_store:open_url",
        redis="outer_store:open_url",
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("outer_store", "outer_needs"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def register(place: Path, name: str, **points: str) -> None:
    """Write what pip writes about a package with entry points."""
    info = place / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{scheme} = {value}\n" for scheme, value in points.items()]
    (info / "entry_points.txt").write_text("[phi_sessions.stores]\n" + "".join(lines))


@pytest.mark.usefixtures("package")
async def test_a_scheme_that_a_package_registers_opens_its_store() -> None:
    async with open_store("outer://host/a?b=c", size=3) as store:
        assert type(store).__name__ == "OuterStore"
        assert (store.url, store.size) == ("outer://host/a?b=c", 3)  # type: ignore[attr-defined]
        await store.save(Session("s-1", "a"))


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("url", ["upper:a", "UPPER:a", "Upper:a"])
def test_a_registered_scheme_has_no_case(url: str) -> None:
    assert open_store(url).url == "upper:a"  # type: ignore[attr-defined]


@pytest.mark.usefixtures("package")
def test_a_built_in_scheme_cannot_be_taken_over() -> None:
    assert type(open_store("memory:")) is MemorySessionStore
    assert type(open_store("file:sessions")) is FileSystemSessionStore
    assert "outer" not in type(open_store("redis://localhost/0")).__module__


@pytest.mark.usefixtures("package")
def test_registered_schemes_are_among_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"outer:.*upper:.*wrong:"):
        open_store("mysql:")


@pytest.mark.usefixtures("package")
def test_what_is_no_store_is_refused() -> None:
    with pytest.raises(TypeError, match="outer_store:wrong returned no SessionStore, but str"):
        open_store("wrong:a")


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("url", "missing"),
    [("needs:a", "a_driver_that_is_not_there"), ("absent:a", "not_there_at_all")],
)
def test_a_registered_store_that_cannot_be_imported_says_why(url: str, missing: str) -> None:
    with pytest.raises(MissingDependencyError, match=missing) as caught:
        open_store(url)
    assert isinstance(caught.value.__cause__, ImportError)


def test_a_scheme_that_two_packages_register_is_refused(package: Path) -> None:
    register(package, "inner", outer="elsewhere:open_url", upper="outer_store:open_url")
    with pytest.raises(ValueError, match="twice, by elsewhere:open_url and outer_store:open_url"):
        open_store("outer:a")
    assert open_store("upper:a").url == "upper:a"  # type: ignore[attr-defined]
