"""What a window says millions of times, as small numbers: sets of brokers, and why records are refused."""

from __future__ import annotations

from validator.protocol.model import Reason

MAX_DETAILS = 10_000
"""Distinct words on why a record is refused; further ones say the reason only."""


class BrokerSets:
    """Sets of brokers as small numbers: a window has millions of records and few such sets. 0 is nobody."""

    __slots__ = ("_members", "_numbers", "sizes")

    def __init__(self) -> None:
        self.sizes = [bytes(4)]
        """How many each has, as four bytes."""
        self._numbers: dict[frozenset[int], int] = {frozenset(): 0}
        self._members: list[frozenset[int]] = [frozenset()]

    def joined(self, group: int, broker: int) -> int:
        members = self._members[group]
        return group if broker in members else self._number(members | {broker})

    def united(self, group: int, other: int) -> int:
        return group if group == other else self._number(self._members[group] | self._members[other])

    def members(self, group: int) -> frozenset[int]:
        return self._members[group]

    def size(self, group: int) -> int:
        return len(self._members[group])

    def _number(self, members: frozenset[int]) -> int:
        number = self._numbers.setdefault(members, len(self._members))
        if number == len(self._members):
            self._members.append(members)
            self.sizes.append(len(members).to_bytes(4, "big"))
        return number


class Refusals:
    """Reasons with their details as small numbers; 0 is none. Details of strangers are bounded in number."""

    __slots__ = ("_numbers", "_words")

    def __init__(self) -> None:
        self._words: list[tuple[Reason, str]] = [(Reason.MALFORMED, "")]
        self._numbers: dict[tuple[Reason, str], int] = {}

    def number(self, reason: Reason, detail: str) -> int:
        words = (reason, detail[:300])
        if words not in self._numbers and len(self._words) > MAX_DETAILS:
            words = (reason, "")
        number = self._numbers.setdefault(words, len(self._words))
        if number == len(self._words):
            self._words.append(words)
        return number

    def words(self, number: int) -> tuple[Reason, str]:
        return self._words[number]
