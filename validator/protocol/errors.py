"""The errors of the validator: one tree, split by what the caller should do.

Errors carry their facts as attributes, so that logs and metrics need not parse text. Adapters
translate library errors into these with ``raise ... from``.
"""

from __future__ import annotations

from typing import Any


class ValidatorError(Exception):
    """Base of everything this package raises on purpose. Keyword arguments become attributes."""

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields

    def __getattr__(self, name: str) -> Any:
        fields = self.__dict__.get("fields", {})
        if name in fields:
            return fields[name]
        raise AttributeError(name)

    def __str__(self) -> str:
        return self.message


class ConfigError(ValidatorError):
    """A setting is wrong or missing: refuse to start. Names the setting and the remedy."""


class TransientError(ValidatorError):
    """Timeout, 429, 5xx, not yet final: the same call may succeed later."""


class UnknownOutcome(ValidatorError):
    """Sent, but the answer was lost: look it up first; unknown is not "not found"."""


class RemoteFault(ValidatorError):
    """A broker, peer, gateway or RPC node broke a rule: drop, count, keep the bytes."""


class MalformedInput(RemoteFault):
    """Bytes from outside that do not parse. ``field`` names where, ``reason`` says why."""

    def __init__(self, field: str, reason: str, **fields: Any) -> None:
        super().__init__(f"{field}: {reason}", field=field, reason=reason, **fields)


def require(holds: bool, field: str, reason: str) -> None:
    """Raises MalformedInput unless ``holds``."""
    if not holds:
        raise MalformedInput(field, reason)


class Disagreement(ValidatorError):
    """Sound data, but not our digest: no retry; both sides are kept."""


class AlreadyDone(ValidatorError):
    """Another run was here first: success, said quietly."""


class InvariantError(Exception):
    """Our own broken invariant. Outside the tree: nobody catches it, the task fails in red."""
