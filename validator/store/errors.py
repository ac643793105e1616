"""Errors that only the store can raise."""

from __future__ import annotations

from validator.errors import TransientError, ValidatorError


class StaleState(TransientError):
    """Another worker changed the row since it was loaded: load again and decide again."""


class DoubleVote(ValidatorError):
    """The journal holds another vote for this place, or a vote of a higher round: nothing may be signed or sent."""
