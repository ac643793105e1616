"""All that this package raises on purpose, in one place, and what to do about it.

    Error              the root of all
    ├─ Refused         it is false: read whole, and not what the network stored; ``field`` and ``reason``     status 1
    ├─ BudgetSpent     what may be paid for is read                                                           status 1
    ├─ NotStored       it is not, or not yet, in what the network has stored                                  status 3
    ├─ Usage           a word, option, file or time is wrong or missing; names it and the remedy              status 2
    ├─ Unreachable     nobody answers, or not in time: the same call may succeed later                        status 3
    ├─ UnknownOutcome  a transaction was sent, and what became of it is not known: look it up first           status 3
    └─ Fault           who was asked answered with what cannot be used                                        status 3
       └─ Denied       a broker or a contract says no: no login, balance, permission, or no such thing        status 1

The statuses are those of the command. What is refused raises out of the middle of an answer, what cannot be had only
once nobody else can be asked. ``remedy_of`` says what helps, for each of them.

    try:
        rows = list(network.query(stream, "-1h"))
    except logstore.errors.Error as error:
        print(error, logstore.errors.remedy_of(error))

Usage, Unreachable, UnknownOutcome and Fault are the errors that validators raise too (``validator.protocol.errors``).
"""

from __future__ import annotations

from typing import Any

from validator.protocol.errors import ConfigError, RemoteFault, TransientError, UnknownOutcome, ValidatorError

__all__ = [
    "BudgetSpent",
    "Denied",
    "Error",
    "Fault",
    "NotStored",
    "Refused",
    "UnknownOutcome",
    "Unreachable",
    "Usage",
    "remedy_of",
    "require",
    "status_of",
]

Error = ValidatorError
Usage = ConfigError
Unreachable = TransientError
Fault = RemoteFault

REFUSED, USAGE, NOT_FETCHED = 1, 2, 3
"""Exit statuses."""


class Refused(Error):
    """Read whole, and not what the network stored. ``field`` names where it differs, ``reason`` how."""

    def __init__(self, subject: str, field: str, reason: str) -> None:
        super().__init__(f"{subject}: {field}: {reason}", subject=subject, field=field, reason=reason)


class NotStored(Error):
    """Asked for, and not in what the network has stored so far."""


class BudgetSpent(Error):
    """What may be paid for is read; the rest of the answer would cost more."""


class Denied(Fault):
    """A broker's or a contract's no. ``status``: a broker's, of HTTP; ``revert``: a contract's reason."""


_BY_HTTP = {
    400: "ask for something else",
    401: "say who asks: --key FILE, or key= in Python",
    402: "pay for reading: logstore stake AMOUNT; or a budget, --max-price and --max-total",
    403: "have the stream's owner permit it: logstore stream permit",
    404: "look at the stream's id and partition (logstore stream show), or ask another broker with --broker",
}
_BY_KIND: tuple[tuple[type[Error], str], ...] = (
    (Refused, "trust nobody's word for it: ask another broker or gateway, and keep what was given as evidence"),
    (NotStored, "what is new is in no bundle for a few minutes yet: logstore bundle list"),
    (UnknownOutcome, "look the transaction up before it is sent again"),
    (Unreachable, "try again in a while, or name others: --broker, --rpc, --gateway"),
    (Fault, "name others: --broker, --rpc, --gateway"),
)


def remedy_of(error: Error) -> str:
    """What helps, in words; empty where the error says so itself."""
    if isinstance(error, Denied):
        status: Any = error.fields.get("status")
        return _BY_HTTP.get(status, "")
    return next((remedy for kind, remedy in _BY_KIND if isinstance(error, kind)), "")


def status_of(error: Error) -> int:
    """The command's exit status."""
    if isinstance(error, Usage):
        return USAGE
    return REFUSED if isinstance(error, Refused | BudgetSpent | Denied) else NOT_FETCHED


def require(holds: bool, subject: str, field: str, reason: str) -> None:
    """Raises Refused unless it holds."""
    if not holds:
        raise Refused(subject, field, reason)
