"""Count and root of a span, per slice of ten seconds: what a consumer compares before it reads.

What is said of the whole is signed (``claim``: ``codec.slice_claim``, base64url), the broker's word like a trailer. The
slices' roots only help to find where two brokers differ.
"""

from __future__ import annotations

from typing import Any

from validator.broker.core import Broker
from validator.broker.refusal import bad
from validator.protocol.codec.answer import Request, write_text
from validator.protocol.codec.slice_claim import SliceClaim, encode_claim, sign_claim
from validator.protocol.merkle import RunningRoot
from validator.protocol.model import Digest

SLICE_MS = 10_000
MAX_SLICES = 8_640
"""A day."""


def summarise(broker: Broker, span: Request) -> dict[str, Any]:
    """Slices that hold anything, in order, and the whole. Raises Refused (400)."""
    store = broker.store
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
    claim = SliceClaim(
        broker.address, span.stream_part, span.from_ms, span.until_ms, total, whole.root(), broker.now_ms()
    )
    return {
        "from": span.from_ms,
        "to": span.until_ms,
        "count": total,
        "root": claim.root.hex(),
        "claim": write_text(encode_claim(sign_claim(claim, broker.key, broker.context))),
        "slices": slices,
    }
