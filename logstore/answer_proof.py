"""What is known of an answer that was read to its end: what is proven, and what rests on which broker's word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from logstore.answer_check import AnswerCheck, Part, Verify
from logstore.output import count_of
from logstore.times import format_time
from validator.protocol.codec.answer import Request
from validator.protocol.model import Address, Flag


@dataclass(frozen=True, slots=True)
class AnswerProof:
    """``certified_to``: up to here nothing is missing of what bundles up to ``as_of`` hold; None: nothing is proven."""

    request: Request
    verify: Verify
    count: int
    certified: int
    """Messages in proven sets."""
    by_contracts: int
    """Messages that are signed by contracts, which only the chain can check."""
    as_of: int | None
    certified_to: int | None
    bundles: tuple[int, ...]
    is_final: bool
    accepted: int | None
    """How many bundles the contract holds; None where it was not asked."""
    parts: tuple[Part, ...]
    others: tuple[tuple[Address, int | None], ...] = ()
    """Other brokers, and how many messages of the span they say that they hold, in their own signed words; None: they
    could not be reached. Where nobody was asked, nobody is named."""

    @property
    def more(self) -> tuple[tuple[Address, int], ...]:
        """Those who say that they hold more than was given, and how many more."""
        return tuple(
            (broker, held - self.count) for broker, held in self.others if held is not None and held > self.count
        )

    @property
    def proves(self) -> str:
        """In words."""
        if self.verify is Verify.NONE:
            return "nothing: no signature was checked"
        said = [f"{count_of(self.count - self.by_contracts, 'message')} signed by their publishers"]
        if self.certified_to is not None:
            said.append(
                f"up to {format_time(self.certified_to)} the {self.certified} certified ones are all that bundles up to"
                f" {self.as_of} hold, whose roots the contract holds"
            )
        return "; ".join(said)

    @property
    def leaves_open(self) -> str:
        """What it does not prove, or nothing."""
        said = []
        tail, words = self.count - self.certified, ", ".join(sorted({f"0x{p.broker.hex()}" for p in self.parts}))
        if self.certified_to is None:
            said.append(f"whether messages are missing: all of it rests on the word of {words}")
        elif tail or self.certified_to < self.request.until_ms:
            said.append(
                f"whether messages are missing that no bundle up to {self.as_of} holds: {count_of(tail, 'message')} of"
                f" the tail rest on the word of {words}"
            )
        if any(part.trailer is None for part in self.parts):
            said.append("a broker's answer was cut, and went on with the next; what it gave has no signed word")
        for broker, count in self.more:
            said.append(
                f"0x{broker.hex()} says that it holds {count_of(count, 'message')} more: compare the two with"
                " logstore audit"
            )
        if self.accepted is not None and self.as_of is not None and self.as_of + 1 < self.accepted:
            said.append(f"what bundles {self.as_of + 1} to {self.accepted - 1} hold: the broker does not know them yet")
        if self.certified_to is not None and not self.is_final:
            said.append("the report's block is not final yet")
        if self.by_contracts:
            said.append(f"{self.by_contracts} messages are signed by contracts, which only the chain can check")
        return "; ".join(said)


def summarise(check: AnswerCheck, accepted: int | None) -> AnswerProof:
    """Of an answer that was read to its end."""
    c = check.certified
    reaches = c is not None and c.complete_to > check.request.from_ms
    return AnswerProof(
        check.request,
        check.verify,
        check.given,
        check.in_sets,
        check.by_contracts if check.verify is not Verify.NONE else 0,
        check.as_of,
        min(c.complete_to, check.request.until_ms) if c is not None and reaches else None,
        tuple(check.bundles),
        c is not None and c.is_final,
        accepted,
        tuple(check.parts),
        tuple(check.others.items()),
    )


def _name_flags(part: Part) -> list[str]:
    return [] if part.trailer is None else [str(flag.name).lower() for flag in Flag if flag in part.trailer.flags]


def describe(proof: AnswerProof) -> dict[str, Any]:
    """As JSON values."""
    r = proof.request
    return {
        "verdict": "not verified" if proof.verify is Verify.NONE else "verified",
        "verify": proof.verify.value,
        "stream": r.stream_id,
        "partition": r.partition,
        "from_ms": r.from_ms,
        "until_ms": r.until_ms,
        "messages": proof.count,
        "certified": proof.certified,
        "certified_to_ms": proof.certified_to,
        "as_of": proof.as_of,
        "bundles": list(proof.bundles),
        "final": proof.is_final,
        "accepted": proof.accepted,
        "brokers": [
            {
                "broker": f"0x{part.broker.hex()}",
                "url": part.url,
                "messages": part.count,
                "root": None if part.trailer is None else f"0x{part.trailer.root.hex()}",
                "flags": _name_flags(part),
                "cut": part.trailer is None,
            }
            for part in proof.parts
        ],
        "others": [{"broker": f"0x{broker.hex()}", "messages": count} for broker, count in proof.others],
        "proves": proof.proves,
        "leaves_open": proof.leaves_open,
    }
