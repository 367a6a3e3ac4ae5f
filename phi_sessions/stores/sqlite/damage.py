"""Rows held against each other: what does not fit together is damaged.

The errors tell what is wrong; whose it is stands with whoever knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...codec import Card, Header
from ...errors import SessionCorruptError
from .statements import encoded

__all__ = ["check_kinds", "check_names", "check_size", "damaged"]


def check_kinds(row: Sequence[Any], kinds: tuple[type, ...]) -> None:
    """Make sure that a row holds what was put in it, as far as types tell.

    Raises:
        SessionCorruptError: It does not.
    """
    if tuple(map(type, row)) != kinds:
        raise damaged("a row holds what was never put there")


def damaged(reason: str) -> SessionCorruptError:
    """Return the error that says what is wrong."""
    return SessionCorruptError(reason, reason=reason)


def check_names(header: Header | Card, session_id: bytes, agent_id: bytes) -> None:
    """Make sure that a head is of the session and the agent whose row it is in.

    Raises:
        SessionCorruptError: It is not.
    """
    if encoded(header.session_id) != session_id:
        raise damaged(f"the head is of session {header.session_id!r}")
    if encoded(header.agent_id) != agent_id:
        raise damaged(f"the head is of agent {header.agent_id!r}")


def check_size(found: tuple[int, int], told: tuple[int, int]) -> None:
    """Make sure that there are as many records and bytes as a session's row tells.

    Raises:
        SessionCorruptError: There are not.
    """
    if found != told:
        raise damaged(
            f"{found[0]} loop records and {found[1]:,} bytes, where there should be"
            f" {told[0]} and {told[1]:,}"
        )
