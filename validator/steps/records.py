"""Records of a set from disk, with the newest few sets kept in memory: a round looks at the same set several times."""

from __future__ import annotations

from validator.protocol.model import Record, Root
from validator.steps.context import Context

KEPT_SETS = 12
KEPT_RECORDS = 100_000
"""Sets beyond this many records are read from disk each time."""


def load_records(context: Context, root: Root) -> list[Record]:
    """The records of a set in canonical order. The list is shared: do not change it."""
    with context.lock:
        if root in context.records:
            context.records.move_to_end(root)
            return context.records[root]
    records = context.store.sets.load_records(root)
    if len(records) <= KEPT_RECORDS:
        with context.lock:
            context.records[root] = records
            while len(context.records) > KEPT_SETS:
                context.records.popitem(last=False)
    return records
