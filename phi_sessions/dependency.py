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
        MissingDependencyError: It is not installed, or not as it should be; the error names the
            extra that installs it.
    """
    try:
        yield
    except MissingDependencyError:
        raise
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{error.name or error} is missing: pip install 'phi-sessions[{extra}]'"
        ) from error
    except ImportError as error:  # it is there, and too old or broken
        raise MissingDependencyError(f"{error}: pip install -U 'phi-sessions[{extra}]'") from error
