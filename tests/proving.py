"""A bundle of small trees to prove things about, and every way to alter a proof by one thing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any

from tests.builders import an_unsigned_message
from tests.bundle_builder import an_outcome
from validator.protocol.codec.manifest import bundle_leaves, bundle_root
from validator.protocol.codec.message import make_record
from validator.protocol.codec.outcome import outcome_digest
from validator.protocol.model import (
    BundleHeader,
    Digest,
    Flag,
    InstanceId,
    InstanceKind,
    Outcome,
    Record,
    Root,
    StreamPart,
)
from validator.protocol.proof import RangeProof, WindowProof, build_range

START_MS = 1_700_000_000_000
STEP_MS = 10
WINDOW_MS = 60_000
_OPTIONAL = ("before", "after", "bundle")


@dataclass(frozen=True)
class Proven:
    """A bundle of one window with records in it, three others and a late set."""

    records: dict[StreamPart, list[Record]]
    outcome: Outcome
    bundle: list[Digest]
    root: Root

    @property
    def digest(self) -> Digest:
        return outcome_digest(self.outcome)

    def leaves(self, part: StreamPart) -> list[bytes]:
        return [record.leaf for record in self.records[part]]

    def prove_range(
        self, part: StreamPart, from_ms: int, until_ms: int, bundle: Sequence[bytes] | None = None
    ) -> tuple[RangeProof, list[bytes]]:
        """With the canonical bytes of the messages in the range."""
        records = self.records.get(part, [])
        times = [record.message.timestamp_ms for record in records]
        leaves = [record.leaf for record in records]
        load = [record.canonical for record in records].__getitem__
        proof = build_range(self.outcome, part, times, leaves, load, from_ms, until_ms, bundle)
        return proof, [r.canonical for r in records if from_ms <= r.message.timestamp_ms < until_ms]


def a_part(number: int) -> StreamPart:
    """Partitions in canonical order, two to a stream; of odd and even numbers, so that there is room between."""
    return (f"stream-{number // 2:03}", 10 * (number % 2) + 5)


@cache
def a_bundle(sizes: tuple[int, ...], place: int = 1) -> Proven:
    """Partition number i holds ``sizes[i]`` messages, ``STEP_MS`` apart; the window is number ``place`` of four."""
    records = {
        a_part(number): [
            make_record(
                an_unsigned_message(
                    stream_id=a_part(number)[0],
                    partition=a_part(number)[1],
                    timestamp_ms=START_MS + STEP_MS * at,
                    content=b"%d" % at,
                )
            )
            for at in range(size)
        ]
        for number, size in enumerate(sizes)
    }
    window = InstanceId(InstanceKind.WINDOW, START_MS)
    outcome = an_outcome(window, [record for members in records.values() for record in members])
    others = [Digest(bytes([number]) * 32) for number in (1, 2, 3, 4)]
    digests = [*others[:place], outcome_digest(outcome), *others[place:3]]
    header = BundleHeader(Digest(b"\x0c" * 32), 7, Root(b"\x11" * 32), START_MS, START_MS + 3 * WINDOW_MS)
    return Proven(
        {part: members for part, members in records.items() if members},
        outcome,
        bundle_leaves(header, digests, others[3]),
        bundle_root(header, digests, others[3]),
    )


def altered(value: Any) -> Iterator[Any]:
    """Everything that differs from a proof, or a part of one, in one field."""
    match value:
        case None:
            return
        case bool():
            yield not value
        case Flag():
            yield value ^ Flag.FULL
        case InstanceKind():
            yield InstanceKind(3 - value)
        case int():
            yield value + 1
            if value:
                yield value - 1
        case bytes():
            yield bytes([value[0] ^ 1]) + value[1:]
        case str():
            yield value + "x"
        case tuple():
            yield from _altered_path(value)
        case _ if is_dataclass(value) and not isinstance(value, type):
            for field in fields(value):
                part = getattr(value, field.name)
                yield from (replace(value, **{field.name: other}) for other in altered(part))
                if part is not None and field.name in _OPTIONAL and not isinstance(value, WindowProof):
                    yield replace(value, **{field.name: None})
        case _:
            raise TypeError(f"{type(value).__name__} is in no proof")


def _altered_path(path: tuple[bytes, ...]) -> Iterator[tuple[bytes, ...]]:
    other = b"\x5a" * 32
    yield (*path, other)
    for at, node in enumerate(path):
        yield (*path[:at], other, *path[at + 1 :])
        yield (*path[:at], *path[at + 1 :])
        if at + 1 < len(path) and path[at + 1] != node:
            yield (*path[:at], path[at + 1], node, *path[at + 2 :])
