"""What must be written down, is."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import phi_sessions
from phi_sessions import SessionStore, errors

ROOT = Path(__file__).parents[2]
LEFT_FOR_LATER = ("TO" + "DO", "FIX" + "ME")
_NO_ERRORS = {"aclose"}
"""Methods of the contract that raise nothing of their own."""

_CONTRACT = sorted(
    name
    for name, value in vars(SessionStore).items()
    if inspect.isfunction(value) and not name.startswith("_")
)


def origin(name: str) -> ModuleType:
    """Return the module that a public name is written in."""
    module = getattr(getattr(phi_sessions, name), "__module__", "types")
    if module.startswith("phi_sessions"):
        return importlib.import_module(module)
    tree = ast.parse(inspect.getsource(phi_sessions))
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
            return importlib.import_module(f"phi_sessions.{node.module}")
    raise AssertionError(f"{name} is not imported by phi_sessions/__init__.py")


def written_docs(module: ModuleType) -> dict[str, str]:
    """Return the docs in a module's source by name: of definitions, and below assignments."""
    docs: dict[str, str] = {}
    body = ast.parse(inspect.getsource(module)).body
    for node, following in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docs[node.name] = ast.get_docstring(node) or ""
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(following, ast.Expr):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and isinstance(following.value, ast.Constant):
                docs[target.id] = str(following.value.value)
    return docs


def test_the_public_names_are_those_that_the_package_imports() -> None:
    imported = {n for n, v in vars(phi_sessions).items() if not n.startswith("_")}
    modules = {n for n in imported if inspect.ismodule(getattr(phi_sessions, n))}
    assert imported - modules == set(phi_sessions.__all__)


@pytest.mark.parametrize("name", phi_sessions.__all__)
def test_a_public_name_says_what_it_is(name: str) -> None:
    assert written_docs(origin(name)).get(name)


@pytest.mark.parametrize(
    "name", [n for n in phi_sessions.__all__ if inspect.isclass(getattr(phi_sessions, n))]
)
def test_the_methods_of_a_public_class_say_what_is_true_after_the_call(name: str) -> None:
    public = getattr(phi_sessions, name)
    own = [
        attribute
        for attribute, value in vars(public).items()
        if not attribute.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, classmethod | property))
    ]
    # An override carries no text of its own: the contract's is shown.
    assert [each for each in own if not inspect.getdoc(getattr(public, each))] == []


def raised_by(method: str) -> set[str]:
    """Return the errors that a method of the contract documents, those of `As x` included."""
    docs = inspect.getdoc(getattr(SessionStore, method)) or ""
    _, found, section = docs.partition("Raises:\n")
    assert found, f"SessionStore.{method} does not say what it raises"
    names = set(re.findall(r"^ +(\w+):", section, re.MULTILINE))
    reference = re.search(r"As `(\w+)`(?:, save for `(\w+)`)?", section)
    if reference:
        names |= raised_by(reference[1]) - {reference[2]}
    return names


@pytest.mark.parametrize("method", [name for name in _CONTRACT if name not in _NO_ERRORS])
def test_a_method_of_the_contract_documents_its_errors(method: str) -> None:
    documented = raised_by(method)
    assert documented <= set(errors.__all__)
    assert {"SessionIOError", "SessionTaskError"} <= documented
    takes_an_id = "session_id" in inspect.signature(getattr(SessionStore, method)).parameters
    assert not takes_an_id or "InvalidSessionIdError" in documented


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    drawn = re.findall(r"^[│ ]*[├└]── (\w+)", errors.__doc__ or "", re.MULTILINE)
    assert set(drawn) | {"SessionError"} == set(errors.__all__)
    for line in (errors.__doc__ or "").splitlines():
        name = re.match(r"[│ ]*[├└]── (\w+) +also (\w+)", line)
        if name:
            assert name[2] in {base.__name__ for base in getattr(errors, name[1]).__mro__}


def test_nothing_is_left_for_later() -> None:
    hidden_but_ours = {".ci", ".github", ".gitignore"}
    found: list[str] = []
    for top in ROOT.iterdir():
        if top.name.startswith(".") and top.name not in hidden_but_ours:
            continue
        for path in [top] if top.is_file() else top.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                text = path.read_text(encoding="utf-8", errors="replace")
                found += [f"{path}: {word}" for word in LEFT_FOR_LATER if word in text]
    assert found == []


def test_the_changelog_names_this_version() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.+)"', project, re.MULTILINE)
    assert version
    newest = re.search(r"^## \[(\S+)\] - \d{4}-\d\d-\d\d$", changelog(), re.MULTILINE)
    assert newest
    assert newest[1] == version[1]


def changelog() -> str:
    """Return the changelog's text."""
    return (ROOT / "CHANGELOG.md").read_text()
