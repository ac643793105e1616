"""What an answer counts of its pages: flags of neighbours with one message id, wherever pages end."""

from __future__ import annotations

from itertools import pairwise

import pytest
from msgspec.structs import replace

from tests.builders import GENESIS_MS, a_key, a_message
from tests.fakes.message_store import MemoryMessageStore
from validator.broker.query import Tally
from validator.ports.message_store import Columns
from validator.protocol.codec.message import make_record
from validator.protocol.merkle import compute_root
from validator.protocol.model import Flag, Record

PART = (a_message(a_key(1)).stream_id, 0)


def row(at_ms: int, *, content: bytes = b"{}", sequence: int = 0, who: int = 1, v: int | None = None) -> Record:
    """``v``: the last byte of a signature that nobody checks here: another variant of what was signed."""
    message = a_message(
        a_key(who), timestamp_ms=GENESIS_MS + at_ms, sequence_number=sequence, content=content, stream_id=PART[0]
    )
    if v is not None:
        message = replace(message, signature=message.signature[:-2] + bytes([v]) + message.signature[-1:])
    return make_record(message)


@pytest.mark.parametrize("cut", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("records", "flags"),
    [
        ([row(1), row(2), row(2, sequence=1), row(2, who=2), row(3)], Flag(0)),
        ([row(1), row(1, v=1), row(1, who=2)], Flag.VARIANTS),
        ([row(1, who=2), row(2), row(2, content=b'{"a":1}'), row(3)], Flag.EQUIVOCATION),
        ([row(1), row(1, v=1), row(5), row(5, content=b"[]"), row(6)], Flag.VARIANTS | Flag.EQUIVOCATION),
    ],
)
def test_neighbours_of_one_id_are_flagged_wherever_pages_end(records: list[Record], flags: Flag, cut: int) -> None:
    store = MemoryMessageStore()
    assert store.insert(records, 0) == len(records)
    rows = store.scan(PART, 0, GENESIS_MS + 10, limit=100)
    tally = Tally()
    for start, end in pairwise([*range(0, len(rows), cut), len(rows)]):
        tally.add(Columns.of_rows(rows[start:end]))
    assert tally.flags == flags
    assert (tally.count, tally.signed_bytes) == (len(rows), sum(r.signed_bytes for r in records))
    assert tally.root.root() == compute_root([r.key.leaf for r in rows])
