"""How often records were served is found by leaf, in the object that collecting saved, and loaded when first asked."""

from __future__ import annotations

import pytest

from validator.protocol.codec import cbor
from validator.protocol.codec.variants import ServeCounts
from validator.protocol.errors import MalformedInput
from validator.protocol.hashing import hash_body
from validator.protocol.model import Digest
from validator.steps.serve_counts import CountsByLeaf


def saved(counts: dict[Digest, int]) -> bytes:
    return cbor.encode_object("sightings/1", [[leaf, count] for leaf, count in sorted(counts.items())])


@pytest.mark.parametrize("size", [0, 1, 23, 24, 255, 256, 700])
def test_each_leaf_has_its_count_however_many_there_are_and_however_long_counts_are(size: int) -> None:
    counts = {hash_body(b"%d" % n): (n * 37) % 70_000 for n in range(size)}
    found = CountsByLeaf(lambda: saved(counts))
    for leaf, count in counts.items():
        assert leaf in found
        assert found.of(leaf) == ServeCounts(count)
        assert found.of(leaf, 3) == ServeCounts(count, 3)
    for other in (hash_body(b"other"), Digest(bytes(32)), Digest(b"\xff" * 32)):
        assert other not in found
        assert found.of(other, 2) == ServeCounts(0, 2)


def test_nothing_is_loaded_before_somebody_asks_and_then_once() -> None:
    loads: list[int] = []

    def load() -> None:
        loads.append(1)

    found = CountsByLeaf(load)
    assert loads == []
    assert [found.of(hash_body(b"%d" % n)) for n in range(3)] == [ServeCounts()] * 3
    assert loads == [1]


def test_another_object_is_refused() -> None:
    with pytest.raises(MalformedInput):
        CountsByLeaf(lambda: cbor.encode_object("others/1", [])).of(hash_body(b"x"))
