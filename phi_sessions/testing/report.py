"""What the checks found, for people and for programs."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from .claims import BrokenPromiseError

__all__ = ["CheckResult", "Outcome", "Report"]


class Outcome(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


class CheckResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one check ended.

    Attributes:
        name: The check.
        theme: What it is about: the kit's module that holds it.
        promise: What the store promises, in one sentence.
        outcome: How it ended.
        seconds: How long it took.
        reason: Why it was skipped.
        error: What went wrong, in one line.
        traceback: Where it went wrong.
    """

    name: str
    theme: str
    promise: str
    outcome: Outcome
    seconds: float
    reason: str | None = None
    error: str | None = None
    traceback: str | None = None

    def __str__(self) -> str:
        line = f"{self.outcome:7} {self.theme}.{self.name} ({self.seconds:.2f} s)"
        if self.outcome is Outcome.SKIPPED:
            return f"{line}\n        {self.reason}"
        if self.outcome is Outcome.PASSED:
            return line
        trace = "".join(f"\n        {text}" for text in (self.traceback or "").splitlines())
        return f"{line}\n        Promised: {self.promise}\n        Found: {self.error}{trace}"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What all checks found about one store.

    Attributes:
        store: The store's class.
        lacks: The promises that the store says it does not make.
        seconds: How long all checks took.
        checks: How each of them ended.
    """

    store: str
    lacks: list[str]
    seconds: float
    checks: list[CheckResult]

    @property
    def ok(self) -> bool:
        """Whether no check failed; skipped ones say why."""
        return not self.failed

    @property
    def passed(self) -> list[CheckResult]:
        """The checks that passed."""
        return self._with(Outcome.PASSED)

    @property
    def failed(self) -> list[CheckResult]:
        """The checks that failed."""
        return self._with(Outcome.FAILED)

    @property
    def skipped(self) -> list[CheckResult]:
        """The checks that were not made, each with its reason."""
        return self._with(Outcome.SKIPPED)

    def raise_if_failed(self) -> None:
        """Return if no check failed.

        Raises:
            BrokenPromiseError: One did; the message tells of all that did.
        """
        if self.failed:
            raise BrokenPromiseError(
                "\n".join([self._headline(), *(str(check) for check in self.failed)])
            )

    def to_json(self) -> bytes:
        """Return the report as a JSON object in UTF-8."""
        counts: dict[str, Any] = {
            "store": self.store,
            "lacks": self.lacks,
            "ok": self.ok,
            "passed": len(self.passed),
            "failed": len(self.failed),
            "skipped": len(self.skipped),
            "seconds": self.seconds,
            "checks": self.checks,
        }
        return msgspec.json.format(msgspec.json.encode(counts))

    def __str__(self) -> str:
        in_order = [*self.passed, *self.skipped, *self.failed]
        return "\n".join([*(str(check) for check in in_order), self._headline()])

    def _headline(self) -> str:
        kept, not_made, failed = len(self.passed), len(self.skipped), len(self.failed)
        return (
            f"{self.store}: {kept} promises kept, {failed} broken, {not_made} not checked"
            f" ({self.seconds:.1f} s)"
        )

    def _with(self, outcome: Outcome) -> list[CheckResult]:
        return [check for check in self.checks if check.outcome is outcome]
