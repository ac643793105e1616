"""Records of a set from disk, with the newest few sets kept in memory: a round looks at the same set several times."""

from __future__ import annotations

from validator.protocol.model import Record, Root
from validator.steps.context import Context

KEPT_RECORDS = 100_000
"""Sets beyond this many records are read from disk each time."""


def load_records(context: Context, root: Root) -> list[Record]:
    """The records of a set in canonical order. The list is shared: do not change it."""
    kept = context.records.get(root)
    if kept is not None:
        return kept
    records = context.store.sets.load_records(root)
    if len(records) <= KEPT_RECORDS:
        context.records.put(root, records)
    return records
