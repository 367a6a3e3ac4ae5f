"""`requires` tells how to install what a backend needs."""

from __future__ import annotations

import pickle

import pytest

from phi_sessions import MissingDependencyError, SessionError
from phi_sessions.dependency import requires


def test_what_is_installed_is_imported() -> None:
    with requires("json"):
        import json
    assert json.loads("1") == 1


@pytest.mark.parametrize("name", ["a_driver_that_is_not_there", "a_driver.that.is_not_there"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(name: str) -> None:
    with pytest.raises(MissingDependencyError) as caught:
        with requires("engine"):
            __import__(name)
    assert str(caught.value) == (
        f"{name.partition('.')[0]} is missing: pip install 'phi-sessions[engine]'"
    )
    assert isinstance(caught.value, ImportError)
    assert isinstance(caught.value, SessionError)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_package_that_lacks_what_is_needed_is_not_called_missing() -> None:
    with pytest.raises(MissingDependencyError) as caught:
        with requires("engine"):
            from json import a_name_of_a_later_version  # type: ignore[attr-defined]  # noqa: F401
    said = str(caught.value)
    assert "is missing" not in said
    assert "cannot import name 'a_name_of_a_later_version' from 'json'" in said
    assert said.endswith(": pip install -U 'phi-sessions[engine]'")


def test_a_package_that_cannot_be_loaded_says_why() -> None:
    with pytest.raises(MissingDependencyError, match=r"libpq\.so\.5: cannot open .*engine"):
        with requires("engine"):
            raise ImportError("libpq.so.5: cannot open shared object file")


def test_the_innermost_extra_is_the_one_that_is_named() -> None:
    with pytest.raises(MissingDependencyError) as caught:
        with requires("outer"):
            with requires("inner"):
                import a_driver_that_is_not_there  # type: ignore[import-not-found]  # noqa: F401
    assert str(caught.value) == (
        "a_driver_that_is_not_there is missing: pip install 'phi-sessions[inner]'"
    )


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), SyntaxError("x"), KeyboardInterrupt()])
def test_any_other_error_is_left_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        with requires("engine"):
            raise error
    assert caught.value is error


def test_the_error_can_be_pickled() -> None:
    with pytest.raises(MissingDependencyError) as caught:
        with requires("engine"):
            import a_driver_that_is_not_there  # type: ignore[import-not-found]  # noqa: F401
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (MissingDependencyError, str(caught.value))
