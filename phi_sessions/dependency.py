"""Optional packages: the error that tells how to install what a backend needs."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from .errors import MissingDependencyError

__all__ = ["requires"]


@contextmanager
def requires(extra: str) -> Generator[None]:
    """Import a backend's driver inside this, at the top of the backend's file.

    Raises:
        MissingDependencyError: It is not installed; the error names the extra that installs it.
    """
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(
            f"{error.name or error} is missing: pip install 'phi-sessions[{extra}]'"
        ) from error
