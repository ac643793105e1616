"""For any set of messages: the file gives back exactly them, and any subset by leaf."""

from __future__ import annotations

import tempfile
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from tests.builders import GENESIS_MS, a_record, a_stream_id
from tests.segments import load_set
from validator.protocol.codec.message import leaf_of_canonical
from validator.protocol.codec.outcome import set_root
from validator.protocol.columns import row_of
from validator.protocol.consensus.window import make_entries
from validator.store import segment_writer
from validator.store.segments import SegmentStore

POOL = [
    a_record(
        stream_id=a_stream_id(path="ab"[n % 2]),
        partition=n % 3,
        timestamp_ms=GENESIS_MS + n // 4,
        sequence_number=n % 5,
        content=b"x" * (n * 7 % 90),
    )
    for n in range(40)
]


@given(
    chosen=st.lists(st.sampled_from(range(40)), unique=True),
    asked=st.lists(st.sampled_from(range(40))),
    block=st.integers(1, 2_000),
    rows=st.integers(1, 9),
)
def test_what_is_saved_is_what_is_loaded(chosen: list[int], asked: list[int], block: int, rows: int) -> None:
    records = [POOL[n] for n in chosen]
    ordered = sorted(records, key=lambda record: record.order)
    with patch.multiple(segment_writer, BLOCK_BYTES=block, PAGE_ROWS=rows), tempfile.TemporaryDirectory() as folder:
        root = set_root(make_entries(records))
        SegmentStore(folder).save(root, records)
        store = SegmentStore(folder)
        assert list(load_set(store, root)) == [record.canonical for record in ordered]
        wanted = [POOL[n].leaf for n in asked]
        assert [leaf_of_canonical(m) for m in store.load_messages(root, wanted)] == [
            POOL[n].leaf for n in asked if n in set(chosen)
        ]
        pages = [page for entry in store.load_entries(root) for page in store.load_pages(root, entry.stream_part)]
        assert [row for page in pages for row in page.rows()] == [row_of(record) for record in ordered]
        assert [data for page in pages for data in page.canonical()] == [record.canonical for record in ordered]
        assert all(len(page) <= rows for page in pages)
