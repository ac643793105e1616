"""Evidence: two statements of one signer where only one is allowed.

Honest members say one thing per config digest, instance, round and kind, across crashes, workers and restores (the
journal sees to it), so a pair with different *content* proves a fault. Two signatures over one content prove
nothing: signers may use random nonces. Signatures are verified by the caller.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from validator.protocol.errors import MalformedInput
from validator.protocol.model import Address, Digest, InstanceId, Statement, StatementKind

Slot = tuple[Address, Digest, InstanceId, int, StatementKind]
"""(signer, config digest, instance, round, kind): what an honest member fills once."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A pair that convicts its signer. ``first`` is the one with the smaller content, so a pair has one form.

    Raises:
        MalformedInput: the pair is no evidence.
    """

    first: Statement
    second: Statement

    def __post_init__(self) -> None:
        if slot_of(self.first) != slot_of(self.second):
            raise MalformedInput("evidence", "not of one signer, config digest, instance, round and kind")
        if not self.first.content < self.second.content:
            raise MalformedInput("evidence", "equal contents or wrong order")

    @classmethod
    def of(cls, a: Statement, b: Statement) -> Evidence:
        """The pair in its one order."""
        return cls(a, b) if a.content < b.content else cls(b, a)


def slot_of(statement: Statement) -> Slot:
    s = statement
    return (s.signer, s.config_digest, s.instance, s.round, s.kind)


def find_evidence(statements: Iterable[Statement]) -> tuple[Evidence, ...]:
    """One pair per slot that holds two contents, ordered by signer, instance, round, kind."""
    first: dict[Slot, Statement] = {}
    found: dict[Slot, Evidence] = {}
    for statement in statements:
        slot = slot_of(statement)
        earlier = first.setdefault(slot, statement)
        if slot not in found and earlier.content != statement.content:
            found[slot] = Evidence.of(earlier, statement)
    return tuple(found[slot] for slot in sorted(found))
