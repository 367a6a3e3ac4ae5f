"""The checks as tests of pytest, which is imported when it runs them and not before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, ClassVar

from ..store import SessionStore
from .catalogue import CHECKS
from .report import Outcome
from .running import run_check
from .scale import Scale

__all__ = ["StoreConformance"]


class StoreConformance:
    """Each check is a test of a class that extends this and says how its store is opened.

    It needs no plugin for async tests. Fixtures work as in any test class. For the checks with
    child processes the class and what `self` holds by then have to be picklable.

    Attributes:
        processes: Whether to use child processes too.
        scale: How much to do.
        reopen: As for `check_store`; a method of a class that needs one, None for `open_store`.
    """

    processes: ClassVar[bool] = True
    scale: ClassVar[Scale] = Scale()
    reopen: Any = None

    def open_store(self) -> SessionStore | Awaitable[SessionStore]:
        """Return a new store object, as `check_store` says; may be async.

        Raises:
            NotImplementedError: The class does not say how.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method open_store")

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Make a test of each check."""
        if "conformance_check" in metafunc.fixturenames:
            ids = [check.name for check in CHECKS]
            metafunc.parametrize("conformance_check", CHECKS, ids=ids)

    def test_promise(self, conformance_check: Any) -> None:
        """Make one check."""
        import pytest

        result = asyncio.run(
            run_check(
                conformance_check,
                self.open_store,
                reopen=self.reopen,
                processes=self.processes,
                scale=self.scale,
            )
        )
        if result.outcome is Outcome.SKIPPED:
            pytest.skip(result.reason or "")
        if result.outcome is Outcome.FAILED:
            pytest.fail(str(result), pytrace=False)
