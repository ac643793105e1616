"""Messages made from a seed: 300 B to 2 kB on the wire, 20 streams, really signed, 1 % exact duplicates."""

from __future__ import annotations

import json
import random

from validator.protocol.codec.legacy_array import write_legacy_array
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.signatures import publish_message
from validator.protocol.model import MessageRef

STREAMS = 20
PUBLISHERS = 36
START_MS = 1_700_000_000_000
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def make_lines(count: int, seed: int) -> list[bytes]:
    """``count`` legacy arrays as brokers send them, slightly out of order. The same for the same seed."""
    rng = random.Random(seed)
    keys = [SigningKey(rng.randbytes(32)) for _ in range(PUBLISHERS)]
    chains = {
        (stream, publisher): "".join(rng.choices(_LETTERS, k=20))
        for stream in range(STREAMS)
        for publisher in range(PUBLISHERS)
    }
    last: dict[tuple[int, int], MessageRef] = {}
    lines: list[bytes] = []
    while len(lines) < count:
        if lines and rng.random() < 0.01:
            lines.append(rng.choice(lines[-1000:]))
            continue
        pair = rng.randrange(STREAMS), rng.randrange(PUBLISHERS)
        timestamp_ms = START_MS + len(lines) * 18 + rng.randrange(-50, 50)
        prev = last.get(pair)
        if prev is not None and prev.timestamp_ms >= timestamp_ms:
            timestamp_ms = prev.timestamp_ms + 1
        key = keys[pair[1]]
        message = publish_message(
            key,
            stream_id=f"0x{keys[pair[0]].address.hex()}/bench/stream-{pair[0]}",
            timestamp_ms=timestamp_ms,
            content=_content(rng),
            msg_chain_id=chains[pair],
            prev=prev,
        )
        last[pair] = MessageRef(timestamp_ms, 0)
        lines.append(write_legacy_array(message))
    return lines


def _content(rng: random.Random) -> bytes:
    """Sensor readings, ticks, free text: most small, some near 1.6 kB."""
    kind = rng.random()
    value: dict[str, object] = {"sensor": f"room-{rng.randrange(500)}", "value": rng.randrange(10**6) / 1000}
    if kind > 0.5:
        value |= {"bid": rng.random(), "ask": rng.random(), "size": rng.randrange(1000), "venue": "x" * 12}
    if kind > 0.84:
        value["note"] = "".join(rng.choices(_LETTERS + "      ", k=rng.randrange(60, 900)))
    if kind > 0.95:
        value["events"] = [{"k": rng.randrange(99), "v": rng.random()} for _ in range(rng.randrange(5, 16))]
    return json.dumps(value, separators=(",", ":")).encode()
