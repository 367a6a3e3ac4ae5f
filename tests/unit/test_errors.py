"""The tree of errors is as drawn, and no error loses anything on its way between processes."""

from __future__ import annotations

import copy
import errno
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import phi_sessions
from phi_sessions import errors
from phi_sessions.errors import (
    InvalidSessionIdError,
    MissingDependencyError,
    SaveOutcomeUnknownError,
    SessionConflictError,
    SessionCorruptError,
    SessionEncodeError,
    SessionError,
    SessionExistsError,
    SessionIOError,
    SessionLockedError,
    SessionNotFoundError,
    SessionTaskError,
)

BASES: dict[type[SessionError], tuple[type, ...]] = {
    SessionError: (Exception,),
    InvalidSessionIdError: (SessionError, ValueError),
    SessionNotFoundError: (SessionError, LookupError),
    SessionExistsError: (SessionError,),
    SessionConflictError: (SessionError,),
    SessionLockedError: (SessionError, TimeoutError),
    SessionEncodeError: (SessionError, ValueError),
    SessionCorruptError: (SessionError, ValueError),
    SessionIOError: (SessionError, OSError),
    SaveOutcomeUnknownError: (SessionIOError,),
    SessionTaskError: (SessionError, RuntimeError),
    MissingDependencyError: (SessionError, ImportError),
}
EXTRAS: dict[type[SessionError], dict[str, Any]] = {
    SessionConflictError: {"expected": "r1", "found": "r2"},
    SessionLockedError: {"waited": 5.25, "holder": {"pid": 7, "host": "h"}},
    SessionCorruptError: {"path": "/d/s.json", "reason": "cut off"},
    SessionIOError: {"errno": errno.ENOSPC, "filename": "/d/s.json"},
    SaveOutcomeUnknownError: {"errno": errno.EIO, "filename": "/d"},
}
DEFAULTS: dict[type[SessionError], dict[str, Any]] = {
    SessionConflictError: {"expected": None, "found": None},
    SessionLockedError: {"waited": 0.0, "holder": None},
    SessionCorruptError: {"path": None, "reason": ""},
    SessionIOError: {"errno": None, "filename": None},
    SaveOutcomeUnknownError: {"errno": None, "filename": None},
}

each_error = pytest.mark.parametrize("kind", list(BASES), ids=lambda kind: kind.__name__)
each_copier = pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        copy.deepcopy,
        *(
            lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol))
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        ),
    ],
)


@each_error
def test_the_tree_is_as_drawn(kind: type[SessionError]) -> None:
    assert kind.__bases__ == BASES[kind]


def test_every_error_is_in_the_tree_the_drawing_and_both_namespaces() -> None:
    found = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    assert found == {kind.__name__ for kind in BASES}
    assert set(errors.__all__) == found
    assert errors.__doc__ is not None
    for name in found:
        assert name in errors.__doc__
        assert name in phi_sessions.__all__
        assert getattr(phi_sessions, name) is getattr(errors, name)


@each_error
def test_attributes_have_defaults(kind: type[SessionError]) -> None:
    error = kind()
    assert str(error) == ""
    assert error.session_id is None
    for name, value in DEFAULTS.get(kind, {}).items():
        assert getattr(error, name) == value


@each_error
@each_copier
def test_an_error_keeps_everything_when_copied_or_pickled(
    kind: type[SessionError], copied: Callable[[SessionError], SessionError]
) -> None:
    extras = EXTRAS.get(kind, {})
    error = copied(kind("what happened", session_id="s-1", **extras))
    assert type(error) is kind
    assert str(error) == "what happened"
    assert error.args == ("what happened",)
    assert error.session_id == "s-1"
    for name, value in extras.items():
        assert getattr(error, name) == value


@each_error
def test_an_error_prints_its_message_alone(kind: type[SessionError]) -> None:
    error = kind("naïve: 漢字", session_id="s-1", **EXTRAS.get(kind, {}))
    assert str(error) == "naïve: 漢字"
    assert f"{error}" == "naïve: 漢字"
    assert kind.__name__ in repr(error)
    assert "naïve: 漢字" in repr(error)


@each_error
def test_attributes_can_be_set_only_by_name(kind: type[SessionError]) -> None:
    with pytest.raises(TypeError):
        kind("message", "s-1")  # type: ignore[misc]


@pytest.mark.parametrize("kind", [SessionIOError, SaveOutcomeUnknownError])
def test_an_io_error_keeps_errno_and_filename_and_is_caught_as_one(
    kind: type[SessionIOError],
) -> None:
    with pytest.raises(OSError, match="the disk is full") as caught:
        raise kind("the disk is full", errno=errno.ENOSPC, filename="/d/s.json")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == "/d/s.json"
    assert isinstance(caught.value, kind)


def test_an_error_keeps_its_cause_and_notes_when_raised() -> None:
    cause = OSError(errno.EIO, "bad disk", "/d/s.json")
    with pytest.raises(SessionIOError) as caught:
        raise SessionIOError("no", errno=cause.errno, filename=cause.filename) from cause
    assert caught.value.__cause__ is cause


def test_notes_survive_pickling() -> None:
    error = SessionNotFoundError("gone", session_id="s")
    error.add_note("while resuming the agent")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["while resuming the agent"]


@each_error
def test_an_error_crosses_to_another_process(kind: type[SessionError]) -> None:
    extras = EXTRAS.get(kind, {})
    sent = pickle.dumps(kind("sent", session_id="s-1", **extras))
    program = (
        "import pickle, sys; e = pickle.loads(sys.stdin.buffer.read());"
        "sys.stdout.write(repr((type(e).__name__, str(e), e.session_id)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=sent, capture_output=True, timeout=30, check=True
    )
    assert done.stdout.decode() == repr((kind.__name__, "sent", "s-1"))


def test_a_subclass_with_state_of_its_own_is_not_needed_to_pickle() -> None:
    class Local(SessionConflictError):
        pass

    error = copy.copy(Local("m", session_id="s", expected="a", found="b"))
    assert (type(error), error.session_id, error.expected, error.found) == (Local, "s", "a", "b")
