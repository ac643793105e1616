"""Whole sets read back from the files that hold them."""

from __future__ import annotations

from collections.abc import Iterator

from validator.protocol.model import Root
from validator.store.segments import SegmentStore


def load_set(store: SegmentStore, set_root: Root) -> Iterator[bytes]:
    """Canonical messages in canonical order, page by page. Raises DamagedSegment."""
    for entry in store.load_entries(set_root):
        for page in store.load_pages(set_root, entry.stream_part):
            yield from page.canonical()
