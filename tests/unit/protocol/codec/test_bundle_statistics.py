"""Statistics of a row group say what its rows add up to, or the file is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import GENESIS_MS, a_message, a_record
from validator.protocol.codec.bundle_columns import make_table
from validator.protocol.codec.bundle_statistics import Totals
from validator.protocol.codec.message import make_record
from validator.protocol.codec.parquet_footer import Chunk
from validator.protocol.errors import MalformedInput
from validator.protocol.model import ContentType, Record, SignatureType

CONTENTS = ('{"a":"ä"}'.encode(), b"text", b"[1]", b"")


@pytest.fixture(scope="module")
def totals() -> Totals:
    """Of four rows, two of them with JSON, added in two batches."""
    records: list[Record] = [
        make_record(
            a_message(
                timestamp_ms=GENESIS_MS + n,
                content=content,
                content_type=ContentType.BINARY,
                signature_type=SignatureType.ECDSA_SECP256K1_EVM,
            )
        )
        for n, content in enumerate(CONTENTS)
    ]
    found = Totals()
    for some in (records[:1], records[1:]):
        (batch,) = make_table([(False, record) for record in some]).to_batches()
        found.add(batch)
    return found


def chunk(name: str, **size_statistics: Any) -> Chunk:
    return Chunk(name, 4, 4, 4, 10, 10, None, size_statistics, frozenset(), None)


@pytest.mark.parametrize(
    ("name", "true", "false"),
    [
        ("publisher_id", {"unencoded_bytes": 4 * 42}, {"unencoded_bytes": 4 * 20}),
        ("content", {"unencoded_bytes": 10 + 3}, {"unencoded_bytes": 9 + 3}),
        ("content_bytes", {"unencoded_bytes": 4}, {"unencoded_bytes": 5}),
        ("content", {"definition_levels": [2, 2]}, {"definition_levels": [1, 3]}),
        ("content_bytes", {"definition_levels": [2, 2]}, {"definition_levels": [4]}),
        ("publisher_id", {"definition_levels": [], "repetition_levels": []}, {"definition_levels": [1, 3]}),
    ],
)
def test_sizes_and_nulls_of_texts_and_contents_are_those_of_the_rows(
    totals: Totals, name: str, true: dict[str, Any], false: dict[str, Any]
) -> None:
    totals.check(chunk(name, **true), "chunk")
    (field,) = false
    with pytest.raises(MalformedInput, match=f"chunk: its {field} differs from the rows"):
        totals.check(chunk(name, **false), "chunk")


def test_rows_of_one_batch_alone_give_other_totals(totals: Totals) -> None:
    other = Totals()
    (batch,) = make_table([(False, a_record())]).to_batches()
    other.add(batch)
    with pytest.raises(MalformedInput, match="unencoded_bytes"):
        other.check(chunk("publisher_id", unencoded_bytes=4 * 42), "chunk")
