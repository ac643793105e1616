"""Errors that are answers."""

from __future__ import annotations

from validator.protocol.errors import ValidatorError


class Refused(ValidatorError):
    """Read whole, and not what the network stored. ``field`` names where it differs, ``reason`` how."""

    def __init__(self, subject: str, field: str, reason: str) -> None:
        super().__init__(f"{subject}: {field}: {reason}", subject=subject, field=field, reason=reason)


class NotStored(ValidatorError):
    """Asked for, and not in what the network has stored so far."""


class BudgetSpent(ValidatorError):
    """What may be paid for is read; the rest of the answer would cost more."""


def require(holds: bool, subject: str, field: str, reason: str) -> None:
    """Raises Refused unless it holds."""
    if not holds:
        raise Refused(subject, field, reason)
