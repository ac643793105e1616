"""Count and root of a span, per slice of ten seconds: what a consumer compares before it reads."""

from __future__ import annotations

from typing import Any

from validator.broker.refusal import bad
from validator.ports.message_store import MessageStore
from validator.protocol.codec.answer import Request
from validator.protocol.merkle import RunningRoot
from validator.protocol.model import Digest

SLICE_MS = 10_000
MAX_SLICES = 8_640
"""A day."""


def summarise(store: MessageStore, span: Request) -> dict[str, Any]:
    """Slices that hold anything, in order, and the whole. Raises Refused (400)."""
    if span.until_ms - span.from_ms > MAX_SLICES * SLICE_MS:
        raise bad("to", f"more than {MAX_SLICES} slices of {SLICE_MS // 1000} s after from")
    slices: list[dict[str, Any]] = []
    whole, total = RunningRoot(), 0
    begun: int | None = None
    count, root = 0, RunningRoot()

    def end_slice() -> None:
        if begun is not None:
            bounds = {"from": max(begun, span.from_ms), "to": min(begun + SLICE_MS, span.until_ms)}
            slices.append({**bounds, "count": count, "root": root.root().hex()})

    for page in store.keys(span.stream_part, span.from_ms, span.until_ms):
        leaves: list[Digest] = []
        for timestamp_ms, leaf in page:
            start = timestamp_ms // SLICE_MS * SLICE_MS
            if start != begun:
                root.add(leaves)
                count += len(leaves)
                leaves = []
                end_slice()
                begun, count, root = start, 0, RunningRoot()
            leaves.append(leaf)
        root.add(leaves)
        count += len(leaves)
        whole.add([leaf for _, leaf in page])
        total += len(page)
    end_slice()
    return {"from": span.from_ms, "to": span.until_ms, "count": total, "root": whole.root().hex(), "slices": slices}
